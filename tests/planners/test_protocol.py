"""Protocol files: what is shipped says what it must, and a mistake in a centre's own file is named."""

from __future__ import annotations

import dataclasses
from importlib import resources

import pytest

from trocar.planners.protocol import (
    NEEDLE_PATTERNS,
    load_protocol,
    parse_protocol,
    protocol_keys,
    same_isotope,
)
from trocar.runtime.errors import InvalidInput, ModelNotFound

KEYS = ("ldr-cs131-115", "ldr-i125-110-boost", "ldr-i125-145", "ldr-pd103-125")


@pytest.fixture
def text() -> str:
    entry = resources.files("trocar.planners").joinpath("protocols", "ldr-i125-145.toml")
    return entry.read_text(encoding="utf-8")


def limits_of(protocol, role, metric, severity):
    return [
        (limit.op, limit.value, limit.unit)
        for limit in protocol.limits
        if (limit.role, limit.metric, limit.severity) == (role, metric, severity)
    ]


def test_four_protocols_are_shipped():
    assert protocol_keys() == KEYS


@pytest.mark.parametrize(
    ("key", "prescription_gy", "isotope"),
    [
        ("ldr-i125-145", 145, "I-125"),
        ("ldr-i125-110-boost", 110, "I-125"),
        ("ldr-pd103-125", 125, "Pd-103"),
        ("ldr-cs131-115", 115, "Cs-131"),
    ],
)
def test_shipped_prescriptions(key, prescription_gy, isotope):
    protocol = load_protocol(key)
    assert (protocol.key, protocol.prescription_gy, protocol.isotope) == (key, prescription_gy, isotope)
    low, high = protocol.strength_range_u
    assert low < protocol.strength_u < high < 100


@pytest.mark.parametrize("key", KEYS)
def test_everything_shipped_has_a_source(key):
    protocol = load_protocol(key)
    sources = [limit.source for limit in protocol.limits] + [note.source for note in protocol.notes]
    assert all(len(source) > 10 for source in sources)
    assert {limit.role for limit in protocol.limits} == {"ctv", "ptv", "urethra", "rectum"}
    assert any(note.rule == "interseed_attenuation" and "3 %" in note.text for note in protocol.notes)
    assert protocol.checks.second_dose_points >= 2000
    assert protocol.checks.second_dose_limit_pct == 2
    assert protocol.geometry.forbidden_patterns == NEEDLE_PATTERNS
    assert protocol.geometry.min_spacing_along_needle_mm == 10


def test_the_145_gy_limits_are_those_of_the_cited_guidelines():
    protocol = load_protocol("ldr-i125-145")
    rx = "% of prescription"
    assert limits_of(protocol, "ctv", "v100_pct", "fail") == [(">=", 95, "%")]
    assert limits_of(protocol, "ctv", "v100_pct", "warn") == [(">=", 99, "%")]
    assert limits_of(protocol, "ctv", "v150_pct", "warn") == [("<=", 60, "%")]
    assert limits_of(protocol, "ctv", "v150_pct", "fail") == [("<=", 65, "%")]
    assert limits_of(protocol, "ctv", "v200_pct", "fail") == [("<=", 20, "%")]
    assert limits_of(protocol, "ctv", "d90_gy", "fail") == [(">=", 100, rx)]
    assert limits_of(protocol, "urethra", "d10_gy", "fail") == [("<", 150, rx)]
    assert limits_of(protocol, "urethra", "d30_gy", "fail") == [("<", 130, rx)]
    assert limits_of(protocol, "urethra", "d5_gy", "warn") == [("<", 150, rx)]
    assert limits_of(protocol, "rectum", "d2cc_gy", "fail") == [("<=", 100, rx)]
    assert limits_of(protocol, "rectum", "d0_1cc_gy", "warn") == [("<", 200, "Gy")]


@pytest.mark.parametrize(
    ("role", "kind", "dose_pct", "unit", "acceptance"),
    [
        ("ctv", "at_least", 100, "pct", 99),
        ("ptv", "at_least", 100, "pct", 98),
        ("ctv", "at_most", 150, "pct", 65),
        ("ctv", "at_most", 200, "pct", 20),
        ("urethra", "at_most", 150, "pct", 10),
        ("urethra", "at_most", 130, "pct", 30),
        ("rectum", "at_most", 100, "cc", 2),
        ("rectum", "at_most", 150, "cc", 0.1),
    ],
)
def test_the_145_gy_search_goals_are_at_least_as_strict_as_acceptance(role, kind, dose_pct, unit, acceptance):
    wanted = (role, kind, dose_pct, unit)
    [goal] = [
        goal
        for goal in load_protocol("ldr-i125-145").search.goals
        if (goal.role, goal.kind, goal.dose_pct, goal.unit) == wanted
    ]
    assert goal.volume >= acceptance if kind == "at_least" else goal.volume <= acceptance
    assert goal.weight > 0


def test_a_centres_own_file_is_read_by_path(tmp_path, text):
    path = tmp_path / "ours.toml"
    path.write_text(text.replace("prescription_gy = 145.0", "prescription_gy = 144.0"))
    protocol = load_protocol(path)
    assert protocol == dataclasses.replace(load_protocol("ldr-i125-145"), prescription_gy=144.0)


