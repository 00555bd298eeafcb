from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from trocar.bench.workloads import _mixed, soak

# In the first minute buffers still grow to their size, and the machine that tests does other things too.
LIMITS = ("--max-growth-pct", "6", "--max-p99-factor", "5")


def test_a_minute(trocar: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Every kind of request is answered, each answer is right, memory stays, nothing gets slow."""
    done = trocar("bench", "run", "soak", "--minutes", "1", *LIMITS, "--json", timeout_s=290)
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    assert (document["failed"], document["first errors"], document["never answered"]) == (0, [], [])
    assert document["memory growth %"] < 6
    assert done.returncode == 0
    assert set(document["timings"]) == set(_mixed.RATES)
    assert document["timings"]["small"]["samples"] > 20
    assert len(document["tables"]["windows"]) == 10


def test_growth_is_of_the_time_after_warm_up() -> None:
    memory = [(float(at), 50.0 if at < 20 else 100.0 + 0.1 * (at >= 80)) for at in range(100)]
    assert soak._growth_pct(memory, 20.0) == pytest.approx(0.1)


def test_p99_of_the_last_third_over_the_first() -> None:
    at_s = [index / 10 for index in range(1000)]
    took_ms = [9.0 if at < 20 else 1.0 if at < 80 else 3.0 for at in at_s]
    often, seldom = _mixed.Asked(at_s, took_ms), _mixed.Asked([1.0], [1.0])
    load = SimpleNamespace(asked={"often": often, "seldom": seldom})
    assert soak._p99_ratios(load, 20.0, 100.0) == {"often": 3.0}  # type: ignore[arg-type]


def test_a_wrong_answer_is_an_error() -> None:
    with pytest.raises(Exception, match="expected the plan of the first time, got another"):
        _mixed._require(False, "the plan of the first time")
