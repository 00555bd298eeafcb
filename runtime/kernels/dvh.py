"""Weighted histograms of one volume over several overlapping regions, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels import _native

BAD_DOSE = "expected a finite dose of at least 0 in every voxel, got a NaN, infinite or negative one"
BAD_FRACTION = "expected covered fractions from 0 to 1, got a NaN or a value outside"
_STATUS = {1: BAD_DOSE, 2: BAD_FRACTION}


@dataclass(frozen=True, slots=True)
class Histograms:
    """What one pass yields, a row per region.

    Parameters
    ----------
    weight : (regions, bins + 1) float64, covered voxels per bin; the last bin holds all values above.
    total : (regions,) float64, covered voxels.
    weighted_sum : (regions,) float64, sum of fraction times value.
    least, most : (regions,) float64, extremes over voxels with a fraction above 0; inf and -inf if none.
    """

    weight: npt.NDArray[np.float64]
    total: npt.NDArray[np.float64]
    weighted_sum: npt.NDArray[np.float64]
    least: npt.NDArray[np.float64]
    most: npt.NDArray[np.float64]


def histograms(
    dose: npt.NDArray[np.float32],
    fractions: Sequence[npt.NDArray[np.float32]],
    *,
    unit: float,
    bins_per_unit: int,
    bins: int,
) -> Histograms:
    """Histogram the dose over each region, weighted by the covered fraction of each voxel.

    Bin k holds doses in [k, k + 1) * unit / bins_per_unit. Sums run in voxel order in float64: the result is
    the same bit for bit on every machine, and equals `histograms_reference`.

    Parameters
    ----------
    dose : float32 of any shape, in the unit of `unit`.
    fractions : a float32 array of the same shape per region, 0 to 1.

    Raises
    ------
    InvalidInput
        Shapes differ, a dose is not finite or negative, or a fraction lies outside 0 to 1.
    """
    flat_dose, flat_fractions = _flat(dose, fractions)
    weight = np.empty((len(flat_fractions), bins + 1))
    sums = np.empty((len(flat_fractions), 4))
    status = _native.dvh_histograms(flat_dose, flat_fractions, float(bins_per_unit), unit, weight, sums)
    if status:
        raise InvalidInput(_STATUS[status])
    return Histograms(weight, sums[:, 0], sums[:, 1], sums[:, 2], sums[:, 3])


def histograms_reference(
    dose: npt.NDArray[np.float32],
    fractions: Sequence[npt.NDArray[np.float32]],
    *,
    unit: float,
    bins_per_unit: int,
    bins: int,
) -> Histograms:
    """Specify `histograms` in NumPy, bit for bit: `bincount` adds in voxel order too."""
    flat_dose, flat_fractions = _flat(dose, fractions)
    dose64 = flat_dose.astype(np.float64)
    if not (np.isfinite(dose64) & (dose64 >= 0)).all():
        raise InvalidInput(BAD_DOSE)
    bin_index = np.minimum(dose64 * bins_per_unit / unit, bins).astype(np.int64)
    rows = []
    for fraction in flat_fractions:
        weight = fraction.astype(np.float64)
        if not ((weight >= 0) & (weight <= 1)).all():
            raise InvalidInput(BAD_FRACTION)
        covered = weight > 0
        one_bin = np.zeros(dose64.size, dtype=np.int64)
        rows.append(
            (
                np.bincount(bin_index, weights=weight, minlength=bins + 1),
                np.bincount(one_bin, weights=weight, minlength=1)[0],
                np.bincount(one_bin, weights=weight * dose64, minlength=1)[0],
                dose64[covered].min(initial=np.inf),
                dose64[covered].max(initial=-np.inf),
            )
        )
    columns = list(zip(*rows, strict=True)) if rows else [np.empty((0, bins + 1)), *[np.empty(0)] * 4]
    return Histograms(*(np.array(column, dtype=np.float64) for column in columns))


def _flat(
    dose: npt.NDArray[np.float32], fractions: Sequence[npt.NDArray[np.float32]]
) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
    """One-dimensional contiguous views (copies only of what is not contiguous float32)."""
    for fraction in fractions:
        if fraction.shape != dose.shape:
            raise InvalidInput(f"expected fractions of the dose's shape {dose.shape}, got {fraction.shape}")
    flat = [np.ascontiguousarray(array, dtype=np.float32).reshape(-1) for array in (dose, *fractions)]
    return flat[0], flat[1:]
