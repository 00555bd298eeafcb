"""Closed planar contours to a stack of slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trocar.planners.types import Float64Array, Structure, require
from trocar.runtime.kernels.geometry import cover_polygons

# Contours whose planes differ by less are on one slice; planning systems write z as decimal strings.
SAME_PLANE_MM = 0.01
MAX_PIXELS = 30_000_000
# Outlines are followed on this many lines a pixel row; the limit is on the crossings of all of them.
LINES = 16
MAX_CROSSINGS = 50_000_000


def pixel_mm_for(extent_mm: float) -> float:
    """A pixel that resolves an organ of this size: a sixtieth of it, 0.4 to 1 mm."""
    return float(np.clip(extent_mm / 60.0, 0.4, 1.0))


def rasterise_contours(
    name: str,
    role: str,
    contours: Sequence[tuple[float, Float64Array]],
    *,
    pixel_mm: float | None = None,
) -> Structure:
    """A structure from closed polygons in axial planes.

    Polygons of a plane combine by even-odd, so a contour within another is a hole; a key-hole contour
    (a hole joined to its outline by a double edge) works out the same.

    Parameters
    ----------
    contours : (z_mm, (n, 2) x, y mm) each, in any order; planes may be unevenly spaced.
    pixel_mm : pixel pitch; None picks it from the structure's size.

    Raises
    ------
    InvalidInput
        No contour, one plane only, fewer than 3 points, a coordinate that is not finite, no area.
    """
    require(len(contours) > 0, f'structure "{name}" has no closed contour')
    for z_mm, points in contours:
        require(
            points.ndim == 2 and points.shape[1] == 2 and len(points) >= 3,
            f'structure "{name}": a contour at z = {z_mm:g} mm needs 3 points (x, y) or more, '
            f"got shape {points.shape}",
        )
        require(
            bool(np.isfinite(points).all()) and bool(np.isfinite(z_mm)),
            f'structure "{name}": a contour at z = {z_mm:g} mm has a coordinate that is not finite',
        )
    z, slices = _by_plane(contours)
    require(
        len(z) >= 2,
        f'structure "{name}" is contoured on one plane only (z = {z[0]:g} mm): its thickness is unknown',
    )
    points = np.concatenate([polygon for polygons in slices for polygon in polygons])
    low, high = points.min(axis=0), points.max(axis=0)
    pixel = pixel_mm if pixel_mm is not None else pixel_mm_for(float((high - low).max()))
    # Half a pixel of air on the low side keeps the outline off the pixel edges of even-sized organs.
    corner = low - 0.5 * pixel
    nx, ny = (float(count) for count in np.ceil((high - corner) / pixel) + 1)
    require(
        nx * ny * len(z) <= MAX_PIXELS,
        f'structure "{name}" spans {high[0] - low[0]:.0f} x {high[1] - low[1]:.0f} mm on {len(z)} planes: '
        f"more than {MAX_PIXELS} pixels of {pixel:g} mm",
    )
    local = [[(polygon - corner) / pixel for polygon in polygons] for polygons in slices]
    climb = sum(float(np.abs(np.diff(p[:, 1], append=p[0, 1])).sum()) for polygons in local for p in polygons)
    require(
        climb * LINES <= MAX_CROSSINGS,
        f'structure "{name}": its outlines cross {climb * LINES:.0f} scan lines, more than {MAX_CROSSINGS}',
    )
    occupancy = cover_polygons(local, (int(ny), int(nx)), lines=LINES)
    require(bool((occupancy >= 0.5).any()), f'structure "{name}" encloses no area')
    x, y = corner + 0.5 * pixel
    return Structure(name, role, occupancy, z, (float(x), float(y)), (pixel, pixel))


def _by_plane(
    contours: Sequence[tuple[float, Float64Array]],
) -> tuple[Float64Array, list[list[Float64Array]]]:
    """Planes in ascending order and the polygons of each."""
    planes: list[float] = []
    slices: list[list[Float64Array]] = []
    for z_mm, points in sorted(contours, key=lambda contour: contour[0]):
        if not planes or z_mm - planes[-1] > SAME_PLANE_MM:
            planes.append(float(z_mm))
            slices.append([])
        slices[-1].append(np.asarray(points, dtype=np.float64))
    return np.array(planes), slices
