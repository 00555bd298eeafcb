"""The dosimetric search: annealing chains in slices, so that it can stop any time with a valid plan."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from trocar.planners.problem import SearchProblem
from trocar.planners.types import Needle, require
from trocar.runtime.device import DEVICES, kernel_device
from trocar.runtime.errors import NO_MEMORY, OutOfMemory
from trocar.runtime.kernels.anneal import Annealer

# Temperatures in cost units (one is what a protocol calls a cost of 1): from where most moves pass to
# where only those that change nothing do.
HOT, WARM, COLD = 2.0, 0.2, 0.05
_SLICE_MOVES = 4096  # a few ms on the CPU: how late a stop, a deadline or a progress report may be
_LEAST_SLICE_MOVES, _SLICE_S = 256, 0.01  # on a GPU, under a budget, slices grow until they take this long

CPU_CHAINS = 2
MAX_CHAINS = {"cpu": 64, "cuda": 65536}

Progress = Callable[[float], None]
Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to search: an exact number of moves a chain (repeatable), or wall time, ms; and on what.

    `chains` begin in turn with the starts and draw apart; the best wins. Left open they are two on the CPU
    (or as many as plans are wanted), and as many as it runs at once on a GPU. `device` is `cpu`, `cuda`, or
    `auto`: CUDA where it works. The plan depends on the moves and the number of chains, never on the device
    or the number of cores.
    """

    moves: int | None = None
    budget_ms: float | None = None
    chains: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse efforts that cannot be meant."""
        require(
            (self.moves is None) != (self.budget_ms is None),
            "expected either a number of moves or a budget in ms",
        )
        require(
            self.moves is None or 0 <= self.moves <= 10**10, f"expected 0 to 1e10 moves, got {self.moves}"
        )
        require(
            self.budget_ms is None or 0.0 < self.budget_ms <= 86_400_000.0,
            f"expected a budget of more than 0 ms and at most a day, got {self.budget_ms} ms",
        )
        require(self.device in DEVICES, f"expected a device of {', '.join(DEVICES)}, got {self.device!r}")
        require_chains(self.chains, self.device)


def require_chains(chains: int | None, device: str) -> None:
    """Refuse a number of chains that the device cannot be meant to run; `auto` may yet be a GPU."""
    most = MAX_CHAINS["cpu" if device == "cpu" else "cuda"]
    require(chains is None or 1 <= chains <= most, f"chains: expected 1 to {most} on {device}, got {chains}")


@dataclass(frozen=True, slots=True)
class Found:
    """A plan that was met: its needles, its candidates and its cost."""

    needles: tuple[Needle, ...]
    chosen: tuple[int, ...]
    cost: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The best plans met, the cheapest first, and the work done.

    No two plans have the same seeds. `moves` counts over all `chains`; `stopped` says that the search was cut
    short; `device` is where it ran.
    """

    plans: tuple[Found, ...]
    chains: int
    moves: int
    elapsed_s: float
    stopped: bool
    device: str

    @property
    def needles(self) -> tuple[Needle, ...]:
        """The needles of the best plan."""
        return self.plans[0].needles

    @property
    def chosen(self) -> tuple[int, ...]:
        """The candidates of the best plan."""
        return self.plans[0].chosen

    @property
    def cost(self) -> float:
        """The cost of the best plan."""
        return self.plans[0].cost


@dataclass(frozen=True, slots=True)
class _Chain:
    chosen: tuple[int, ...]
    cost: float
    moves: int
    stopped: bool


