from __future__ import annotations

import argparse

import pytest

from trocar.bench.workloads import anneal
from trocar.runtime.kernels import cuda


def measured(*words: str):
    parser = argparse.ArgumentParser()
    anneal.add_arguments(parser)
    return anneal.run(parser.parse_args(["--phantom", "4", *words]))


def test_rates_are_moves_over_time():
    document = measured("--moves", "300", "--repeats", "3")
    for name, moves in (("cpu_1_thread", 300), ("cpu_2_threads", 600)):
        timing = document["timings"][name]
        assert timing["min_ms"] <= 1000.0 * moves / document["moves_per_s"][name] <= timing["max_ms"]
    if cuda.why_not() is None:
        assert document["passed"]
        assert document["moves_per_s"]["cuda"] > 0
    else:
        assert document["gpu"].startswith("not measured: no CUDA")
        assert "cuda" not in document["moves_per_s"]


def test_plans_are_compared_to_the_bit(monkeypatch):
    problem = anneal.problem_of(4)
    seen = []

    def refine(_, effort, **asked):
        seen.append((effort.device, asked["seed"]))
        return type("Outcome", (), {"plans": (effort.device == "cpu" or same,)})

    monkeypatch.setattr("trocar.planners.refine.refine", refine)
    for same in (True, False):
        assert anneal.same_plans(problem) is same
    assert seen == [("cpu", 3), ("cuda", 3)] * 2


@pytest.mark.skipif(cuda.why_not() is not None, reason=f"no GPU: {cuda.why_not()}")
def test_a_gpu_finds_the_cpus_plans():
    assert anneal.same_plans(anneal.problem_of(4))
