"""Is a case like those that a model was trained on? One score; 1 is where it is called unlike.

A case is unlike in either of two ways, and the score is the worse of both:

- a descriptor of its own leaves the range of the training cases (`range`: distance from the middle of the
  1st to 99th percentile in halves of that range, the largest over all descriptors);
- descriptors that are each in range do not go together (`joint`: Mahalanobis distance, the covariance shrunk
  towards its diagonal by d / (n + d)).

Each is divided by what 98.5 % of cases that took no part in the fit stay below (five-fold): a share found on
some hundred cases is known to 2 % or so, and no more than 5 % of ordinary cases may be flagged. Every
descriptor has a tolerance: a difference that no plan would notice, or that hand-drawn contours have and
phantoms lack, makes nothing unlike, however alike the training cases are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import cycle
from typing import Any

import numpy as np

from trocar.planners.descriptors import NAMES, descriptors
from trocar.planners.geometry import anatomy, default_lattice, evaluation_grid, extent_mm
from trocar.planners.phantom import phantom_case
from trocar.planners.types import Anatomy, Case, Finding, Float64Array, Lattice, Template, require

__all__ = ["NAMES", "Novelty", "descriptors", "fit", "novelty_findings", "phantom_table", "table_of"]

RULE = "unlike_training"
SCHEMA = "trocar.novelty/1"
LEAST_CASES = 20
SLICES_MM = (1.0, 3.0, 5.0)
ORDINARY_SHARE_PCT = 98.5
_FOLDS = 5
_RANGE_PCT = (1.0, 99.0)
_ROOMY_PITCH_MM, _ROOMY_SIDE = 5.0, 39
_NEVER_SEEN = 1e9  # half range of a descriptor that no training case had
# A ball's radius off by 2 % is 6 % of volume; a ratio off by 10 % is half a lattice pitch of a gland's width.
_TOLERANCE: Mapping[str, float] = {
    "ctv_radius_mm": 0.4,
    "width_to_height": 0.05,
    "length_to_width": 0.05,
    "skew_x": 0.05,
    "skew_y": 0.05,
    "skew_z": 0.05,
    "tilt_x": 0.10,
    "tilt_y": 0.10,
    "slice_fill": 0.03,
    "solid_fill": 0.05,
    "base_blunt": 0.10,
    "apex_blunt": 0.10,
    "ragged_across": 0.04,
    "ragged_along": 0.04,
    "area_jump": 0.05,
    "centroid_jump_mm": 0.75,
    "ptv_margin_mm": 0.5,
    "urethra_x": 0.2,
    "urethra_y": 0.2,
    "urethra_inside": 0.05,
    "urethra_length": 0.15,
    "urethra_width_mm": 1.0,
    "urethra_roundness": 0.2,
    "rectum_gap_mm": 1.0,
    "rectum_overlap": 0.01,
    "rectum_x": 0.2,
    "rectum_width_mm": 4.0,
    "bladder_above": 0.5,
    "missing_roles": 0.4,
}


class Novelty:
    """The training cases' statistics, from `fit`.

    Raises
    ------
    InvalidInput
        They are of another schema or of other descriptors.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        schema = document.get("schema")
        require(schema == SCHEMA, f"novelty statistics: expected schema {SCHEMA}, got {schema!r}")
        require(
            tuple(document["names"]) == NAMES, "novelty statistics: expected the descriptors of this version"
        )
        self.cases = int(document["cases"])
        self._centre = np.array(document["centre"], dtype=np.float64)
        self._half = np.array(document["half_range"], dtype=np.float64)
        self._precision = np.linalg.inv(np.array(document["covariance"], dtype=np.float64))
        self._limits = (float(document["range_limit"]), float(document["joint_limit"]))

    def score(self, described: Float64Array) -> float:
        """How unlike a case of these descriptors is; above 1 it is flagged."""
        of_range, joint = _distances(self._scaled(described), self._precision)
        return max(of_range / self._limits[0], joint / self._limits[1])

    def worst(self, described: Float64Array) -> str:
        """The descriptor that makes the case most unlike, with its value and its usual range."""
        scaled = self._scaled(described)
        of_range, joint = _distances(scaled, self._precision)
        alone = of_range / self._limits[0] >= joint / self._limits[1]
        weight = np.abs(scaled) if alone else scaled * (self._precision @ scaled)
        at = int(np.argmax(weight))
        low, high = self._centre[at] - self._half[at], self._centre[at] + self._half[at]
        beside = "" if alone else ", beside the other descriptors"
        return f"{NAMES[at]} {described[at]:.3g} (usual {low:.3g} to {high:.3g}){beside}"

    def _scaled(self, described: Float64Array) -> Float64Array:
        require(described.shape == (len(NAMES),), f"expected {len(NAMES)} descriptors, got {described.shape}")
        return _scaled(described, self._centre, self._half)


