from __future__ import annotations

import argparse

import pytest

from trocar.bench.workloads import restart
from trocar.runtime.errors import InvalidInput


def test_servers_that_are_killed_and_answer_again() -> None:
    found = restart.run(argparse.Namespace(repeats=1, limit_ms=1e6))
    assert found["passed"]
    listening, ready, first = (found["timings"][name]["p50_ms"] for name in found["timings"])
    assert 0 < listening <= ready <= first


def test_no_servers_are_refused() -> None:
    with pytest.raises(InvalidInput, match="expected --repeats of 1 or more"):
        restart.run(argparse.Namespace(repeats=0, limit_ms=1.0))
