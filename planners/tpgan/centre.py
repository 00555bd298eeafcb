"""A centre's own plans as examples: a folder of contours, each with the plan that was made for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trocar.planners.case import load_case
from trocar.planners.dose.engine import DoseEngine
from trocar.planners.expert import Example
from trocar.planners.features import SIDE, Window, features, window_of
from trocar.planners.geometry import anatomy, evaluation_grid
from trocar.planners.geometry.shape import extent_mm
from trocar.planners.io.plans import read_plan
from trocar.planners.problem import SearchProblem, build_problem
from trocar.planners.protocol import Protocol
from trocar.planners.types import Case, Lattice, Plan, Planes, require
from trocar.runtime.errors import InvalidInput

CASE_SUFFIX = ".seg.nrrd"
PLAN_SUFFIXES = ("_plan.json", ".plan.json", "_seeds.json")
PITCH_MM = 5.0
MAX_CASES = 100_000
_ON_SITE_MM = 0.6  # how far a seed may lie from its lattice site and still be the plan's seed there


@dataclass(frozen=True, slots=True)
class CentrePlan:
    """One case of a centre: its contours and its plan's file."""

    name: str
    case_path: Path
    plan_path: Path


def centre_plans(folder: Path) -> list[CentrePlan]:
    """The cases of a folder: NAME.seg.nrrd with NAME_plan.json, NAME.plan.json or NAME_seeds.json.

    Raises
    ------
    InvalidInput
        No such folder, contours without a plan, or nothing to learn from.
    """
    require(folder.is_dir(), f"--data: expected a folder of contours and plans, got {folder}")
    found = []
    for case_path in sorted(folder.glob(f"*{CASE_SUFFIX}"))[:MAX_CASES]:
        name = case_path.name.removesuffix(CASE_SUFFIX)
        plans = [folder / f"{name}{suffix}" for suffix in PLAN_SUFFIXES]
        plan_path = next((path for path in plans if path.is_file()), None)
        if plan_path is None:
            expected = " or ".join(path.name for path in plans)
            raise InvalidInput(f"--data: {case_path.name} has no plan: expected {expected} beside it")
        found.append(CentrePlan(name, case_path, plan_path))
    require(len(found) > 0, f"--data: expected NAME{CASE_SUFFIX} files in {folder}, got none")
    return found


def centre_example(plan: CentrePlan, protocol: Protocol, engine: DoseEngine, strength_u: float) -> Example:
    """What to learn from one case of a centre.

    Parameters
    ----------
    strength_u : for a seed list, which says none.

    Raises
    ------
    InvalidInput
        The files cannot be used, or the plan is on no lattice of 5 mm; the line names the file.
    """
    try:
        case = load_case(str(plan.case_path))
        made = read_plan(
            plan.plan_path,
            source=engine.source.key,
            strength_u=strength_u,
            prescription_gy=protocol.prescription_gy,
        )
        return example_of(case, made, protocol, engine)
    except InvalidInput as error:
        raise InvalidInput(f"--data: {plan.name}: {error}") from None


def example_of(case: Case, plan: Plan, protocol: Protocol, engine: DoseEngine) -> Example:
    """An example from any plan on a 5 mm lattice; seeds where the protocol allows none are left out."""
    if plan.lattice is None:
        raise InvalidInput("expected a plan with template and planes, or seeds on one lattice")
    lattice = _over_ptv(plan.lattice, case)
    for pitch_mm in (lattice.template.pitch_mm, lattice.planes.pitch_mm):
        require(pitch_mm == PITCH_MM, f"expected a lattice of {PITCH_MM:g} mm, got {pitch_mm:g} mm")
    volumes = anatomy(case, evaluation_grid(case, lattice))
    dose = {"strength_u": plan.strength_u, "prescription_gy": plan.prescription_gy}
    problem = build_problem(volumes, lattice, engine, protocol, **dose, seed=0)
    chosen = _chosen(plan, problem)
    window = _on_board(problem, lattice, chosen)
    index, inside = window.sites(problem.candidates, lattice.template.columns)
    seeds = np.zeros((SIDE, SIDE, SIDE), dtype=np.uint8)
    seeds[tuple(index[chosen[inside[chosen]]].T)] = 1
    return Example(
        features(volumes, problem, window, engine, **dose),
        seeds,
        plan.strength_u / plan.prescription_gy,
        problem.cost_of([int(site) for site in chosen]),
    )


def _chosen(plan: Plan, problem: SearchProblem) -> npt.NDArray[np.int64]:
    """Candidates that the plan's seeds stand on."""
    offset = plan.seeds_xyz_mm[:, None] - problem.candidates.centres_xyz_mm[None]
    distance = np.sqrt((offset**2).sum(axis=2))
    nearest = distance.argmin(axis=1)
    chosen = np.unique(nearest[distance.min(axis=1) <= _ON_SITE_MM])
    share = len(chosen) / len(plan.seeds_xyz_mm)
    require(
        share >= 0.5,
        f"expected most seeds at lattice sites near the PTV, got {len(chosen)} of {len(plan.seeds_xyz_mm)}",
    )
    return chosen.astype(np.int64)


def _over_ptv(lattice: Lattice, case: Case) -> Lattice:
    """The lattice with planes added until they cover the PTV: a seed list knows only the planes in use."""
    low_mm, high_mm = extent_mm(case.structures["ptv"]).z_mm
    planes = lattice.planes
    last_mm = planes.z0_mm + planes.pitch_mm * (planes.count - 1)
    below = max(0, int(np.ceil((planes.z0_mm - low_mm) / planes.pitch_mm - 0.5)))
    above = max(0, int(np.ceil((high_mm - last_mm) / planes.pitch_mm - 0.5)))
    z0_mm = planes.z0_mm - below * planes.pitch_mm
    return Lattice(lattice.template, Planes(z0_mm, planes.pitch_mm, planes.count + below + above))


def _on_board(problem: SearchProblem, lattice: Lattice, chosen: npt.NDArray[np.int64]) -> Window:
    """The window, at most a site off centre, in which most seeds stand on the canonical board.

    Which of two boards a plan uses says nothing of the case; learning both at once would blur them.
    """
    centred = window_of(problem.candidates, lattice)
    best, most = centred, -1.0
    for window in _near(centred):
        index, inside = window.sites(problem.candidates, lattice.template.columns)
        if not inside[chosen].all() or inside.sum() < window_count(problem, lattice, centred):
            continue
        plane, row, column = index[chosen].T
        score = float((((row + column) % 2 == 0) & ((plane + column) % 2 == 0)).mean())
        if score > most + 1e-9:
            best, most = window, score
    return best


def window_count(problem: SearchProblem, lattice: Lattice, window: Window) -> int:
    """How many candidates a window holds."""
    return int(window.sites(problem.candidates, lattice.template.columns)[1].sum())


def _near(window: Window) -> Iterator[Window]:
    """The window itself, then those one site further along one axis or more."""
    for plane, row, column in product((0, 1), repeat=3):
        yield Window(window.plane0 + plane, window.row0 + row, window.column0 + column)