def novelty_findings(volumes: Anatomy, statistics: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Hold a case against a model's training cases: one finding, `warn` where it is unlike them.

    Parameters
    ----------
    statistics : from `fit`; a model without any gives a note that nothing was compared.
    """
    if not statistics:
        return (Finding(RULE, "the model has no statistics of its training cases", "", "", "note", "model"),)
    novelty = Novelty(statistics)
    described = descriptors(volumes)
    score = novelty.score(described)
    source = f"descriptors of the model's {novelty.cases} training cases; most unlike: "
    severity = "warn" if score > 1.0 else "pass"
    return (Finding(RULE, round(score, 3), "<= 1", "", severity, source + novelty.worst(described)),)


def fit(table: Float64Array) -> dict[str, Any]:
    """Statistics of training cases, in plain JSON types.

    Parameters
    ----------
    table : (n, d) float64, `descriptors` of each case, NaN where it lacks the structure.

    Raises
    ------
    InvalidInput
        Fewer than 20 cases, or another number of descriptors.
    """
    table = np.asarray(table, dtype=np.float64)
    require(
        table.ndim == 2 and table.shape[1] == len(NAMES) and len(table) >= LEAST_CASES,
        f"novelty: expected a table of at least {LEAST_CASES} cases by {len(NAMES)} descriptors, "
        f"got {' x '.join(map(str, table.shape))}",
    )
    # Neighbours in the table may be alike (a folder's order), so that a fold takes every fifth case.
    fold = np.arange(len(table)) % _FOLDS
    held_out = np.concatenate(
        [_held_out_distances(table[fold != k], table[fold == k]) for k in range(_FOLDS)]
    )
    limits = np.percentile(held_out, ORDINARY_SHARE_PCT, axis=0, method="higher")
    # Cases that are all alike leave the tolerances to go by: one descriptor off by its own is at these.
    limits = np.maximum(limits, (1.0, np.sqrt(3.0)))
    # Either may flag, so that both limits rise until the two together flag no more than their share.
    both = max(1.0, np.percentile((held_out / limits).max(axis=1), ORDINARY_SHARE_PCT, method="higher"))
    centre, half, covariance = _statistics(table)
    return {
        "schema": SCHEMA,
        "names": list(NAMES),
        "cases": len(table),
        "centre": _rounded(centre),
        "half_range": _rounded(half),
        "covariance": [_rounded(row) for row in covariance],
        "range_limit": float(limits[0] * both),
        "joint_limit": float(limits[1] * both),
        "flagged_held_out_pct": float(100.0 * ((held_out / (limits * both)).max(axis=1) > 1.0).mean()),
    }


def table_of(cases: Iterable[Case], *, progress: Callable[[int], None] | None = None) -> Float64Array:
    """Descriptors (n, d) of cases, whether or not a template could hold them.

    Parameters
    ----------
    progress : called with the number of cases done.
    """
    rows = []
    for case in cases:
        rows.append(descriptors(anatomy(case, evaluation_grid(case, _roomy_lattice(case)))))
        if progress is not None:
            progress(len(rows))
    return np.array(rows, dtype=np.float64).reshape(-1, len(NAMES))


def phantom_table(seeds: Iterable[int], *, progress: Callable[[int], None] | None = None) -> Float64Array:
    """Descriptors (n, d) of phantoms whose contours are 1, 3 and 5 mm apart in turn.

    A case must not be unlike for its sampling, so that the statistics are of every usual one.
    """
    spaced = zip(seeds, cycle(SLICES_MM), strict=False)
    return table_of((phantom_case(seed, slice_mm=slice_mm) for seed, slice_mm in spaced), progress=progress)


def _roomy_lattice(case: Case) -> Lattice:
    """The default lattice with room for any target, so that the grid's voxels fall alike."""
    box = extent_mm(case.structures["ptv"])
    reach_mm = _ROOMY_PITCH_MM * (_ROOMY_SIDE - 1) / 2
    first = [round(0.5 * sum(side) - reach_mm, 2) for side in (box.x_mm, box.y_mm)]
    template = Template((first[0], first[1]), _ROOMY_PITCH_MM, _ROOMY_SIDE, _ROOMY_SIDE)
    return default_lattice(case, template, None)[0]


def _held_out_distances(table: Float64Array, others: Float64Array) -> Float64Array:
    """(m, 2) `range` and `joint` distances of cases from the statistics of others."""
    centre, half, covariance = _statistics(table)
    precision = np.asarray(np.linalg.inv(covariance), dtype=np.float64)
    return np.array([_distances(_scaled(row, centre, half), precision) for row in others])


def _statistics(table: Float64Array) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Middle (d,) and half (d,) of each range, and the covariance (d, d) of what is scaled by them."""
    seen = np.asarray(np.isfinite(table).any(axis=0), dtype=np.bool_)
    low, high = np.zeros(len(seen)), np.zeros(len(seen))
    low[seen], high[seen] = np.nanpercentile(table[:, seen], _RANGE_PCT, axis=0)
    tolerance = np.array([_TOLERANCE[name] for name in NAMES])
    centre = 0.5 * (low + high)
    half = np.where(seen, np.maximum(0.5 * (high - low), tolerance), _NEVER_SEEN)
    scaled = _scaled(table, centre, half)
    count, size = scaled.shape
    sample = scaled.T @ scaled / count
    diagonal = np.diag(np.diag(sample))
    shrunk = sample + size / (count + size) * (diagonal - sample)
    # The tolerance acts as noise, even within plus and minus itself: a third of its square is its variance.
    return centre, half, shrunk + np.diag((tolerance / half) ** 2 / 3.0 + 1e-6)


def _scaled(described: Float64Array, centre: Float64Array, half: Float64Array) -> Float64Array:
    """Descriptors in halves of their range; what is missing counts as usual: `missing_roles` tells."""
    return np.nan_to_num((described - centre) / half, nan=0.0)


def _distances(scaled: Float64Array, precision: Float64Array) -> tuple[float, float]:
    return float(np.abs(scaled).max()), float(np.sqrt(scaled @ precision @ scaled))


def _rounded(values: Float64Array) -> list[float]:
    return [float(f"{value:.7g}") for value in values]
