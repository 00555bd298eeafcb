"""What the search works on: where seeds may stand, where dose is sampled, and what is wanted.

The search sees a few thousand points, not the grid: each sampled point stands for a share of the
voxels that lie in exactly the same structures (a stratum), so that every goal's volume is a sum over
strata. Doses are in units of the prescription.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trocar.planners.dose.engine import DoseEngine
from trocar.planners.geometry import distance_outside_mm
from trocar.planners.protocol import GeometryRules, Goal, Protocol
from trocar.planners.rules import needle_clearances_mm
from trocar.planners.types import Anatomy, Float32Array, Float64Array, Lattice, Needle, require
from trocar.runtime.kernels.anneal import (
    POINT_MULTIPLE,
    Annealer,
    SearchGoal,
    SearchRules,
    SiteGrid,
    annealer,
)
from trocar.runtime.kernels.chains import Chains

# Points sampled in a stratum, by the first of its roles named here. The rim of the PTV decides coverage.
SAMPLES: Mapping[str, int] = {"urethra": 208, "ctv": 896, "ptv": 1200, "rectum": 320, "bladder": 160}
_ORGAN_REACH_MM = 15.0  # organ voxels further from the PTV than this never count among the hottest
_DOSE_CAP = 4.0  # a seed's own dose, in prescriptions, above which no goal looks


@dataclass(frozen=True, slots=True)
class Candidates:
    """Lattice sites for seeds: (n,) hole (row * columns + column), (n,) plane, (n, 3) centres."""

    hole: npt.NDArray[np.int32]
    plane: npt.NDArray[np.int32]
    centres_xyz_mm: Float64Array


@dataclass(frozen=True, slots=True)
class Samples:
    """Sampled points by stratum: stratum s holds points `starts[s]:starts[s + 1]`, each worth `point_cc[s]`.

    `roles[s]` are the structures that all of its points lie in.
    """

    points_xyz_mm: Float64Array
    starts: npt.NDArray[np.int32]
    point_cc: Float32Array
    roles: tuple[frozenset[str], ...]


@dataclass(frozen=True, slots=True)
class SearchProblem:
    """Everything the annealing needs, in its own terms.

    `matrix` is (candidates, points) float32: dose in prescriptions from a seed at each candidate;
    `seed_cost` (candidates,) float32: what a seed there costs.
    """

    lattice: Lattice
    candidates: Candidates
    samples: Samples
    matrix: Float32Array
    goals: tuple[SearchGoal, ...]
    rules: SearchRules
    needle_cost: float
    seed_cost: Float32Array

    def chain(self, *, seed: int, stream: int) -> Annealer:
        """A chain over this problem; chains of one seed and different streams draw independently."""
        template, planes, sites = self.lattice.template, self.lattice.planes, self.candidates
        return annealer(
            self.matrix,
            SiteGrid(template.columns, template.rows, planes.count, sites.hole, sites.plane),
            self.samples.starts,
            self.samples.point_cc,
            self.goals,
            self.rules,
            needle_cost=self.needle_cost,
            seed_cost=self.seed_cost,
            seed=seed,
            stream=stream,
        )

    def chains_on_gpu(self, begun: Sequence[Annealer], *, seed: int, count: int | None) -> Chains:
        """Chains that go on from `begun` on a GPU; chain i draws as `chain(seed=seed, stream=i)`."""
        return Chains(begun, self.matrix, seed=seed, count=count)

    def cost_of(self, chosen: Sequence[int]) -> float:
        """The cost of a set of candidates."""
        return self.chain(seed=0, stream=0).cost_of([int(c) for c in chosen])

    def needles(self, chosen: Sequence[int]) -> tuple[Needle, ...]:
        """Needles of the chosen candidates, ordered by row from anterior, then column."""
        template, planes = self.lattice.template, self.lattice.planes
        seeds: dict[int, list[float]] = {}
        for index in chosen:
            z_mm = planes.z0_mm + planes.pitch_mm * int(self.candidates.plane[index])
            seeds.setdefault(int(self.candidates.hole[index]), []).append(z_mm)
        found = []
        for hole in sorted(seeds):
            row, column = divmod(hole, template.columns)
            x_mm, y_mm = template.hole_xy_mm(column, row)
            found.append(Needle(template.label(column, row), x_mm, y_mm, tuple(sorted(seeds[hole]))))
        return tuple(found)


def build_problem(
    anatomy: Anatomy,
    lattice: Lattice,
    engine: DoseEngine,
    protocol: Protocol,
    *,
    strength_u: float,
    prescription_gy: float,
    seed: int,
) -> SearchProblem:
    """Set up the search of one case.

    Raises
    ------
    InvalidInput
        No lattice site lies within the protocol's margin of the PTV.
    """
    distance_mm, corner = _distance_near_ptv(anatomy)
    candidates = find_candidates(anatomy, lattice, distance_mm, corner, protocol.geometry)
    samples = draw_samples(
        anatomy, distance_mm, corner, _goal_roles(protocol), np.random.default_rng([seed, 1])
    )
    matrix = engine.matrix_gy_u(candidates.centres_xyz_mm, samples.points_xyz_mm)
    matrix *= np.float32(strength_u / prescription_gy)
    np.minimum(matrix, np.float32(_DOSE_CAP), out=matrix)
    settings = protocol.search
    return SearchProblem(
        lattice,
        candidates,
        samples,
        matrix,
        tuple(_search_goal(goal, samples) for goal in settings.goals if goal.role in anatomy.fractions),
        _search_rules(protocol.geometry, lattice, min(settings.needle_cap, protocol.geometry.max_needles)),
        settings.needle_cost,
        np.full(len(matrix), settings.seed_cost, dtype=np.float32),
    )


def _goal_roles(protocol: Protocol) -> tuple[str, ...]:
    named = {goal.role for goal in protocol.search.goals}
    return tuple(role for role in SAMPLES if role in named)


def _distance_near_ptv(anatomy: Anatomy) -> tuple[Float32Array, npt.NDArray[np.int64]]:
    """Distance to the PTV in a box around it, mm, and the box's first voxel."""
    inside = np.argwhere(anatomy.fractions["ptv"] >= 0.5)
    require(len(inside) > 0, "the PTV is empty on the evaluation grid")
    reach = np.ceil(_ORGAN_REACH_MM / np.asarray(anatomy.grid.spacing_zyx_mm)).astype(np.int64)
    low = np.maximum(inside.min(axis=0) - reach, 0)
    high = np.minimum(inside.max(axis=0) + reach + 1, anatomy.grid.shape_zyx)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return distance_outside_mm(anatomy.fractions["ptv"][box], anatomy.grid.spacing_zyx_mm), low


