"""Dose-volume histograms with partial voxels, and the metrics read from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trocar.planners.metric import parse_metric
from trocar.planners.types import Anatomy, Float32Array, Float64Array, require
from trocar.runtime.kernels.dvh import cumulative_histograms

# 145 Gy / 8000 = 0.018 Gy: the resolution of every D metric. 100, 150 and 200 % are bin edges,
# so that V100, V150 and V200 are exact counts, free of interpolation.
BINS_PER_PRESCRIPTION = 8000
PRESCRIPTIONS_BINNED = 5
ROLE_METRICS = (
    "volume_cc",
    "v100_pct",
    "v150_pct",
    "v200_pct",
    "d90_gy",
    "d30_gy",
    "d10_gy",
    "d2cc_gy",
    "d0_1cc_gy",
    "mean_gy",
)


@dataclass(frozen=True, slots=True)
class Dvh:
    """The dose-volume histogram of one structure.

    Parameters
    ----------
    unit_gy : what sets the bins, the prescription: bin k starts at k * unit_gy / `BINS_PER_PRESCRIPTION`.
    above_cc : (bins + 1,) float64, volume at or above each bin's lower edge; the last bin has no upper edge.
    volume_cc, mean_gy, min_gy, max_gy : exact, not from the bins. The extremes are those of voxel centres.
    """

    unit_gy: float
    above_cc: Float64Array
    volume_cc: float
    mean_gy: float
    min_gy: float
    max_gy: float

    @property
    def bins_cc(self) -> Float64Array:
        """Differential histogram: volume in each bin, cm3."""
        return -np.diff(self.above_cc, append=0.0)

    def v_cc(self, dose_gy: float) -> float:
        """Volume receiving `dose_gy` or more, cm3; linear within a bin."""
        if dose_gy <= self.min_gy:
            return self.volume_cc
        if dose_gy > self.max_gy:
            return 0.0
        position = dose_gy * BINS_PER_PRESCRIPTION / self.unit_gy
        overflow = self.above_cc.size - 1
        if position >= overflow:
            low = self._edge_gy(overflow)
            share = (dose_gy - low) / max(self.max_gy - low, 1e-12)
            return float(self.above_cc[overflow]) * (1.0 - share)
        index = int(position)
        below = position - index
        inside = float(self.above_cc[index] * (1.0 - below) + self.above_cc[index + 1] * below)
        # Sums in another order may differ in the last bit.
        return min(max(inside, 0.0), self.volume_cc)

    def v_pct(self, dose_gy: float) -> float:
        """Volume receiving `dose_gy` or more, % of the structure."""
        return 100.0 * (self.v_cc(dose_gy) / self.volume_cc)

    def d_cc_gy(self, volume_cc: float) -> float:
        """Least dose to the hottest `volume_cc`.

        A structure smaller than that gets its minimum dose: all of it receives at least so much.
        """
        require(volume_cc >= 0, f"expected a volume of at least 0 cc, got {volume_cc:g}")
        if volume_cc >= self.volume_cc:
            return self.min_gy
        if volume_cc == 0:
            return self.max_gy
        # The highest edge above which the volume still fits; above_cc falls, so it is searched reversed.
        from_top = int(np.searchsorted(self.above_cc[::-1], volume_cc, side="left"))
        # For the same reason a volume just below the whole may not be found: it is in bin 0.
        index = max(self.above_cc.size - 1 - from_top, 0)
        overflow = self.above_cc.size - 1
        low, high, beyond_cc = self._edge_gy(index), self.max_gy, 0.0
        if index < overflow:
            high, beyond_cc = self._edge_gy(index + 1), float(self.above_cc[index + 1])
        held_cc = self.above_cc[index] - beyond_cc
        share = (self.above_cc[index] - volume_cc) / held_cc if held_cc > 0 else 0.0
        return float(min(max(low + share * (high - low), self.min_gy), self.max_gy))

    def d_gy(self, volume_pct: float) -> float:
        """Least dose to the hottest `volume_pct` % of the structure."""
        require(0 <= volume_pct <= 100, f"expected a volume of 0 to 100 %, got {volume_pct:g}")
        return self.d_cc_gy(volume_pct / 100.0 * self.volume_cc)

    def metric(self, name: str, prescription_gy: float) -> float:
        """Evaluate a metric by name (see `trocar.planners.metric`), in the unit the name ends in."""
        metric = parse_metric(name)
        if metric.kind == "volume_at_dose":
            dose_gy = metric.amount * prescription_gy / 100.0
            return self.v_pct(dose_gy) if metric.unit == "pct" else self.v_cc(dose_gy)
        if metric.kind == "dose_at_volume_pct":
            return self.d_gy(metric.amount)
        if metric.kind == "dose_at_volume_cc":
            return self.d_cc_gy(metric.amount)
        plain = {
            "volume": self.volume_cc,
            "mean_dose": self.mean_gy,
            "min_dose": self.min_gy,
            "max_dose": self.max_gy,
        }
        return plain[metric.kind]

    def curve(self, points: int = 400) -> tuple[Float64Array, Float64Array]:
        """Cumulative curve for plotting: doses in Gy from 0 to the highest binned, and volume in %."""
        edges = np.linspace(0, self.above_cc.size - 1, points).astype(np.int64)
        dose_gy: Float64Array = edges.astype(np.float64) * (self.unit_gy / BINS_PER_PRESCRIPTION)
        return dose_gy, 100.0 * self.above_cc[edges] / self.volume_cc

    def _edge_gy(self, index: int) -> float:
        return index * self.unit_gy / BINS_PER_PRESCRIPTION


def dvh(dose_gy: Float32Array, anatomy: Anatomy, *, prescription_gy: float) -> dict[str, Dvh]:
    """Histogram the dose over every structure in one pass.

    A voxel counts with the fraction of it that the structure covers, so that volumes do not depend on where
    the grid falls.

    Parameters
    ----------
    dose_gy : (z, y, x) float32, on the grid of `anatomy`.
    anatomy : covered fractions by role.

    Raises
    ------
    InvalidInput
        The dose has another shape, or a NaN, infinite or negative value; the prescription is not a positive
        dose; or a structure covers no voxel of the grid.
    """
    require(
        math.isfinite(prescription_gy) and prescription_gy > 0,
        f"expected a prescription above 0 Gy, got {prescription_gy:g}",
    )
    shape = anatomy.grid.shape_zyx
    require(dose_gy.shape == shape, f"expected a dose of the grid's shape {shape}, got {dose_gy.shape}")
    found = cumulative_histograms(
        dose_gy,
        list(anatomy.fractions.values()),
        unit=prescription_gy,
        bins_per_unit=BINS_PER_PRESCRIPTION,
        bins=BINS_PER_PRESCRIPTION * PRESCRIPTIONS_BINNED,
    )
    above_cc = np.multiply(found.above, anatomy.grid.voxel_cc, out=found.above)
    result = {}
    for row, role in enumerate(anatomy.fractions):
        covered = float(found.total[row])
        require(covered > 0, f"expected the structure {role} to cover part of the dose grid, got no voxel")
        result[role] = Dvh(
            unit_gy=prescription_gy,
            above_cc=above_cc[row],
            volume_cc=covered * anatomy.grid.voxel_cc,
            mean_gy=float(found.weighted_sum[row]) / covered,
            min_gy=float(found.least[row]),
            max_gy=float(found.most[row]),
        )
    return result


def role_metrics(dvhs: Mapping[str, Dvh], prescription_gy: float) -> dict[str, dict[str, float]]:
    """Tabulate the reported metrics of each structure: role to metric name to value."""
    return {
        role: {name: entry.metric(name, prescription_gy) for name in ROLE_METRICS}
        for role, entry in dvhs.items()
    }
