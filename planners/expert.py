"""Plans to learn from: long searches with a canonical taste, so that like cases get like plans.

Many plans of one case are equally good; a network that is shown a random one of them learns their blur.
The canonical style prefers the holes of one checkerboard, and in neighbouring columns planes that are
staggered, at a cost far below what any goal is worth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from trocar.planners.dose.engine import DoseEngine
from trocar.planners.features import SIDE, Window, features, window_of
from trocar.planners.geometry import anatomy, default_lattice, evaluation_grid
from trocar.planners.problem import SearchProblem, build_problem
from trocar.planners.protocol import Protocol
from trocar.planners.refine import Effort, refine
from trocar.planners.types import Case, Float32Array

OFF_BOARD_COST = 0.90
OFF_STAGGER_COST = 0.60


@dataclass(frozen=True, slots=True)
class Example:
    """One case to learn from.

    `features` (8, 16, 16, 16) float32; `seeds` (16, 16, 16) uint8, 1 where the plan has a seed;
    `strength` is the seeds' strength over the prescription, U/Gy; `cost` the plan's plain cost.
    """

    features: Float32Array
    seeds: npt.NDArray[np.uint8]
    strength: float
    cost: float


def canonical(problem: SearchProblem, window: Window) -> SearchProblem:
    """The same search with a taste for one checkerboard of holes and staggered planes."""
    index, _ = window.sites(problem.candidates, problem.lattice.template.columns)
    plane, row, column = index.T
    off_board = (row + column) % 2 != 0
    off_stagger = (plane + column) % 2 != 0
    taste = OFF_BOARD_COST * off_board + OFF_STAGGER_COST * off_stagger
    return replace(problem, seed_cost=(problem.seed_cost + taste).astype(np.float32))


def expert_example(
    case: Case,
    protocol: Protocol,
    engine: DoseEngine,
    *,
    strength_u: float,
    moves: int,
    seed: int,
) -> Example:
    """Plan a case in the canonical style and return what the network should learn from it.

    Parameters
    ----------
    strength_u : of each seed.
    moves : of the one chain that searches.
    """
    lattice, _ = default_lattice(case, None, None)
    volumes = anatomy(case, evaluation_grid(case, lattice))
    dose = {"strength_u": strength_u, "prescription_gy": protocol.prescription_gy}
    problem = build_problem(volumes, lattice, engine, protocol, **dose, seed=seed)
    window = window_of(problem.candidates, lattice)
    outcome = refine(canonical(problem, window), Effort(moves=moves, chains=1), seed=seed)
    index, inside = window.sites(problem.candidates, lattice.template.columns)
    chosen = np.array(outcome.chosen, dtype=np.int64)
    seeds = np.zeros((SIDE, SIDE, SIDE), dtype=np.uint8)
    kept = chosen[inside[chosen]]
    seeds[tuple(index[kept].T)] = 1
    return Example(
        features(volumes, problem, window, engine, **dose),
        seeds,
        strength_u / protocol.prescription_gy,
        problem.cost_of(outcome.chosen),
    )