def find_candidates(
    anatomy: Anatomy,
    lattice: Lattice,
    distance_mm: Float32Array,
    corner: npt.NDArray[np.int64],
    rules: GeometryRules,
) -> Candidates:
    """Lattice sites near the PTV, in holes whose needle passes the urethra by."""
    template, planes, grid = lattice.template, lattice.planes, anatomy.grid
    row, column, plane = np.indices((template.rows, template.columns, planes.count)).reshape(3, -1)
    centres = np.stack(
        [
            template.origin_xy_mm[0] + template.pitch_mm * column,
            template.origin_xy_mm[1] + template.pitch_mm * row,
            planes.z0_mm + planes.pitch_mm * plane,
        ],
        axis=1,
    )
    index = (
        np.rint((centres[:, ::-1] - grid.origin_xyz_mm[::-1]) / grid.spacing_zyx_mm).astype(np.int64) - corner
    )
    held = np.all((index >= 0) & (index < distance_mm.shape), axis=1)
    near = np.zeros(len(centres), dtype=bool)
    near[held] = distance_mm[tuple(index[held].T)] <= rules.candidate_margin_mm
    require(
        bool(near.any()),
        f"no template hole lies within {rules.candidate_margin_mm:g} mm of the PTV at any plane",
    )
    if "urethra" in anatomy.fractions:
        near &= needle_clearances_mm(centres[:, :2], anatomy) >= rules.urethra_clearance_mm
        require(bool(near.any()), "every template hole near the PTV leads through the urethra")
    hole = (row * template.columns + column)[near]
    return Candidates(
        hole.astype(np.int32), plane[near].astype(np.int32), np.ascontiguousarray(centres[near])
    )