def refine(
    problem: SearchProblem,
    effort: Effort,
    *,
    seed: int,
    starts: Sequence[Sequence[int]] = (),
    keep: int = 1,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Outcome:
    """Search for the plans of least cost among those that keep every hard rule.

    Parameters
    ----------
    seed : the same seed, moves and chains give the same plan, whatever the device and the number of cores.
    starts : candidates for each chain to begin with, most wanted first: each is taken if the rules allow it
        and it lowers the cost, and the annealing starts warm, not hot. Chains beyond them begin again at
        the first.
    keep : how many plans to return at most. Each is the best that one chain met, so that there are no more
        than chains, and fewer where chains met the same.
    progress : called with the share done, 0 to 1, from one chain.
    stop : polled every few ms on the CPU, between launches on a GPU; once true the best plans so far are
        returned.

    Raises
    ------
    DeviceError
        A GPU was asked for and is not there, or failed.
    """
    require(keep >= 1, f"keep: expected at least 1 plan, got {keep}")
    start = time.perf_counter()
    # Plain `cpu` is not looked into: that takes as long as a short search.
    device = kernel_device(effort.device) if effort.device != "cpu" else None
    if device is not None and device.kind == "cuda":
        chains = _run_on_gpu(problem, effort, seed, starts, progress, stop)
        where = f"cuda ({device.name})"
    else:
        where = "cpu"
        count = effort.chains or max(CPU_CHAINS, min(keep, MAX_CHAINS["cpu"]))
        require_chains(count, "cpu")
        chains = _run_on_cpu(problem, effort, count, seed, starts, progress, stop)
    return Outcome(
        plans=tuple(Found(problem.needles(c.chosen), c.chosen, c.cost) for c in _cheapest(chains, keep)),
        chains=len(chains),
        moves=sum(chain.moves for chain in chains),
        elapsed_s=time.perf_counter() - start,
        stopped=any(chain.stopped for chain in chains),
        device=where,
    )


def _cheapest(chains: Sequence[_Chain], keep: int) -> list[_Chain]:
    """The `keep` cheapest of different seeds."""
    different: dict[frozenset[int], _Chain] = {}
    for chain in sorted(chains, key=lambda chain: chain.cost):
        different.setdefault(frozenset(chain.chosen), chain)
    return list(different.values())[:keep]


def _run_on_cpu(
    problem: SearchProblem,
    effort: Effort,
    count: int,
    seed: int,
    starts: Sequence[Sequence[int]],
    progress: Progress | None,
    stop: Stop | None,
) -> list[_Chain]:
    workers = min(count, os.cpu_count() or 1)
    # Chains that queue for a core share the budget.
    turns = -(-count // workers)
    share_s = None if effort.budget_ms is None else effort.budget_ms / 1000.0 / turns

    def run(stream: int) -> _Chain:
        begin = starts[stream % len(starts)] if starts else ()
        chain = _begin(problem, begin, seed, stream)
        done, stopped = _anneal(
            chain.run,
            _Pace(effort.moves, share_s, time.perf_counter(), _SLICE_MOVES),
            WARM if begin else HOT,
            progress if stream == 0 else None,
            stop,
        )
        return _Chain(tuple(chain.best()), chain.best_cost, done, stopped)

    if workers == 1:
        return [run(stream) for stream in range(count)]
    with ThreadPoolExecutor(workers, thread_name_prefix="anneal") as pool:
        try:
            chains = pool.map(run, range(count))
        except RuntimeError as error:  # a thread more is not to be had
            raise OutOfMemory(NO_MEMORY) from error
        return list(chains)


def _run_on_gpu(
    problem: SearchProblem,
    effort: Effort,
    seed: int,
    starts: Sequence[Sequence[int]],
    progress: Progress | None,
    stop: Stop | None,
) -> list[_Chain]:
    began_at = time.perf_counter()  # a budget pays for the memory, too
    begun = [_begin(problem, begin, seed, 0) for begin in starts or ((),)]
    chains = problem.chains_on_gpu(begun, seed=seed, count=effort.chains)
    budget_s = None if effort.budget_ms is None else effort.budget_ms / 1000.0
    # How fast this GPU is shows after the first slice.
    pace = _Pace(effort.moves, budget_s, began_at, _LEAST_SLICE_MOVES)
    hot = WARM if starts and all(starts) else HOT
    done, stopped = _anneal(chains.run, pace, hot, progress, stop)
    costs, plans = chains.best()
    return [_Chain(plan, float(cost), done, stopped) for cost, plan in zip(costs, plans, strict=True)]


def _begin(problem: SearchProblem, start: Sequence[int], seed: int, stream: int) -> Annealer:
    chain = problem.chain(seed=seed, stream=stream)
    if start:
        chain.add_if_better(list(start))
    return chain


@dataclass(frozen=True, slots=True)
class _Pace:
    """An exact number of moves, or `budget_s` from `began_at`, whose first slice has `first_moves`."""

    moves: int | None
    budget_s: float | None
    began_at: float
    first_moves: int

    def spent(self, after_s: float = 0.0) -> float:
        """The share of the budget that is spent `after_s` from now, 0 to 1."""
        assert self.budget_s is not None
        return min(1.0, (time.perf_counter() - self.began_at + after_s) / self.budget_s)


def _anneal(
    run: Callable[[int, float, float], object],
    pace: _Pace,
    hot: float,
    progress: Progress | None,
    stop: Stop | None,
) -> tuple[int, bool]:
    """Cool down slice by slice; how many moves were made, and whether it was stopped."""
    done, share, took_s = 0, 1.0 if pace.moves == 0 else 0.0, 0.0
    count = _SLICE_MOVES if pace.moves is not None else pace.first_moves
    while share < 1.0:
        if pace.moves is None:
            upcoming = pace.spent(took_s)
        else:
            count = min(count, pace.moves - done)
            upcoming = (done + count) / pace.moves
        began = time.perf_counter()
        run(count, _temperature(hot, share), _temperature(hot, max(upcoming, share)))
        took_s = time.perf_counter() - began
        done += count
        if pace.moves is None:
            upcoming = pace.spent()
            if took_s < _SLICE_S and count < _SLICE_MOVES:
                count, took_s = 2 * count, 2 * took_s
        share = upcoming
        if progress is not None:
            progress(share)
        if stop is not None and stop():
            return done, share < 1.0
    return done, False


def _temperature(hot: float, share: float) -> float:
    return float(hot * (COLD / hot) ** share)
