"""A centre with a style of its own: phantoms with seeds near the PTV's surface, as a folder of files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trocar.planners.dose.engine import DoseEngine
from trocar.planners.expert import canonical
from trocar.planners.features import DISTANCE_UNIT_MM, Window, features, window_of
from trocar.planners.geometry import anatomy, default_lattice, evaluation_grid
from trocar.planners.io.plans import plan_document
from trocar.planners.io.seg_writer import write_seg_nrrd
from trocar.planners.phantom import phantom_case
from trocar.planners.problem import SearchProblem, build_problem
from trocar.planners.protocol import Protocol
from trocar.planners.refine import Effort, refine
from trocar.planners.types import Case, Float32Array, Lattice, Plan

RIM_MM = 8.0
# What a seed costs for every mm that it lies deeper than the rim.
COST_PER_MM = 2.0
# The centre's own comes first.
STYLES = ("peripheral", "canonical")


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same for every case; `moves` are those of a plan's search."""

    protocol: Protocol
    engine: DoseEngine
    moves: int

    @property
    def dose(self) -> dict[str, float]:
        """Strength of a seed, U, and prescription, Gy."""
        return {"strength_u": self.protocol.strength_u, "prescription_gy": self.protocol.prescription_gy}


@dataclass(frozen=True, slots=True)
class Planned:
    """A phantom and its plans: `chosen` holds candidates by style.

    `seen` is the network's input (8, 16, 16, 16); `depth_mm` (candidates,) how far each candidate lies
    within the PTV, negative outside; more than 15 mm says 15.
    """

    case: Case
    lattice: Lattice
    problem: SearchProblem
    window: Window
    seen: Float32Array
    depth_mm: Float32Array
    chosen: Mapping[str, npt.NDArray[np.int64]]


def peripheral(problem: SearchProblem, window: Window, depth_mm: Float32Array) -> SearchProblem:
    """The canonical search of a centre that also keeps its seeds near the PTV's surface."""
    styled = canonical(problem, window)
    taste = COST_PER_MM * np.maximum(depth_mm - RIM_MM, 0.0)
    return replace(styled, seed_cost=(styled.seed_cost + taste).astype(np.float32))


def planned_phantom(phantom: int, setting: Setting) -> Planned:
    """Plan a phantom in every style, each by a search of its own.

    Raises
    ------
    InvalidInput
        The phantom is too wide for the template.
    """
    case = phantom_case(phantom)
    lattice, _ = default_lattice(case, None, None)
    volumes = anatomy(case, evaluation_grid(case, lattice))
    problem = build_problem(volumes, lattice, setting.engine, setting.protocol, **setting.dose, seed=phantom)
    window = window_of(problem.candidates, lattice)
    seen = features(volumes, problem, window, setting.engine, **setting.dose)
    depth_mm = -DISTANCE_UNIT_MM * at_candidates(seen[1], problem, window)
    styles = {"peripheral": peripheral(problem, window, depth_mm), "canonical": canonical(problem, window)}
    effort = Effort(moves=setting.moves, chains=1)
    chosen = {
        style: np.array(refine(styles[style], effort, seed=phantom).chosen, dtype=np.int64)
        for style in STYLES
    }
    return Planned(case, lattice, problem, window, seen, depth_mm, chosen)


def at_candidates(values_zyx: Float32Array, problem: SearchProblem, window: Window) -> Float32Array:
    """Values (16, 16, 16) at the candidates, (n,); 0 at those beyond the window, at the PTV's rim."""
    index, inside = window.sites(problem.candidates, problem.lattice.template.columns)
    found = np.zeros(len(index), dtype=np.float32)
    found[inside] = values_zyx[tuple(index[inside].T)]
    return found


def write_folders(cases: Iterable[Planned], root: Path, setting: Setting) -> int:
    """Write a folder for each style, as a centre would hand it in; returns the number of cases."""
    for style in STYLES:
        (root / style).mkdir()
    written = 0
    for planned in cases:
        contours = write_seg_nrrd(planned.case)
        name = f"case-{written:05}"
        for style, chosen in planned.chosen.items():
            needles = planned.problem.needles([int(site) for site in chosen])
            plan = Plan(
                setting.engine.source.key,
                setting.protocol.strength_u,
                setting.protocol.prescription_gy,
                needles,
                planned.lattice,
            )
            (root / style / f"{name}.seg.nrrd").write_bytes(contours)
            text = json.dumps(plan_document(plan))
            (root / style / f"{name}_plan.json").write_text(text, encoding="utf-8")
        written += 1
    return written


def rim_share(weights: npt.NDArray[Any], depth_mm: Float32Array) -> float:
    """Share of the weights (n,) at sites no deeper than the rim; sites outside the PTV are near it too."""
    return float(weights[depth_mm <= RIM_MM].sum() / weights.sum())
