from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from trocar.bench.unlike import CORRUPTED, MISSHAPEN
from trocar.planners.descriptors import NAMES, descriptors
from trocar.planners.geometry import fraction_on
from trocar.planners.novelty import Novelty, fit, novelty_findings, phantom_table, table_of
from trocar.planners.phantom import phantom_case, phantom_from_shape, phantom_shape
from trocar.planners.types import Anatomy, Grid
from trocar.runtime.errors import InvalidInput

GRID = Grid((-60.0, -60.0, -60.0), (2.0, 2.0, 2.0), (75, 75, 60))
COARSE = {"slice_mm": 2.5, "pixel_mm": 1.5}
FITTED = 60
AT = {name: index for index, name in enumerate(NAMES)}


def on_grid(case):
    return Anatomy(GRID, {role: fraction_on(part, GRID) for role, part in case.structures.items()})


@pytest.fixture(scope="module")
def statistics():
    cases = (phantom_case(10_000 + i, pixel_mm=1.5, slice_mm=(2.0, 3.0, 5.0)[i % 3]) for i in range(FITTED))
    return fit(np.array([descriptors(on_grid(case)) for case in cases]))


@pytest.fixture(scope="module")
def novelty(statistics):
    return Novelty(statistics)


def score(novelty, case):
    return novelty.score(descriptors(on_grid(case)))


def table_of_noise(count=200, seed=0):
    """Descriptors at a hundred times their tolerance, drawn normally and apart."""
    return 100.0 * np.random.default_rng(seed).standard_normal((count, len(NAMES)))


def test_statistics_are_plain_json_and_read_back_the_same(statistics, novelty):
    again = Novelty(json.loads(json.dumps(statistics)))
    described = descriptors(on_grid(phantom_case(3, **COARSE)))
    assert again.score(described) == novelty.score(described)
    assert statistics["cases"] == FITTED


def test_few_but_some_of_what_was_held_out_is_flagged():
    table = table_of_noise(1000)
    found = fit(table)
    assert 1.0 <= found["flagged_held_out_pct"] <= 1.5
    fresh = [Novelty(found).score(row) for row in table_of_noise(1000, seed=1)]
    assert 0.003 <= np.mean(np.array(fresh) > 1.0) <= 0.05


def test_ordinary_phantoms_are_seldom_flagged(novelty):
    scores = [score(novelty, phantom_case(seed, **COARSE)) for seed in range(700_000, 700_020)]
    assert np.mean(np.array(scores) > 1.0) <= 0.15


@pytest.mark.parametrize("name", MISSHAPEN)
def test_phantoms_out_of_range_are_flagged(novelty, name):
    random = np.random.default_rng(0)
    shapes = [MISSHAPEN[name](phantom_shape(seed), random) for seed in (700_000, 700_001)]
    ordinary = [score(novelty, phantom_case(seed, **COARSE)) for seed in (700_000, 700_001)]
    scores = [score(novelty, phantom_from_shape(shape, name, **COARSE)) for shape in shapes]
    assert min(np.array(scores) - ordinary) > 0.0
    assert max(scores) > 1.0


@pytest.mark.parametrize("name", CORRUPTED)
def test_corrupted_contours_are_flagged(novelty, name):
    case = phantom_case(700_002, **COARSE)
    assert score(novelty, CORRUPTED[name](case, np.random.default_rng(1))) > max(1.0, score(novelty, case))


def test_corruptions_leave_the_case_they_are_given(novelty):
    case = phantom_case(700_003, **COARSE)
    before = score(novelty, case)
    for corrupt in CORRUPTED.values():
        corrupt(case, np.random.default_rng(0))
    assert score(novelty, case) == before


def test_a_case_is_no_less_ordinary_for_5_mm_slices(novelty):
    for seed in (700_004, 700_005):
        fine, thick = (score(novelty, phantom_case(seed, slice_mm=step, pixel_mm=1.5)) for step in (2.0, 5.0))
        assert thick < max(1.0, fine + 0.35)


def test_the_blame_falls_on_what_is_wrong(novelty):
    big = replace(phantom_shape(700_006), rectal_gap_mm=12.0)
    described = descriptors(on_grid(phantom_from_shape(big, "far rectum", **COARSE)))
    assert novelty.worst(described).startswith("rectum_gap_mm 12")
    assert "usual" in novelty.worst(described)


