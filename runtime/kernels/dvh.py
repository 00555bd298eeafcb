"""Weighted cumulative histograms of one volume over several overlapping regions, in one pass.

On the CPU, `cumulative_histograms` allocates what it returns. `cumulative_histograms_into` writes buffers
of the caller's, on any device (see `devices`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels import devices
from trocar.runtime.kernels.devices import Array

BAD_DOSE = "expected a finite dose of at least 0 in every voxel, got a NaN, infinite or negative one"
BAD_FRACTION = "expected covered fractions from 0 to 1, got a NaN or a value outside"
_STATUS = {1: BAD_DOSE, 2: BAD_FRACTION}


@dataclass(frozen=True, slots=True)
class Histograms:
    """What one pass yields, a row per region.

    Parameters
    ----------
    above : (regions, bins + 1) float64, covered voxels in or above each bin; the last bin has no upper end.
    total : (regions,) float64, covered voxels.
    weighted_sum : (regions,) float64, sum of fraction times value.
    least, most : (regions,) float64, extremes over voxels with a fraction above 0; inf and -inf if none.
    """

    above: npt.NDArray[np.float64]
    total: npt.NDArray[np.float64]
    weighted_sum: npt.NDArray[np.float64]
    least: npt.NDArray[np.float64]
    most: npt.NDArray[np.float64]


def cumulative_histograms(
    dose: npt.NDArray[np.float32],
    fractions: Sequence[npt.NDArray[np.float32]],
    *,
    unit: float,
    bins_per_unit: int,
    bins: int,
) -> Histograms:
    """Sum up, from the top, the covered fraction of each voxel by its dose.

    Bin k holds doses in [k, k + 1) * unit / bins_per_unit. Sums run in voxel order in float64: the result is
    the same bit for bit on every machine, and equals `cumulative_histograms_reference`.

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
    above = np.empty((len(flat_fractions), bins + 1))
    sums = np.empty((len(flat_fractions), 4))
    cumulative_histograms_into(
        flat_dose, flat_fractions, above, sums, unit=unit, bins_per_unit=bins_per_unit, workspace=np.empty(0)
    )
    return Histograms(above, sums[:, 0], sums[:, 1], sums[:, 2], sums[:, 3])


def cumulative_histograms_into(
    dose: Array,
    fractions: Sequence[Array],
    above: Array,
    sums: Array,
    *,
    unit: float,
    bins_per_unit: int,
    workspace: Array,
    stream: int | None = None,
) -> None:
    """`cumulative_histograms` on any device; the bins are those of `above`.

    A GPU gives the same bits in every run, but not the CPU's: `above` and the total are off by at most
    `n * 2**-(b + 1)` covered voxels, where n is the number of voxels and `b = 62 - ceil(log2(n))` (1e-7 of
    a million voxels), the weighted sum by its rounding in another order.

    Parameters
    ----------
    dose : float32 of any shape, dense.
    fractions : a float32 array of the same shape per region, 0 to 1; at most 32 of them on a GPU.
    above : (regions, bins + 1) float64, written.
    sums : (regions, 4) float64, written: total, weighted sum, least, most (see `Histograms`).
    workspace : float64, at least `workspace_values(...)` of them, overwritten.
    stream : the CUDA stream, for arrays on a GPU.

    Raises
    ------
    InvalidInput
        An array has another shape, dtype, layout or device, or overlaps an output; on the CPU also where a
        dose is not finite or negative or a fraction outside 0 to 1. A GPU reads them after the call: there,
        all of `above` and `sums` is NaN.
    DeviceError
        CUDA failed, or is not built in.
    """
    given = {f"fractions[{index}]": fraction for index, fraction in enumerate(fractions)}
    target = devices.target(stream, dose=dose, above=above, sums=sums, workspace=workspace, **given)
    status = target.native.cumulative_histograms(
        dose, list(fractions), float(bins_per_unit), unit, above, sums, workspace, target.stream
    )
    if status:
        raise InvalidInput(_STATUS[status])


def workspace_values(device: str, voxels: int, regions: int) -> int:
    """How many float64 values of workspace a call needs on `cpu` or `cuda`."""
    return int(devices.module(device).dvh_workspace(voxels, regions))


def cumulative_histograms_reference(
    dose: npt.NDArray[np.float32],
    fractions: Sequence[npt.NDArray[np.float32]],
    *,
    unit: float,
    bins_per_unit: int,
    bins: int,
) -> Histograms:
    """Specify `cumulative_histograms` in NumPy, bit for bit: `bincount` and `cumsum` add in order too."""
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
                np.cumsum(np.bincount(bin_index, weights=weight, minlength=bins + 1)[::-1])[::-1],
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
