from itertools import pairwise

import pytest

from trocar.bench.timing import Timing, copy_bandwidth_gb_s, interleave


def test_percentiles_are_samples_that_were_measured():
    timing = Timing(tuple(float(k) for k in range(1, 101)))
    assert timing.document() == {"p50_ms": 50.5, "p99_ms": 100.0, "min_ms": 1.0, "samples": 100}
    assert timing.percentile_ms(90.0) == 91.0
    assert Timing((3.0,)).document()["p99_ms"] == 3.0


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


def test_bandwidth_is_believable():
    assert 0.1 < copy_bandwidth_gb_s(8_000_000, 3) < 10_000


def test_a_failing_case_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        interleave({"broken": lambda: 1 / 0}, 1)