def test_in_range_each_but_not_together():
    """Two descriptors that always agree: one case where they do not is unlike, and says so."""
    table = table_of_noise()
    table[:, 1] = table[:, 0]
    novelty = Novelty(fit(table))
    odd = np.zeros(len(NAMES))
    odd[:2] = 220.0
    assert novelty.score(odd) < 1.0
    odd[1] = -220.0
    assert novelty.score(odd) > 1.0
    assert novelty.worst(odd).endswith("beside the other descriptors")


def test_differences_within_the_tolerance_are_none():
    """Cases that are all alike: what differs by less than any plan would notice is like them still."""
    novelty = Novelty(fit(np.zeros((20, len(NAMES)))))
    near = np.zeros(len(NAMES))
    near[AT["rectum_gap_mm"]] = 0.9
    assert novelty.score(near) < 1.0
    near[AT["rectum_gap_mm"]] = 6.0
    assert novelty.score(near) > 1.0


def test_a_missing_rectum_is_unlike_cases_that_have_one(novelty):
    case = phantom_case(700_007, **COARSE)
    parts = {role: part for role, part in case.structures.items() if role != "rectum"}
    described = descriptors(on_grid(replace(case, structures=parts)))
    assert novelty.score(described) > 1.0
    assert novelty.worst(described).startswith("missing_roles 1")
    parts = {role: part for role, part in case.structures.items() if role != "bladder"}
    assert score(novelty, replace(case, structures=parts)) <= max(1.0, score(novelty, case))


def test_cases_that_all_lack_a_rectum_make_one_without_ordinary():
    table = table_of_noise(100)
    table[:, AT["rectum_gap_mm"]] = np.nan
    table[:, AT["missing_roles"]] = 1.0
    novelty = Novelty(fit(table))
    case = np.zeros(len(NAMES))
    case[AT["rectum_gap_mm"]], case[AT["missing_roles"]] = np.nan, 1.0
    assert novelty.score(case) < 1.0
    case[AT["rectum_gap_mm"]], case[AT["missing_roles"]] = 5.0, 0.0
    assert novelty.worst(case).startswith("missing_roles 0")
    assert novelty.score(case) > 1.0


def test_findings_warn_and_never_fail(statistics):
    ordinary = on_grid(phantom_case(700_009, **COARSE))
    (found,) = novelty_findings(ordinary, statistics)
    assert (found.rule, found.severity) == ("unlike_training", "pass")
    assert 0.0 < found.measured <= 1.0
    tiny = MISSHAPEN["volume 8-12 cc"](phantom_shape(700_009), np.random.default_rng(0))
    (found,) = novelty_findings(on_grid(phantom_from_shape(tiny, "tiny", **COARSE)), statistics)
    assert found.severity == "warn"
    assert found.measured > 1.0
    assert "ctv_radius_mm" in found.source
    (found,) = novelty_findings(ordinary, {})
    assert found.severity == "note"


def test_tables_are_of_any_target_a_template_could_hold_or_not():
    huge = MISSHAPEN["volume 120-150 cc"](phantom_shape(5), np.random.default_rng(0))
    done = []
    table = table_of([phantom_from_shape(huge, "huge", **COARSE)], progress=done.append)
    assert table.shape == (1, len(NAMES))
    assert table[0, AT["ctv_radius_mm"]] > 30.0
    assert done == [1]
    assert table_of([]).shape == (0, len(NAMES))


def test_phantoms_are_tabled_at_every_usual_sampling():
    table = phantom_table([5, 5, 5, 5])
    assert np.array_equal(table[0], table[3])
    assert not np.array_equal(table[0], table[1])
    assert not np.array_equal(table[1], table[2])
    assert table[2, AT["ctv_radius_mm"]] == pytest.approx(table[0, AT["ctv_radius_mm"]], rel=0.01)


@pytest.mark.parametrize("shape", [(19, len(NAMES)), (30, 3), (30,)])
def test_tables_that_say_too_little_are_refused(shape):
    with pytest.raises(InvalidInput, match="at least 20 cases"):
        fit(np.zeros(shape))


@pytest.mark.parametrize("change", [{"schema": "other/1"}, {"names": ["one"]}])
def test_statistics_of_another_version_are_refused(statistics, change):
    with pytest.raises(InvalidInput, match="novelty statistics: expected"):
        Novelty({**statistics, **change})


def test_descriptors_of_another_length_are_refused(novelty):
    with pytest.raises(InvalidInput, match="descriptors, got"):
        novelty.score(np.zeros(3))