def draw_samples(
    anatomy: Anatomy,
    distance_mm: Float32Array,
    corner: npt.NDArray[np.int64],
    roles: Sequence[str],
    random: np.random.Generator,
) -> Samples:
    """Sample every stratum evenly in space: systematic draws along a space-filling order of its voxels."""
    box = tuple(slice(c, c + n) for c, n in zip(corner, distance_mm.shape, strict=True))
    present = [role for role in roles if role in anatomy.fractions]
    code = np.zeros(distance_mm.shape, dtype=np.uint8)
    for bit, role in enumerate(present):
        code |= (anatomy.fractions[role][box] >= 0.5).astype(np.uint8) << np.uint8(bit)
    index = np.argwhere(code)
    codes = code[tuple(index.T)]
    points, starts, point_cc, strata = [], [0], [], []
    for value in np.unique(codes):
        inside = frozenset(role for bit, role in enumerate(present) if value >> bit & 1)
        voxels = index[codes == value]
        wanted = next(SAMPLES[role] for role in SAMPLES if role in inside)
        count = min(wanted, max(len(voxels), 1))
        count = -(-count // POINT_MULTIPLE) * POINT_MULTIPLE
        drawn = _systematic(voxels, count, random)
        points.append(anatomy.grid.points_xyz_mm(drawn + corner))
        starts.append(starts[-1] + count)
        point_cc.append(len(voxels) * anatomy.grid.voxel_cc / count)
        strata.append(inside)
    return Samples(
        np.concatenate(points), np.array(starts, np.int32), np.array(point_cc, np.float32), tuple(strata)
    )


def _systematic(
    voxels: npt.NDArray[np.int64], count: int, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """`count` of the voxels, one drawn from each of `count` equal stretches of a snake through 3 mm cells."""
    cell = voxels // 3
    order = np.lexsort((voxels[:, 2], cell[:, 1], cell[:, 0]))
    at = (np.arange(count) + random.random(count)) * (len(voxels) / count)
    return voxels[order[np.minimum(at.astype(np.int64), len(voxels) - 1)]]


def _search_goal(goal: Goal, samples: Samples) -> SearchGoal:
    """A protocol goal in cubic centimetres of the strata that make up its structure."""
    mask = sum(1 << s for s, roles in enumerate(samples.roles) if goal.role in roles)
    counts = np.diff(samples.starts)
    whole_cc = float(sum(samples.point_cc[s] * counts[s] for s in range(len(counts)) if mask >> s & 1))
    per_cc = 1.0 if goal.unit == "cc" else 100.0 / whole_cc if whole_cc else 1.0
    target_cc = goal.volume if goal.unit == "cc" else goal.volume / 100.0 * whole_cc
    return SearchGoal(
        mask=mask,
        at_least=goal.kind == "at_least",
        threshold=goal.dose_pct / 100.0,
        target_cc=target_cc,
        cost_per_cc=goal.weight * per_cc,
        hinge_per_cc=goal.hinge_weight * 100.0 / whole_cc if whole_cc else 0.0,
    )


def _search_rules(rules: GeometryRules, lattice: Lattice, needle_cap: int) -> SearchRules:
    gap = int(np.ceil(rules.min_spacing_along_needle_mm / lattice.planes.pitch_mm - 1e-6))
    return SearchRules(
        min_plane_gap=max(gap, 1),
        no_adjacent_in_plane=rules.no_adjacent_in_plane,
        forbidden_patterns=frozenset(rules.forbidden_patterns),
        max_needles=needle_cap,
    )
