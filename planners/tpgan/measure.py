"""What export measures the network on: fresh phantoms, as real as those that it will see; no torch.

The phantoms' numbers lie apart from those of training and of the benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from trocar.planners.dose.engine import DoseEngine
from trocar.planners.dose.source import load_source
from trocar.planners.features import SIDE, Window, features, window_of
from trocar.planners.geometry import anatomy, default_lattice, evaluation_grid
from trocar.planners.phantom import phantom_case
from trocar.planners.problem import SearchProblem, build_problem
from trocar.planners.protocol import load_protocol
from trocar.planners.refine import Effort, refine
from trocar.planners.starts import order_of
from trocar.planners.tpgan.settings import NOISE_CHANNELS
from trocar.planners.types import Float32Array
from trocar.runtime.errors import InvalidInput

PROTOCOL = "ldr-i125-145"
PARITY_PHANTOMS = range(20_000_000, 20_000_016)
PARITY_BATCHES = (1, 2, 5, 8)
CALIBRATION_PHANTOMS = range(21_000_000, 21_000_032)
CALIBRATION_BATCHES = (8, 8, 8, 8)
# Moves after which plans are compared: at once, and when a search has done most of its work.
MOVES = (0, 1000)

Feeds = dict[str, Float32Array]
Run = Callable[[Mapping[str, Float32Array]], Mapping[str, Float32Array]]


@dataclass(frozen=True, slots=True)
class Sample:
    """A phantom as the network and the search see it; `features` is (8, 16, 16, 16)."""

    phantom: int
    problem: SearchProblem
    window: Window
    features: Float32Array


def samples(phantoms: range) -> Iterator[Sample]:
    """The phantoms that can be planned at all, in order; one too wide for the template is left out."""
    protocol = load_protocol(PROTOCOL)
    engine = DoseEngine(load_source(protocol.source))
    dose = {"strength_u": protocol.strength_u, "prescription_gy": protocol.prescription_gy}
    for phantom in phantoms:
        case = phantom_case(phantom)
        try:
            lattice, _ = default_lattice(case, None, None)
            volumes = anatomy(case, evaluation_grid(case, lattice))
            problem = build_problem(volumes, lattice, engine, protocol, **dose, seed=0)
        except InvalidInput:
            continue
        window = window_of(problem.candidates, lattice)
        yield Sample(phantom, problem, window, features(volumes, problem, window, engine, **dose))


@lru_cache(maxsize=1)
def kept(phantoms: range) -> tuple[Sample, ...]:
    """The same, kept for the next caller: every variant of a network is measured on the same phantoms."""
    return tuple(samples(phantoms))


def feeds_of(cases: list[Sample]) -> Feeds:
    """One batch; every other case has noise, the others have none, as a first proposal has none."""
    noise = np.zeros((len(cases), NOISE_CHANNELS, SIDE, SIDE, SIDE), dtype=np.float32)
    for index, case in enumerate(cases):
        if case.phantom % 2:
            noise[index] = np.random.default_rng(case.phantom).standard_normal(noise.shape[1:])
    return {"features": np.stack([case.features for case in cases]), "noise": noise}


def batches(phantoms: range, sizes: tuple[int, ...]) -> list[Feeds]:
    """Batches of the given sizes, until there are no more phantoms."""
    cases = samples(phantoms)
    made = [[case for _, case in zip(range(size), cases, strict=False)] for size in sizes]
    return [feeds_of(batch) for batch in made if batch]


def plan_costs(run: Run, phantoms: range) -> dict[str, float]:
    """Geometric mean over phantoms of the decoded plan's cost, before and after a short search.

    The cost is what the search minimises, so a network that proposes worse plans has a higher one. The mean
    is geometric since costs span orders of magnitude and ratios are what is compared.

    Parameters
    ----------
    run : the network: feeds to outputs, arrays by name.
    """
    costs: dict[int, list[float]] = {moves: [] for moves in MOVES}
    for case in kept(phantoms):
        noiseless = {**feeds_of([case]), "noise": np.zeros((1, NOISE_CHANNELS, SIDE, SIDE, SIDE), np.float32)}
        order = order_of(run(noiseless)["probability"][0], case.window, case.problem)
        for moves, found in costs.items():
            plan = refine(case.problem, Effort(moves=moves, chains=1), seed=case.phantom, starts=(order,))
            found.append(case.problem.cost_of(plan.chosen))
    return {
        "plan_cost" if moves == 0 else f"plan_cost_{moves}_moves": float(np.exp(np.mean(np.log(found))))
        for moves, found in costs.items()
    }
