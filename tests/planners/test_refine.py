from __future__ import annotations

import time

import pytest

from trocar.planners.refine import Effort, refine
from trocar.planners.rules import adjacent_pairs, forbidden_patterns, holes_of, tight_spacings_mm
from trocar.runtime.errors import InvalidInput


def test_same_seed_and_moves_same_plan(small_problem):
    first, second = (refine(small_problem, Effort(moves=20_000), seed=3) for _ in range(2))
    assert first.needles == second.needles
    assert first.moves == second.moves == 40_000
    assert refine(small_problem, Effort(moves=20_000), seed=4).needles != first.needles


def test_more_chains_never_end_worse(small_problem):
    one, three = (refine(small_problem, Effort(moves=10_000, chains=n), seed=3) for n in (1, 3))
    assert three.cost <= one.cost


def test_a_budget_is_kept(small_problem):
    began = time.perf_counter()
    outcome = refine(small_problem, Effort(budget_ms=300.0, chains=1), seed=0)
    assert time.perf_counter() - began < 3.0  # far above the budget: a loaded machine must not fail this
    assert outcome.moves > 4096
    assert outcome.elapsed_s >= 0.29


def test_a_stop_gives_the_best_so_far(small_problem):
    calls = iter([False, False, True])
    outcome = refine(small_problem, Effort(moves=10**9, chains=1), seed=0, stop=lambda: next(calls, True))
    assert outcome.stopped
    assert outcome.moves == 3 * 4096
    assert outcome.needles
    assert not tight_spacings_mm(outcome.needles, 10.0)


def test_progress_rises_to_one(small_problem):
    shares: list[float] = []
    refine(small_problem, Effort(moves=20_000), seed=0, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_long_search_is_better_than_a_short_one(small_problem):
    short, long = (refine(small_problem, Effort(moves=n, chains=1), seed=0) for n in (3_000, 100_000))
    assert long.cost < short.cost


@pytest.mark.parametrize("seed", range(3))
def test_found_plans_keep_the_hard_rules(small_problem, protocol, seed):
    outcome = refine(small_problem, Effort(moves=20_000, chains=1), seed=seed)
    holes, stray = holes_of(outcome.needles, small_problem.lattice.template)
    assert not stray
    assert not list(forbidden_patterns(holes.values(), protocol.geometry.forbidden_patterns))
    assert not adjacent_pairs(outcome.needles, 5.0)
    assert not tight_spacings_mm(outcome.needles, 10.0)
    assert len(outcome.needles) <= protocol.geometry.max_needles


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"moves": 1, "budget_ms": 1.0},
        {"moves": -5},
        {"budget_ms": 0.0},
        {"budget_ms": float("nan")},
        {"moves": 1, "chains": 0},
    ],
)
def test_efforts_that_cannot_be_meant(kwargs):
    with pytest.raises(InvalidInput, match="expected"):
        Effort(**kwargs)
