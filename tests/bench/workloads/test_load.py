import argparse
import time

import pytest

from trocar.bench.workloads import _load
from trocar.runtime.errors import InvalidInput


def parsed(*words):
    parser = argparse.ArgumentParser()
    _load.add_arguments(parser, requests=20, bound_ms=1000.0)
    return parser.parse_args([str(word) for word in words])


@pytest.fixture
def cases():
    opened = []

    def case(name):
        def stream():
            opened.append(name)
            return lambda: time.sleep(0.0005)

        return stream

    return opened, {"a": case("a"), "b": case("b")}


@pytest.mark.parametrize(
    ("scenario", "streams", "name", "requests"),
    [
        ("single-stream", 1, "SingleStream", 20),
        ("multi-stream", 3, "MultiStream", 60),
        ("offline", 3, "Offline", 20),
        ("server", 3, "Server", 20),
    ],
)
def test_each_scenario(cases, scenario, streams, name, requests):
    opened, open_cases = cases
    args = parsed("--scenario", scenario, "--streams", 3, "--rate", 500)
    found = _load.measure(open_cases, args)
    assert opened == ["a"] * streams + ["b"] * streams
    for timing in found["timings"].values():
        assert (timing["scenario"], timing["requests"], timing["samples"]) == (name, requests, 20)
        assert timing["rate_per_s"] > 0
    assert found["requests_sent"] == 2 * requests


def test_interleaved_is_the_default(cases):
    opened, open_cases = cases
    found = _load.measure(open_cases, parsed())
    assert opened == ["a", "b"]
    assert [timing["samples"] for timing in found["timings"].values()] == [20, 20]
    assert found["requests_sent"] == 40


def test_the_highest_rate_is_searched(cases):
    found = _load.measure(cases[1], parsed("--scenario", "server", "--requests", 60, "--bound-ms", 5))
    rows = found["tables"]["rates tried"]
    for name, timing in found["timings"].items():
        mine = [row for row in rows if row["case"] == name]
        held = [row["rate_per_s"] for row in mine if row["held"]]
        assert timing["held"] == bool(held)
        if held:
            assert timing["asked_rate_per_s"] == max(held)


def test_no_rate_is_held_because_its_requests_are_few(cases):
    """All of the 5 are answered within the bound, at whatever rate they come."""
    found = _load.measure(cases[1], parsed("--scenario", "server", "--requests", 5, "--bound-ms", 20))
    for timing in found["timings"].values():
        # Two streams of half a millisecond; a sleep is never shorter.
        assert timing["asked_rate_per_s"] <= 1.1 * 2 / 0.0005
    for row in found["tables"]["rates tried"]:
        assert not row["held"] or row["requests"] >= 20 * 0.020 * row["rate_per_s"]


@pytest.mark.parametrize(
    "words",
    [
        ("--requests", 0),
        ("--rounds", 0),
        ("--streams", 0),
        ("--rate", -1),
        ("--bound-ms", 0),
        ("--percentile", 100),
    ],
)
def test_other_loads_are_refused(cases, words):
    with pytest.raises(InvalidInput, match="expected"):
        _load.measure(cases[1], parsed(*words))
    assert cases[0] == []
