from itertools import pairwise

import pytest

from trocar.bench.floors import copy_bandwidth_gb_s, memory, triad_bandwidth_gb_s
from trocar.bench.timing import SERIES, Timing, beside, interleave


def test_percentiles_are_samples_that_were_measured():
    timing = Timing(tuple(float(k) for k in range(1, 101)))
    found = timing.document()
    assert (found["p50_ms"], found["p90_ms"], found["p99_ms"]) == (50.5, 91.0, 100.0)
    assert (found["min_ms"], found["max_ms"], found["samples"]) == (1.0, 100.0, 100)
    assert found["p50_low_ms"] <= 50.5 <= found["p50_high_ms"]
    assert timing.percentile_ms(90.0) == 91.0


@pytest.mark.parametrize(
    ("count", "held"),
    [(1, set()), (9, set()), (10, {"p90_ms"}), (99, {"p90_ms"}), (1000, {"p90_ms", "p99_ms", "p99_9_ms"})],
)
def test_a_percentile_needs_its_samples(count, held):
    found = Timing((3.0,) * count).document()
    assert held == {"p90_ms", "p99_ms", "p99_9_ms"} & found.keys()
    assert ("p50_low_ms" in found) == (count >= 6)
    assert found["max_ms"] == 3.0


def test_few_samples_are_kept_in_their_order():
    few = Timing((3.0, 1.0, 2.123456)).document()
    assert few["series_ms"] == [3.0, 1.0, 2.1235]
    many = Timing(tuple(float(k) for k in range(10_000))).document()["series_ms"]
    assert len(many) == SERIES
    assert (many[0], many[-1]) == (0.0, 9999.0)
    assert many == sorted(many)


def test_a_floor_gives_a_ratio():
    found = beside({"p50_ms": 3.0}, 1.5, "reading once")
    assert found == {"p50_ms": 3.0, "floor_ms": 1.5, "over_floor": 2.0, "floor": "reading once"}


def test_processor_time_is_taken_beside_wall_time():
    found = interleave({"work": lambda: sum(range(300_000))}, 5)["work"]
    assert len(found.cpu_ms) == 5
    assert found.document()["cpu_ms"] > 0


def test_cases_take_turns_and_slow_ones_fewer():
    calls = []
    cases = {"fast": lambda: calls.append("f"), "slow": lambda: calls.append("s")}
    timings = interleave(cases, 4, fewer={"slow": 2})
    warm, rounds = calls[0], "".join(calls[1:])
    assert (warm, sorted(rounds)) == ("f", list("ffffss"))
    assert all(rounds[:3].count(case) == count for case, count in (("f", 2), ("s", 1)))
    assert [len(timings[name].samples_ms) for name in ("fast", "slow")] == [4, 2]


def test_every_case_comes_after_every_other():
    calls = []
    cases = {name: lambda name=name: calls.append(name) for name in "abcd"}
    interleave(cases, 60)
    rounds = ["".join(calls[k : k + 4]) for k in range(4, len(calls), 4)]
    assert all(sorted(turn) == list("abcd") for turn in rounds)
    assert {first + second for turn in rounds for first, second in pairwise(turn)} == {
        first + second for first in "abcd" for second in "abcd" if first != second
    }


@pytest.mark.parametrize("measured", [copy_bandwidth_gb_s, triad_bandwidth_gb_s])
def test_bandwidth_is_believable(measured):
    assert 0.1 < measured(8_000_000, 3) < 10_000


def test_both_bandwidths_stand_in_a_record():
    assert memory().keys() == {"memory_copy_gb_s", "memory_triad_gb_s"}


def test_a_failing_case_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        interleave({"broken": lambda: 1 / 0}, 1)
