from __future__ import annotations

import argparse

import pytest

from trocar.bench.workloads import dvh
from trocar.runtime.errors import InvalidInput

pytest.importorskip("trocar.bench.timing")


def measure(*options):
    parser = argparse.ArgumentParser()
    dvh.add_arguments(parser)
    return dvh.run(parser.parse_args(options))


def test_a_small_run_measures_both_and_finds_d90_right():
    found = measure("--size", "30", "--repeats", "2")
    assert found["passed"]
    assert found["voxels"] == 27000
    assert found["d90_error_gy_max"] <= 0.02
    for timing in found["timings"].values():
        assert 0 < timing["min_ms"] <= timing["p50_ms"] <= timing["max_ms"]


def test_a_wrong_d90_does_not_pass(monkeypatch):
    monkeypatch.setattr(dvh, "_exact_d90_gy", lambda dose_gy, fraction: 1.0)  # noqa: ARG005
    assert not measure("--size", "30", "--repeats", "1")["passed"]


@pytest.mark.parametrize("options", [("--size", "5"), ("--repeats", "0")])
def test_sizes_that_measure_nothing_are_refused(options):
    with pytest.raises(InvalidInput, match="expected size"):
        measure(*options)
