"""Annealing of sources on a lattice of holes x planes: the typed front of the native chain.

It knows points, volumes and thresholds, no medicine. Doses are in units of the caller's choice, the
same in the matrix and in the thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels import _native

Annealer = _native.Annealer

POINT_MULTIPLE = 16
"""Strata hold a multiple of this many points, one vector's lanes."""

PATTERN_NAMES = ("row3", "column4", "tee", "block2x2")


@dataclass(frozen=True, slots=True)
class SearchGoal:
    """At least (or at most) `target_cc` of the strata in `mask` gets `threshold`.

    A miss costs `cost_per_cc` for each cm3; besides, each cm3 on the wrong side of the threshold costs
    `hinge_per_cc` for each unit of dose that it lies off, which shows the search the way.
    """

    mask: int
    at_least: bool
    threshold: float
    target_cc: float
    cost_per_cc: float
    hinge_per_cc: float = 0.0


@dataclass(frozen=True, slots=True)
class SearchRules:
    """Hard rules: `min_plane_gap` planes between seeds of a needle; patterns by `PATTERN_NAMES`."""

    min_plane_gap: int
    no_adjacent_in_plane: bool
    forbidden_patterns: frozenset[str]
    max_needles: int

    def native(self) -> _native.Rules:
        """The rules as the kernel takes them."""
        unknown = self.forbidden_patterns - set(PATTERN_NAMES)
        if unknown:
            raise InvalidInput(f"expected needle patterns of {PATTERN_NAMES}, got {sorted(unknown)}")
        rules = _native.Rules()
        rules.min_plane_gap = self.min_plane_gap
        rules.no_adjacent_in_plane = self.no_adjacent_in_plane
        rules.no_row_of_3 = "row3" in self.forbidden_patterns
        rules.no_column_of_4 = "column4" in self.forbidden_patterns
        rules.no_tee = "tee" in self.forbidden_patterns
        rules.no_square = "block2x2" in self.forbidden_patterns
        rules.max_needles = self.max_needles
        return rules


@dataclass(frozen=True, slots=True)
class SiteGrid:
    """The lattice and where each candidate stands in it: hole = row * columns + column."""

    columns: int
    rows: int
    planes: int
    hole: npt.NDArray[np.int32]
    plane: npt.NDArray[np.int32]


def annealer(
    matrix: npt.NDArray[np.float32],
    sites: SiteGrid,
    starts: npt.NDArray[np.int32],
    point_cc: npt.NDArray[np.float32],
    goals: Sequence[SearchGoal],
    rules: SearchRules,
    *,
    needle_cost: float,
    seed_cost: npt.NDArray[np.float32],
    seed: int,
    stream: int,
) -> _native.Annealer:
    """Make one chain.

    Parameters
    ----------
    matrix : (candidates, points) float32, C order, finite; kept, not copied.
    starts : (strata + 1,) int32, first point of each stratum and the end; multiples of 16.
    point_cc : (strata,) float32, the volume one point stands for, cm3.
    seed_cost : (candidates,) float32, the cost of a source at each.
    seed, stream : chains of one seed and different streams draw independent moves.

    Raises
    ------
    InvalidInput
        Shapes that do not fit, values that are not finite, more than 32 strata.
    """
    if matrix.ndim != 2 or matrix.dtype != np.float32 or not matrix.flags.c_contiguous:
        raise InvalidInput(f"expected a C-ordered float32 matrix, got {matrix.dtype} {matrix.shape}")
    if not np.isfinite(
        matrix.sum(dtype=np.float64)
    ):  # a NaN or an infinity shows in the sum, at half the cost
        raise InvalidInput("expected finite doses in the matrix")
    if len(point_cc) > 32:
        raise InvalidInput(f"expected at most 32 strata, got {len(point_cc)}")
    native_goals = [
        _native.Goal(
            goal.mask,
            1 if goal.at_least else -1,
            goal.threshold,
            goal.target_cc,
            goal.cost_per_cc,
            goal.hinge_per_cc,
        )
        for goal in goals
    ]
    try:
        return _native.Annealer(
            matrix,
            sites.hole,
            sites.plane,
            sites.columns,
            sites.rows,
            sites.planes,
            starts,
            point_cc,
            native_goals,
            rules.native(),
            needle_cost,
            seed_cost,
            seed,
            stream,
        )
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def pattern_allows(used: npt.NDArray[np.uint8], column: int, row: int, rules: SearchRules) -> bool:
    """Whether a hole may join the used holes (rows, columns) without making a forbidden pattern."""
    return bool(_native.pattern_allows(np.ascontiguousarray(used, np.uint8), column, row, rules.native()))


def cost_reference(
    matrix: npt.NDArray[np.float32],
    chosen: Sequence[int],
    sites: SiteGrid,
    starts: npt.NDArray[np.int32],
    point_cc: npt.NDArray[np.float32],
    goals: Sequence[SearchGoal],
    *,
    needle_cost: float,
    seed_cost: npt.NDArray[np.float32],
) -> float:
    """The cost of a set of candidates in float64: the specification of the native chain's cost."""
    dose = matrix[list(chosen)].sum(axis=0, dtype=np.float64)
    stratum = np.repeat(np.arange(len(point_cc)), np.diff(starts))
    cost = needle_cost * len({int(sites.hole[c]) for c in chosen}) + float(seed_cost[list(chosen)].sum())
    for goal in goals:
        within = (goal.mask >> stratum & 1).astype(np.float64) * point_cc[stratum]
        over = dose - goal.threshold
        miss_cc = (goal.target_cc - within[over >= 0].sum()) * (1 if goal.at_least else -1)
        wrong = np.maximum(-over if goal.at_least else over, 0.0)
        cost += goal.cost_per_cc * max(miss_cc, 0.0) + goal.hinge_per_cc * float(within @ wrong)
    return float(cost)
