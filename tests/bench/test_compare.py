import pytest

from trocar.bench.compare import compare
from trocar.bench.environment import MACHINE, STATE, busy, differences
from trocar.bench.timing import Timing
from trocar.runtime.errors import InvalidInput

HERE = {"cpu": "a", "isa": "avx2", "cores": 2, "load_1min": 0.1, "packages": {"numpy": "2.0"}}


def measured(samples, name="case", **environment):
    timing = Timing(tuple(samples)).document()
    return {"workload": "w", "environment": HERE | environment, "timings": {name: timing}}


STEADY = [10.0 + 0.01 * (k % 7) for k in range(60)]
NOISY = [10.0 + 4.0 * (k * 7919 % 13) / 13 for k in range(60)]


def verdict(before, after, **options):
    return compare(measured(before), measured(after), **options)["cases"]["case"]["verdict"]


def test_verdicts():
    assert verdict(STEADY, [1.2 * one for one in STEADY]) == "worse"
    assert verdict([1.2 * one for one in STEADY], STEADY) == "better"
    assert verdict(STEADY, STEADY) == "noise"
    assert verdict(STEADY, [1.03 * one for one in STEADY]) == "noise"  # within the margin
    assert verdict(STEADY, [1.03 * one for one in STEADY], margin=0.01) == "worse"
    assert verdict(NOISY, [1.07 * one for one in NOISY]) == "noise"  # beyond it, but not for sure
    assert verdict(STEADY[:3], STEADY) == "unknown"


def test_the_interval_goes_with_the_ratio():
    case = compare(measured(STEADY), measured([2.0 * one for one in STEADY]))["cases"]["case"]
    low, high = case["ratio_interval"]
    assert low <= case["ratio"] <= high
    assert case["ratio"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    "changed",
    [{"cpu": "b"}, {"isa": "avx512f"}, {"cores": 8}, {"gpu": ["H200, driver 1"]}, {"governor": "x"}],
)
def test_different_machines_are_refused_unless_forced(changed):
    plain = {"gpu": [], "governor": "performance"}
    before, after = measured(STEADY, **plain), measured(STEADY, **plain | changed)
    with pytest.raises(InvalidInput, match=rf"expected one machine, got different {next(iter(changed))} \("):
        compare(before, after)
    found = compare(before, after, force=True)
    assert found["same_machine"] is False
    assert "different machines" in found["notes"][0]


def test_what_an_old_record_does_not_say_is_not_held_against_it():
    old = measured(STEADY)
    del old["environment"]["isa"]
    assert compare(old, measured(STEADY))["same_machine"] is True


def test_other_versions_load_and_cases_are_said():
    after = measured(STEADY, load_1min=7.0, packages={"numpy": "2.1"})
    after["timings"]["new"] = after["timings"]["case"]
    notes = compare(measured(STEADY), after)["notes"]
    assert notes == [
        "different numpy (2.0 and 2.1)",
        "after: other work was on the machine (load 7.0 before it began)",
        "in one of the two alone: new",
    ]


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InvalidInput, match="expected one workload, got w and v"):
        compare(measured(STEADY), measured(STEADY) | {"workload": "v"})
    with pytest.raises(InvalidInput, match="at least one case"):
        compare(measured(STEADY), measured(STEADY, name="other"))


def test_differences_are_of_what_both_have():
    assert differences({"cpu": "a", "gpu": []}, {"cpu": "a", "cores": 2}, MACHINE) == {}
    assert differences({"packages": {"x": "1"}}, {"packages": {"y": "1"}}, STATE) == {
        "x": ("1", None),
        "y": (None, "1"),
    }
    assert busy({"load_1min": 1.1, "cores": 2})
    assert not busy({"load_1min": 0.9, "cores": 2})
