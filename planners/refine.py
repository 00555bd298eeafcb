"""The dosimetric search: annealing chains in slices, so that it can stop any time with a valid plan."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from trocar.planners.problem import SearchProblem
from trocar.planners.types import Needle, require

# Temperatures in cost units (one is what a protocol calls a cost of 1): from where most moves pass to
# where only those that change nothing do.
HOT, WARM, COLD = 2.0, 0.2, 0.05
_SLICE_MOVES = 4096  # a few ms: how late a stop, a deadline or a progress report may be

Progress = Callable[[float], None]
Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to search: an exact number of moves a chain (repeatable), or wall time, ms.

    `chains` start alike and draw apart; the best wins. The result depends on the number of chains,
    never on the number of cores.
    """

    moves: int | None = None
    budget_ms: float | None = None
    chains: int = 2

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
        require(1 <= self.chains <= 64, f"expected 1 to 64 chains, got {self.chains}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The best plan met, its candidates and cost, and the work done.

    `moves` counts over all chains; `stopped` says that the search was cut short.
    """

    needles: tuple[Needle, ...]
    chosen: tuple[int, ...]
    cost: float
    moves: int
    elapsed_s: float
    stopped: bool


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
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Outcome:
    """Search for the plan of least cost among those that keep every hard rule.

    Parameters
    ----------
    seed : the same seed, moves and chains give the same plan, whatever the number of cores.
    starts : candidates for each chain to begin with, most wanted first: each is taken if the rules allow it
        and it lowers the cost, and the annealing starts warm, not hot. Chains beyond them begin again at
        the first.
    progress : called with the share done, 0 to 1, from one chain.
    stop : polled every few ms; once true the best plan so far is returned.
    """
    start = time.perf_counter()
    workers = min(effort.chains, os.cpu_count() or 1)
    # Chains that queue for a core share the budget.
    turns = -(-effort.chains // workers)
    share_s = None if effort.budget_ms is None else effort.budget_ms / 1000.0 / turns

    def run(stream: int) -> _Chain:
        report = progress if stream == 0 else None
        begin = starts[stream % len(starts)] if starts else ()
        return _run_chain(problem, effort.moves, share_s, seed, stream, begin, report, stop)

    if workers == 1:
        chains = [run(stream) for stream in range(effort.chains)]
    else:
        with ThreadPoolExecutor(workers, thread_name_prefix="anneal") as pool:
            chains = list(pool.map(run, range(effort.chains)))
    best = min(chains, key=lambda chain: chain.cost)
    return Outcome(
        needles=problem.needles(best.chosen),
        chosen=best.chosen,
        cost=best.cost,
        moves=sum(chain.moves for chain in chains),
        elapsed_s=time.perf_counter() - start,
        stopped=any(chain.stopped for chain in chains),
    )


def _run_chain(
    problem: SearchProblem,
    moves: int | None,
    budget_s: float | None,
    seed: int,
    stream: int,
    start: Sequence[int],
    progress: Progress | None,
    stop: Stop | None,
) -> _Chain:
    chain = problem.chain(seed=seed, stream=stream)
    hot = HOT
    if start:
        chain.add_if_better(list(start))
        hot = WARM
    began_at = time.perf_counter()
    done, share, took, stopped = 0, 1.0 if moves == 0 else 0.0, 0.0, False
    while share < 1.0:
        count = _SLICE_MOVES if moves is None else min(_SLICE_MOVES, moves - done)
        if moves is None:
            assert budget_s is not None
            upcoming = min(1.0, (time.perf_counter() - began_at + took) / budget_s)
        else:
            upcoming = (done + count) / moves
        began = time.perf_counter()
        chain.run(count, _temperature(hot, share), _temperature(hot, max(upcoming, share)))
        took = time.perf_counter() - began
        done += count
        share = (
            upcoming if moves is not None else min(1.0, (time.perf_counter() - began_at) / (budget_s or 1.0))
        )
        if progress is not None:
            progress(share)
        if stop is not None and stop():
            stopped = share < 1.0
            break
    return _Chain(tuple(chain.best()), chain.best_cost, done, stopped)


def _temperature(hot: float, share: float) -> float:
    return float(hot * (COLD / hot) ** share)
