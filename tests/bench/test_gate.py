from pathlib import Path

import pytest

import trocar.bench
from trocar.bench.gate import Limit, read_gate, violations
from trocar.runtime.errors import InvalidInput

MEASURED = {
    "workload": "w",
    "timings": {
        "fast": {"p50_ms": 1.0, "p99_ms": 2.0, "over_floor": 3.0},
        "slow": {"p50_ms": 4.0, "max_ms": 9.0},
    },
    "floor": {"gb_s": 20.0},
    "note": "text",
}


def gate(tmp_path, text):
    path = tmp_path / "gate.toml"
    path.write_text(text)
    return read_gate(str(path))


def broken(**limit):
    return violations([Limit(workload="w", **limit)], [MEASURED])


@pytest.mark.parametrize(
    "limit",
    [
        {"case": "fast", "p99_ms": 2.0, "over_floor": 3.0},
        {"case": "slow", "max_ms": 9.0},
        {"case": "slow", "to": "fast", "ratio_at_most": 4.0, "ratio_at_least": 4.0},
        {"fact": "floor.gb_s", "at_least": 20.0, "at_most": 20.0},
    ],
)
def test_a_limit_that_is_kept_says_nothing(limit):
    assert broken(**limit) == []


def test_each_limit_that_is_not_kept_is_named():
    assert broken(case="fast", p50_ms=0.5, p99_ms=1.5) == [
        "w fast: p50_ms is 1, expected at most 0.5",
        "w fast: p99_ms is 2, expected at most 1.5",
    ]
    assert broken(case="slow", to="fast", ratio_at_most=3.0) == [
        "w slow: ratio to fast is 4, expected at most 3"
    ]
    assert broken(fact="floor.gb_s", at_least=25.0) == ["w floor.gb_s: it is 20, expected at least 25"]


def test_what_was_not_measured_is_not_kept():
    assert broken(case="slow", p99_ms=100.0) == ["w slow: p99_ms was not measured"]
    assert broken(case="gone", p50_ms=100.0) == ["w gone: p50_ms was not measured"]
    assert broken(case="fast", to="gone", ratio_at_most=9.0) == ["w fast: ratio to gone was not measured"]
    assert broken(fact="floor.gone", at_most=1.0) == ["w floor.gone: it was not measured"]
    assert broken(fact="note", at_most=1.0) == ["w note: it was not measured"]
    assert violations([Limit(workload="v", case="c", p50_ms=1.0)], [MEASURED]) == [
        "v c: expected a measurement, got none"
    ]


def test_a_figure_that_is_no_number_is_not_kept():
    nan = {"workload": "w", "bad": float("nan")}
    assert violations([Limit(workload="w", fact="bad", at_most=1.0)], [nan]) == [
        "w bad: it is nan, expected at most 1"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one"),
        ("limit = 3", "at least one"),
        ("x = [", "not TOML"),
        ("[gate]", "unknown key 'gate'"),
        ('[[limit]]\ncase = "c"\np99_ms = 1', "expected a workload"),
        ('[[limit]]\nworkload = "w"\np99_ms = 1', "either a case or a fact"),
        ('[[limit]]\nworkload = "w"\ncase = "c"\nfact = "f"\np99_ms = 1', "either a case or a fact"),
        ('[[limit]]\nworkload = "w"\ncase = "c"', "expected for a case some of"),
        ('[[limit]]\nworkload = "w"\ncase = "c"\nat_most = 1', "expected for a case some of"),
        ('[[limit]]\nworkload = "w"\nfact = "f"\np99_ms = 1', "expected for a fact some of"),
        ('[[limit]]\nworkload = "w"\ncase = "c"\nto = "d"\np99_ms = 1', "got one alone"),
        ('[[limit]]\nworkload = "w"\ncase = "c"\nratio_at_most = 1', "got one alone"),
        ('[[limit]]\nworkload = "w"\ncase = "c"\np99 = 1', "unknown key 'p99'"),
        ('[[limit]]\nworkload = "w"\ncase = "c"\np99_ms = "1"', "expected float"),
        ('[[limit]]\nworkload = "w"\ncase = "c"\np99_ms = nan', "expected a finite number"),
    ],
)
def test_a_gate_that_would_not_limit_is_refused(tmp_path, text, message):
    with pytest.raises(InvalidInput, match=message):
        gate(tmp_path, text)


def test_a_gate_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"absent\.toml"):
        read_gate(str(tmp_path / "absent.toml"))


def test_the_example_is_a_gate():
    found = read_gate(str(Path(trocar.bench.__file__).parent / "acceptance.toml"))
    assert {limit.workload for limit in found} == {"dvh", "postprocess", "rpc"}