@pytest.mark.parametrize("name", ["ldr-i125-999", "", "/etc/passwd", "nowhere.toml", "../protocol.py"])
def test_an_unknown_name_lists_the_shipped_ones(name):
    with pytest.raises(ModelNotFound, match=r"ldr-i125-145.*got"):
        load_protocol(name)


def test_files_that_are_no_protocol_are_refused(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="UTF-8"):
        load_protocol(path)
    path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(InvalidInput, match="bytes"):
        load_protocol(path)
    with pytest.raises(InvalidInput, match="TOML"):
        parse_protocol("key = = 3")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("prescription_gy = 145.0", "prescription_gy = 0", "prescription_gy: expected a number from 1"),
        ("prescription_gy = 145.0", "prescription_gy = nan", "prescription_gy: .*got nan"),
        ("prescription_gy = 145.0", "prescription_gy = inf", "prescription_gy: .*got inf"),
        ("prescription_gy = 145.0", "prescription_gy = true", "prescription_gy: .*got True"),
        ("prescription_gy = 145.0", 'prescription_gy = "145"', "prescription_gy: .*got '145'"),
        ("prescription_gy = 145.0", "", "prescription_gy: .*missing"),
        (
            "prescription_gy = 145.0",
            "prescription_gy = 145.0\nprescribtion = 1",
            "prescribtion: .*no such key",
        ),
        ("strength_u = 0.42", "strength_u = 100", "strength_u: expected 0.15 to 1.5"),
        ("[0.15, 1.5]", "[1.5, 0.15]", "strength_range_u: expected 0 < low < high"),
        ("[0.15, 1.5]", "[0.15, nan]", "strength_range_u: .*got nan"),
        ("[0.15, 1.5]", "[0.15]", "strength_range_u: expected two numbers"),
        ('metric = "d5_gy"', 'metric = "d5"', r"limit\[11\].metric: .*got 'd5'"),
        ('metric = "d5_gy"', 'metric = "d500_gy"', r"limit\[11\].metric"),
        ('metric = "d5_gy"', 'metric = "v150_pct"', r"limit\[11\].unit: expected %"),
        ('op = "<"', 'op = "="', r"limit\[9\].op: expected <"),
        ('severity = "warn"', 'severity = "ignore"', r"severity: expected fail or warn"),
        ('role = "urethra"', 'role = "uretra"', "role: expected ctv"),
        ('source = "GEC', 'sauce = "GEC', "source: .*missing"),
        ('kind = "at_most"', 'kind = "under"', r"search.goal\[2\].kind"),
        ("volume = 45.0", "volume = 980", r"search.goal\[2\].volume: expected a number from 0 to 100"),
        ("needle_cap = 34", "needle_cap = 34.5", "search.needle_cap: expected an integer"),
        (
            "needle_cap = 34",
            "needle_cap = 35",
            "search.needle_cap: expected at most geometry.max_needles = 34",
        ),
        ('"row3"', '"row9"', "geometry.forbidden_patterns: expected a list out of"),
        ("no_adjacent_in_plane = true", "no_adjacent_in_plane = 1", "geometry.no_adjacent_in_plane"),
        ("second_dose_points = 2000", "second_dose_points = 10", "checks.second_dose_points: .*2000"),
        ("[checks]", "[chekcs]", "checks: expected this key"),
        ("[geometry]", "[geometry]\ncolour = 3", "geometry.colour: .*no such key"),
        ("[[limit]]", "[[limits]]", "limit: expected this key"),
    ],
)
def test_a_mistake_is_refused_with_the_keys_name(text, old, new, message):
    assert old in text
    # Every `[[limit]]` must go for that table to be absent; elsewhere the first one is the mistake.
    broken = text.replace(old, new) if old == "[[limit]]" else text.replace(old, new, 1)
    with pytest.raises(InvalidInput, match=message) as caught:
        parse_protocol(broken, where="ours.toml")
    assert str(caught.value).startswith("ours.toml: ")
    assert "\n" not in str(caught.value)


def test_strength_and_prescription_that_cannot_be_meant_are_refused():
    protocol = load_protocol("ldr-i125-145")
    protocol.require_sane(strength_u=0.42, prescription_gy=144.0)
    for strength_u in (100.0, 0.0, -0.42, float("nan"), float("inf")):
        with pytest.raises(InvalidInput, match=r"0\.15 to 1\.5 U"):
            protocol.require_sane(strength_u=strength_u, prescription_gy=145.0)
    for prescription_gy in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidInput, match="prescription"):
            protocol.require_sane(strength_u=0.42, prescription_gy=prescription_gy)


@pytest.mark.parametrize("spelling", ["I-125", "I125", "125I", "i-125", "125-I"])
def test_isotopes_are_compared_not_spellings(spelling):
    assert same_isotope(spelling, "I-125")
    assert not same_isotope(spelling, "Pd-103")
    assert not same_isotope(spelling, "I-131")
