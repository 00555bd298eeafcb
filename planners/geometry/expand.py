"""Anisotropic margins."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from trocar.planners.geometry.shape import extent_mm, fraction_on
from trocar.planners.types import Float32Array, Grid, Structure, require

# The margin is grown on a grid this fine and handed back at twice the pitch.
_FINE_MM = 0.5
MAX_MARGIN_MM = 30.0
MAX_FINE_VOXELS = 40_000_000


@dataclass(frozen=True, slots=True)
class Margins:
    """Margins towards the patient's sides, mm, each 0 or more."""

    left: float = 0.0
    right: float = 0.0
    anterior: float = 0.0
    posterior: float = 0.0
    superior: float = 0.0
    inferior: float = 0.0


def expand(structure: Structure, margins_mm: Margins, *, name: str, role: str) -> Structure:
    """A structure grown by margins that differ by direction.

    A point belongs to the result when it lies within an ellipsoid, with the margins as half-axes in its
    octant, around some point of the structure.

    Returns
    -------
    A structure on 1 mm slices and pixels, whatever the source's slices were.

    Raises
    ------
    InvalidInput
        A margin is negative, not finite or above 30 mm; the structure is empty.
    """
    for side in fields(margins_mm):
        value = getattr(margins_mm, side.name)
        require(
            bool(np.isfinite(value)) and 0.0 <= value <= MAX_MARGIN_MM,
            f"margin {side.name}: expected 0 to {MAX_MARGIN_MM:g} mm, got {value:g}",
        )
    low_high = (
        (margins_mm.inferior, margins_mm.superior),
        (margins_mm.anterior, margins_mm.posterior),
        (margins_mm.right, margins_mm.left),
    )
    box = extent_mm(structure)
    origin, shape = [], []
    for (low, high), (below, above) in zip((box.z_mm, box.y_mm, box.x_mm), low_high, strict=True):
        start = low - below - 2 * _FINE_MM
        # An even number of fine voxels, so that two make one of the result.
        count = 2 * int(np.ceil((high + above + 2 * _FINE_MM - start) / (2 * _FINE_MM)))
        origin.append(start + _FINE_MM / 2)
        shape.append(count)
    require(
        math.prod(shape) <= MAX_FINE_VOXELS,
        f'structure "{structure.name}" is too large for a margin: '
        + " x ".join(f"{count * _FINE_MM:.0f}" for count in reversed(shape))
        + " mm",
    )
    fine = Grid((origin[2], origin[1], origin[0]), (_FINE_MM,) * 3, (shape[0], shape[1], shape[2]))
    cost = np.where(fraction_on(structure, fine) >= 0.5, 0.0, np.inf).astype(np.float32)
    for axis, (below, above) in enumerate(low_high):
        cost = _grow(cost, axis, below / _FINE_MM, above / _FINE_MM)
    occupancy = _halved(cost <= 1.0 + 1e-6)
    z = fine.axes_zyx_mm[0].reshape(-1, 2).mean(axis=1)
    corner = (origin[2] + _FINE_MM / 2, origin[1] + _FINE_MM / 2)
    return Structure(name, role, occupancy, z, corner, (2 * _FINE_MM, 2 * _FINE_MM))


def _grow(cost_zyx: Float32Array, axis: int, below: float, above: float) -> Float32Array:
    """Least, over shifts, of cost + (shift / margin)^2 along one axis; margins in voxels."""
    source = np.moveaxis(cost_zyx, axis, 0)
    grown = source.copy()
    for step in range(1, int(below) + 1):
        np.minimum(grown[:-step], source[step:] + np.float32((step / below) ** 2), out=grown[:-step])
    for step in range(1, int(above) + 1):
        np.minimum(grown[step:], source[:-step] + np.float32((step / above) ** 2), out=grown[step:])
    return np.moveaxis(grown, 0, axis)


def _halved(inside: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Float32Array:
    """Mean of 2 x 2 x 2 blocks."""
    nz, ny, nx = inside.shape
    blocks = inside.reshape(nz // 2, 2, ny // 2, 2, nx // 2, 2)
    return np.asarray(blocks.mean(axis=(1, 3, 5)), dtype=np.float32)
