"""Where a search begins: an order in which candidates are tried, each taken only if it lowers the cost."""

from __future__ import annotations

import numpy as np

from trocar.planners.dose.engine import DoseEngine
from trocar.planners.features import Window, features, window_of
from trocar.planners.generator import Generator
from trocar.planners.problem import SearchProblem
from trocar.planners.start_kinds import START_KINDS
from trocar.planners.types import Anatomy, Float32Array, require

# Below this a site is not worth trying: the network has as good as ruled it out.
LEAST_PROBABILITY = 0.02
_STREAM = 3  # of the plan's seed, for random orders


def starts(
    kind: str,
    problem: SearchProblem,
    volumes: Anatomy,
    engine: DoseEngine,
    *,
    strength_u: float,
    prescription_gy: float,
    seed: int,
    count: int,
    generator: Generator | None,
) -> tuple[list[int], ...]:
    """Orders of candidates for `count` chains to begin with.

    Parameters
    ----------
    kind : `gan` (the network's probabilities, one noise a chain), `greedy` (the best candidate again and
        again) or `random`.
    generator : needed for `gan`.
    """
    require(kind in START_KINDS, f"start: expected one of {', '.join(START_KINDS)}, got {kind!r}")
    if kind == "greedy":
        chain = problem.chain(seed=seed, stream=0)
        chain.add_greedily()
        return (list(chain.plan()),)
    if kind == "random":
        random = np.random.default_rng([seed, _STREAM])
        return tuple([int(c) for c in random.permutation(len(problem.matrix))] for _ in range(count))
    require(generator is not None, "start gan: expected a generator, got none")
    assert generator is not None
    window = window_of(problem.candidates, problem.lattice)
    seen = features(volumes, problem, window, engine, strength_u=strength_u, prescription_gy=prescription_gy)
    proposals = generator.propose(seen, count=count, seed=seed)
    return tuple(order_of(probability, window, problem) for probability in proposals)


def order_of(probability_zyx: Float32Array, window: Window, problem: SearchProblem) -> list[int]:
    """The cheaper of two orders of candidates for probabilities (16, 16, 16), before any search.

    One is by falling probability alone. The other takes the holes with the most expected seeds first, as many
    as there may be needles: in a large gland the surest seeds of too many holes would use up the needles.
    Candidates as good as ruled out are in neither.
    """
    index, inside = window.sites(problem.candidates, problem.lattice.template.columns)
    wanted = np.zeros(len(index), dtype=np.float32)
    wanted[inside] = probability_zyx[tuple(index[inside].T)]
    expected = np.bincount(problem.candidates.hole, weights=wanted)
    scarce = np.sort(expected)[::-1][: problem.rules.max_needles][-1]
    late = expected[problem.candidates.hole] < scarce
    orders = [np.argsort(-wanted, kind="stable"), np.lexsort((-wanted, late))]
    tried = [[int(c) for c in order[wanted[order] >= LEAST_PROBABILITY]] for order in orders]
    return min(tried, key=lambda order: _cost_begun(order, problem))


def _cost_begun(order: list[int], problem: SearchProblem) -> float:
    chain = problem.chain(seed=0, stream=0)
    chain.add_if_better(order)
    return float(chain.cost)
