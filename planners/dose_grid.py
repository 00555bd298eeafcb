"""Moving a dose from one grid to another."""

from __future__ import annotations

import numpy as np

from trocar.planners.types import Float32Array, Float64Array, Grid, require


def dose_on_grid(dose_gy: Float32Array, dose_grid: Grid, grid: Grid) -> Float32Array:
    """Interpolate a dose trilinearly onto another grid.

    Parameters
    ----------
    dose_gy : (z, y, x) float32 on `dose_grid`.
    grid : the wanted grid; every voxel centre must lie within the voxel centres of `dose_grid`.

    Raises
    ------
    InvalidInput
        The dose has another shape than its grid, or the wanted grid reaches beyond it: a dose is never
        extrapolated, and never silently zero.
    """
    require(
        dose_gy.shape == dose_grid.shape_zyx,
        f"expected a dose of its grid's shape {dose_grid.shape_zyx}, got {dose_gy.shape}",
    )
    moved = dose_gy.astype(np.float64)
    axes = zip("zyx", dose_grid.axes_zyx_mm, grid.axes_zyx_mm, dose_grid.spacing_zyx_mm, strict=True)
    for axis, (name, have_mm, want_mm, step_mm) in enumerate(axes):
        moved = _along(moved, axis, (want_mm - have_mm[0]) / step_mm, name)
    return moved.astype(np.float32)


def _along(values: Float64Array, axis: int, position: Float64Array, name: str) -> Float64Array:
    """Interpolate linearly along one axis, at fractional indices."""
    last = values.shape[axis] - 1
    # A thousandth of a voxel is rounding of coordinates, not extrapolation.
    inside = bool((position >= -1e-3).all() and (position <= last + 1e-3).all())
    require(
        inside,
        f"expected a grid within the dose grid along {name} (index 0 to {last}), "
        f"got {position.min():.2f} to {position.max():.2f}",
    )
    position = np.clip(position, 0, last)
    low = np.minimum(position.astype(np.int64), max(last - 1, 0))
    shape = [1] * values.ndim
    shape[axis] = -1
    share = (position - low).reshape(shape)
    below: Float64Array = np.take(values, low, axis=axis)
    above: Float64Array = np.take(values, np.minimum(low + 1, last), axis=axis)
    return np.asarray(below + share * (above - below))
