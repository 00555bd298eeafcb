from __future__ import annotations

import time

import pytest

from trocar.planners import refine as refine_module
from trocar.planners.problem import SearchProblem
from trocar.planners.refine import Effort, refine
from trocar.planners.rules import adjacent_pairs, forbidden_patterns, holes_of, tight_spacings_mm
from trocar.runtime.device import Device
from trocar.runtime.errors import DeviceError, InvalidInput, OutOfMemory
from trocar.runtime.kernels import cuda


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
        {"moves": 1, "chains": 65},
        {"moves": 1, "chains": 65537, "device": "cuda"},
        {"moves": 1, "device": "gpu"},
    ],
)
def test_efforts_that_cannot_be_meant(kwargs):
    with pytest.raises(InvalidInput, match="expected"):
        Effort(**kwargs)


def test_the_best_plans_are_different_and_sorted(small_problem):
    effort = Effort(moves=8_000, chains=4)
    outcome = refine(small_problem, effort, seed=3, keep=3)
    costs = [found.cost for found in outcome.plans]
    assert len(costs) == 3
    assert costs == sorted(costs)
    assert len({frozenset(found.chosen) for found in outcome.plans}) == 3
    assert outcome.plans[0] == refine(small_problem, effort, seed=3).plans[0]
    assert (outcome.needles, outcome.chosen, outcome.cost) == (
        outcome.plans[0].needles,
        outcome.plans[0].chosen,
        costs[0],
    )
    for found in outcome.plans:
        assert small_problem.needles(found.chosen) == found.needles
        assert small_problem.cost_of(found.chosen) == pytest.approx(found.cost, rel=1e-3)
        assert not tight_spacings_mm(found.needles, 10.0)


def test_no_more_plans_than_chains_met(small_problem):
    assert len(refine(small_problem, Effort(moves=3_000, chains=2), seed=3, keep=50).plans) == 2
    # Without a move every chain has what it began with.
    order = [[int(c) for c in range(0, len(small_problem.matrix), 5)]]
    assert len(refine(small_problem, Effort(moves=0, chains=5), seed=0, starts=order, keep=5).plans) == 1


def test_chains_left_open_are_two_or_as_many_as_plans(small_problem):
    assert refine(small_problem, Effort(moves=500), seed=0).chains == 2
    outcome = refine(small_problem, Effort(moves=500), seed=0, keep=3)
    assert outcome.chains == len(outcome.plans) == 3
    assert outcome.moves == 3 * 500


def test_fewer_than_one_plan_is_refused(small_problem):
    with pytest.raises(InvalidInput, match="keep: expected at least 1 plan, got 0"):
        refine(small_problem, Effort(moves=1), seed=0, keep=0)


@pytest.mark.skipif(cuda.why_not() is None, reason="there is a GPU")
def test_without_a_gpu(small_problem):
    assert refine(small_problem, Effort(moves=100, device="auto"), seed=0).device == "cpu"
    with pytest.raises(DeviceError, match="expected a CUDA device, got none"):
        refine(small_problem, Effort(moves=100, device="cuda"), seed=0)
    with pytest.raises(InvalidInput, match="expected 1 to 64 on cpu, got 1000"):
        refine(small_problem, Effort(moves=100, device="auto", chains=1000), seed=0)


class StandIn:
    """Chains of the CPU where the search expects a GPU's; keeps what it was asked to run."""

    def __init__(self, problem, begun, seed, count):
        self.count = 3 if count is None else count
        self.slices: list[tuple[int, float, float]] = []
        self.chains = [problem.chain(seed=seed, stream=stream) for stream in range(self.count)]
        for stream, chain in enumerate(self.chains):
            chain.set_plan(begun[stream % len(begun)].plan())

    def run(self, *moves):
        self.slices.append(moves)
        for chain in self.chains:
            chain.run(*moves)

    def best(self):
        return [chain.best_cost for chain in self.chains], [tuple(chain.best()) for chain in self.chains]


@pytest.fixture
def stand_in(monkeypatch):
    made: list[StandIn] = []

    def chains_on_gpu(problem, begun, *, seed, count):
        made.append(StandIn(problem, begun, seed, count))
        return made[-1]

    monkeypatch.setattr(SearchProblem, "chains_on_gpu", chains_on_gpu)
    monkeypatch.setattr(refine_module, "kernel_device", lambda _: Device("cuda", "stand-in", "for a test"))
    return made


@pytest.mark.parametrize("begin", [False, True])
def test_the_device_does_not_change_the_plan(small_problem, stand_in, begin):
    """Same slices, temperatures and streams: with a chain's numbers the same, so is the plan."""
    starts = (
        [[int(c) for c in range(first, len(small_problem.matrix), 3)] for first in (0, 1)] if begin else []
    )
    on_cpu, on_gpu = (
        refine(small_problem, Effort(moves=9_000, chains=3, device=d), seed=3, starts=starts, keep=3)
        for d in ("cpu", "cuda")
    )
    assert [found.needles for found in on_gpu.plans] == [found.needles for found in on_cpu.plans]
    assert [moves for moves, *_ in stand_in[0].slices] == [4096, 4096, 808]
    assert on_gpu.moves == on_cpu.moves == 27_000
    assert (on_cpu.device, on_gpu.device) == ("cpu", "cuda (stand-in)")


def test_a_gpu_works_in_slices_that_grow_and_stops(small_problem, stand_in, monkeypatch):
    """Of a GPU's speed nothing is known at first: slices double until they take 10 ms."""
    clock = iter(range(10**6))
    monkeypatch.setattr(refine_module.time, "perf_counter", lambda: next(clock) * 1e-4)
    shares: list[float] = []
    asked = iter([False] * 6)
    effort = Effort(budget_ms=60_000.0, device="cuda")
    outcome = refine(small_problem, effort, seed=0, progress=shares.append, stop=lambda: next(asked, True))
    assert [moves for moves, *_ in stand_in[0].slices] == [256, 512, 1024, 2048, 4096, 4096, 4096]
    assert outcome.stopped
    assert outcome.chains == 3
    assert shares == sorted(shares)
    temperatures = [t for _, *pair in stand_in[0].slices for t in pair]
    assert temperatures == sorted(temperatures, reverse=True)


def test_no_thread_more_is_said(small_problem, monkeypatch):
    def none(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", none)
    with pytest.raises(OutOfMemory, match="expected memory enough"):
        refine(small_problem, Effort(moves=1000, chains=2), seed=1)
