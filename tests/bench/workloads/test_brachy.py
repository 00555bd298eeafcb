import argparse

import pytest

from trocar.bench.workloads import brachy
from trocar.runtime.errors import InvalidInput


def measure(*words):
    parser = argparse.ArgumentParser()
    brachy.add_arguments(parser)
    return brachy.run(parser.parse_args([str(word) for word in words]))


def test_a_plan_is_the_same_in_process_and_over_grpc():
    found = measure("--requests", 2, "--moves", 5000)
    assert found["same_plan"] is True
    assert found["passed"] is True
    assert list(found["timings"]) == ["in process", "network alone", "grpc tcp", "grpc unix"]
    for name in ("in process", "grpc tcp", "grpc unix"):
        stages = found["stages"][name]
        assert list(stages) == ["read", "generate", "refine", "dose", "dvh", "validity", "total"]
        assert stages["total"]["samples"] == 2
        assert found["timings"][name]["over_floor"] > 0
    assert found["stages"]["in process"]["total"]["max_ms"] <= found["timings"]["in process"]["max_ms"]
    assert found["servers_used"]["cpu_s"] > 0


def test_a_search_of_nothing_is_refused():
    with pytest.raises(InvalidInput, match="moves and chains"):
        measure("--moves", 0)
