"""A stack of slices as a solid: where it ends, its volume, and its covered fraction on a grid.

Between slices the shape is the linear blend of the slices' signed distances (shape-based interpolation,
Raya and Udupa, IEEE TMI 9, 1990), with two corrections for coarse slices: each slice is first moved so
that the centroid travels in a straight line (without that a tilted tube gets thinner between slices), and
the blend is grown so that its area changes linearly (without that a dome loses what its slabs hold). The
first and last slice of a run extend half a slice, as treatment-planning systems do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trocar.planners.types import Anatomy, Case, Float32Array, Float64Array, Grid, Structure, require
from trocar.runtime.kernels.geometry import Blend, PlaneGrid, blend_planes, distance_transform, signed_slices

# Slices further apart than 10 mm and than 2.5 times the wider neighbouring gap are two pieces, not one.
SEPARATE_AT = 2.5
SEPARATE_MM = 10.0
_SAMPLE_PITCH_MM = 0.6
_PLANE_PITCH_MM = 1.0


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring slices that form one piece: indices `first` to `last`, filling `low_mm` to `high_mm`."""

    first: int
    last: int
    low_mm: float
    high_mm: float


@dataclass(frozen=True, slots=True)
class Extent:
    """An axis-aligned box around a structure, (low, high) per axis, mm."""

    x_mm: tuple[float, float]
    y_mm: tuple[float, float]
    z_mm: tuple[float, float]


def runs(structure: Structure) -> tuple[Run, ...]:
    """The pieces of a stack along z.

    A slice without a half-covered pixel ends a piece, and so does a gap of more than 10 mm that is more
    than 2.5 times the wider of its neighbours; a few slices left out are bridged.
    """
    z = structure.z_mm
    present = (structure.occupancy_zyx >= 0.5).any(axis=(1, 2))
    gaps = np.diff(z)
    pieces: list[tuple[int, int]] = []
    for index in map(int, np.flatnonzero(present)):
        if pieces and pieces[-1][1] == index - 1 and not _separate(gaps, index - 1):
            pieces[-1] = (pieces[-1][0], index)
        else:
            pieces.append((index, index))
    return tuple(
        Run(
            first,
            last,
            float(z[first]) - _half_slice(gaps, first, last, below=True),
            float(z[last]) + _half_slice(gaps, first, last, below=False),
        )
        for first, last in pieces
    )


def _separate(gaps: Float64Array, index: int) -> bool:
    beside = [gaps[i] for i in (index - 1, index + 1) if 0 <= i < len(gaps)]
    return bool(beside) and bool(gaps[index] > max(SEPARATE_MM, SEPARATE_AT * max(beside)))


def _half_slice(gaps: Float64Array, first: int, last: int, *, below: bool) -> float:
    """Half the slice pitch at an end of a run, never past the middle of the gap beyond it."""
    within, beyond = (first, first - 1) if below else (last - 1, last)
    room = gaps[beyond] if 0 <= beyond < len(gaps) else np.inf
    pitch = gaps[within] if first < last else np.median(gaps)
    return 0.5 * float(min(pitch, room))


def slab_volume_cc(structure: Structure) -> float:
    """Sum of slice areas times slice thickness, cm3; what counting voxels of the source gives."""
    area_mm2 = structure.occupancy_zyx.sum(axis=(1, 2), dtype=np.float64) * np.prod(structure.spacing_yx_mm)
    total = 0.0
    for run in runs(structure):
        middle = 0.5 * (structure.z_mm[run.first : run.last] + structure.z_mm[run.first + 1 : run.last + 1])
        thickness_mm = np.diff([run.low_mm, *middle, run.high_mm])
        total += float(area_mm2[run.first : run.last + 1] @ thickness_mm)
    return total / 1000.0


def extent_mm(structure: Structure) -> Extent:
    """The box around the half-covered pixels, with half a pixel and half a slice beyond them.

    Raises
    ------
    InvalidInput
        The structure is empty.
    """
    inside = structure.occupancy_zyx >= 0.5
    require(bool(inside.any()), f'structure "{structure.name}" is empty')
    pieces = runs(structure)
    sides = []
    axes = ((1, structure.origin_xy_mm[0], structure.spacing_yx_mm[1]), (0, *_y_axis(structure)))
    for axis, origin, step in axes:
        hit = np.flatnonzero(inside.any(axis=(0, 2 if axis == 0 else 1)))
        sides.append((float(origin + step * (hit[0] - 0.5)), float(origin + step * (hit[-1] + 0.5))))
    low, high = min(run.low_mm for run in pieces), max(run.high_mm for run in pieces)
    return Extent(x_mm=sides[0], y_mm=sides[1], z_mm=(low, high))


def _y_axis(structure: Structure) -> tuple[float, float]:
    return structure.origin_xy_mm[1], structure.spacing_yx_mm[0]


def _cropped(structure: Structure) -> tuple[Float32Array, PlaneGrid]:
    """The occupancy within its in-plane bounds plus an empty rim of one pixel."""
    occupied = np.any(structure.occupancy_zyx, axis=0)
    y, x = (np.flatnonzero(np.any(occupied, axis=axis)) for axis in (1, 0))
    if not len(y):
        y = x = np.array([0])
    held = structure.occupancy_zyx[:, y[0] : y[-1] + 1, x[0] : x[-1] + 1]
    (sy, sx), (ox, oy) = structure.spacing_yx_mm, structure.origin_xy_mm
    rim = PlaneGrid((ox + sx * (int(x[0]) - 1), oy + sy * (int(y[0]) - 1)), (sy, sx))
    return np.pad(held, ((0, 0), (1, 1), (1, 1))), rim


@dataclass(frozen=True, slots=True)
class _Moments:
    """Per slice: centroid (nz, 2) x, y; radius (nz,) of the disc of its area; whether it is one piece."""

    centroid_xy_mm: Float64Array
    radius_mm: Float64Array
    compact: npt.NDArray[np.bool_]


def _moments(occupancy_zyx: Float32Array, plane: PlaneGrid) -> _Moments:
    _, ny, nx = occupancy_zyx.shape
    (sy, sx), (ox, oy) = plane.spacing_yx_mm, plane.origin_xy_mm
    along = (occupancy_zyx.sum(axis=1, dtype=np.float64), occupancy_zyx.sum(axis=2, dtype=np.float64))
    pixels = along[0].sum(axis=1)
    held = np.maximum(pixels, 1e-12)
    axes = (ox + sx * np.arange(nx), oy + sy * np.arange(ny))
    centre = [(line @ axis) / held for line, axis in zip(along, axes, strict=True)]
    spread = [(line @ axis**2) / held - mean**2 for line, axis, mean in zip(along, axes, centre, strict=True)]
    radius = np.sqrt(pixels * sx * sy / np.pi)
    # A disc's second moment is r^2 / 2, a 3:1 ellipse's 0.83 r^2; parts lying apart and rings exceed r^2.
    return _Moments(np.stack(centre, axis=1), radius, spread[0] + spread[1] <= radius**2)


def _blend(structure: Structure, moments: _Moments, z_mm: Float64Array, dz_mm: float) -> Blend:
    """Which slices make each target plane: thin sub-planes, cut where a run ends."""
    split = max(1, int(np.ceil(dz_mm / _PLANE_PITCH_MM - 1e-9)))
    edges = z_mm[:, None] - dz_mm / 2 + dz_mm * np.arange(split) / split
    low, plane = edges.ravel(), np.repeat(np.arange(len(z_mm)), split)
    rows: list[tuple[npt.NDArray[np.int64], ...]] = []
    parts: list[tuple[Float64Array, Float64Array]] = []
    for run in runs(structure):
        start, stop = np.maximum(low, run.low_mm), np.minimum(low + dz_mm / split, run.high_mm)
        hit = stop > start
        middle, weight = (0.5 * (start + stop))[hit], ((stop - start) / dz_mm)[hit]
        stack = structure.z_mm[run.first : run.last + 1]
        at = np.interp(middle, stack, np.arange(len(stack), dtype=np.float64)) + run.first
        below = np.floor(at).astype(np.int64)
        rows.append((plane[hit], below, np.minimum(below + 1, run.last)))
        parts.append((at - below, weight))
    if not rows:
        rows, parts = [(np.zeros(0, np.int64),) * 3], [(np.zeros(0), np.zeros(0))]
    target, below, above = (np.concatenate(column) for column in zip(*rows, strict=True))
    t, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    radius_below, radius_above = moments.radius_mm[below], moments.radius_mm[above]
    travel = moments.centroid_xy_mm[above] - moments.centroid_xy_mm[below]
    # A jump of more than a diameter, or parts that lie apart, is a change of parts and not a tilt.
    tilt = np.hypot(travel[:, 0], travel[:, 1]) <= 2.0 * np.minimum(radius_below, radius_above)
    travel = np.where((tilt & moments.compact[below] & moments.compact[above])[:, None], travel, 0.0)
    shift = np.stack([travel * t[:, None], -travel * (1.0 - t)[:, None]], axis=1)
    grow = (
        np.sqrt((1.0 - t) * radius_below**2 + t * radius_above**2)
        - (1.0 - t) * radius_below
        - t * radius_above
    )
    slices = np.stack([below, above], axis=1).astype(np.int32)
    return Blend(target.astype(np.int32), slices, t, weight, np.ascontiguousarray(shift), grow)


def fraction_on(structure: Structure, grid: Grid) -> Float32Array:
    """Covered fraction of every voxel of a grid.

    Parameters
    ----------
    structure : a stack of slices, evenly spaced or not, in the grid's frame.

    Returns
    -------
    (nz, ny, nx) float32, 0 to 1.
    """
    out = np.zeros(grid.shape_zyx, dtype=np.float32)
    pieces = runs(structure)
    if not pieces:
        return out
    occupancy, source = _cropped(structure)
    distance = signed_slices(occupancy, source.spacing_yx_mm)
    _, ny, nx = occupancy.shape
    (sy, sx), (ox, oy) = source.spacing_yx_mm, source.origin_xy_mm
    bounds = (
        (min(run.low_mm for run in pieces), max(run.high_mm for run in pieces)),
        (oy, oy + sy * (ny - 1)),
        (ox, ox + sx * (nx - 1)),
    )
    window, axes = [], []
    for (low, high), axis, step in zip(bounds, grid.axes_zyx_mm, grid.spacing_zyx_mm, strict=True):
        hit = slice(*np.searchsorted(axis, (low - step, high + step)))
        window.append(hit)
        axes.append(axis[hit])
    if not all(map(len, axes)):
        return out
    dz, dy, dx = grid.spacing_zyx_mm
    blend = _blend(structure, _moments(occupancy, source), axes[0], dz)
    target = PlaneGrid((float(axes[2][0]), float(axes[1][0])), (dy, dx))
    split = max(1, int(np.ceil(max(dx, dy) / _SAMPLE_PITCH_MM)))
    shape = (len(axes[0]), len(axes[1]), len(axes[2]))
    part = blend_planes(distance, source, blend, target, shape, split=split)
    out[tuple(window)] = np.clip(part, 0.0, 1.0, out=part)
    return out


def anatomy(case: Case, grid: Grid) -> Anatomy:
    """Every structure of a case on one grid."""
    return Anatomy(grid, {role: fraction_on(item, grid) for role, item in case.structures.items()})


def distance_outside_mm(
    fraction_zyx: Float32Array, spacing_zyx_mm: tuple[float, float, float]
) -> Float32Array:
    """Distance of voxel centres to a volume's half-covered level, 0 inside, mm; half of the signed work.

    Returns
    -------
    (nz, ny, nx) float32; infinite where the volume is empty.
    """
    outward = distance_transform(fraction_zyx >= 0.5, spacing_zyx_mm) - np.float32(0.5 * min(spacing_zyx_mm))
    return np.asarray(np.maximum(outward, 0.0), dtype=np.float32)


def signed_distance_mm(
    fraction_zyx: Float32Array, spacing_zyx_mm: tuple[float, float, float]
) -> Float32Array:
    """Distance of voxel centres to a volume's half-covered level, negative inside, mm.

    Exact to about half a voxel: it is measured between voxel centres and moved by half a pitch.

    Returns
    -------
    (nz, ny, nx) float32; infinite (positive) where the volume is empty.
    """
    inside = fraction_zyx >= 0.5
    half = 0.5 * min(spacing_zyx_mm)
    outward = distance_transform(inside, spacing_zyx_mm) - half
    inward = half - distance_transform(~inside, spacing_zyx_mm)
    return np.where(inside, inward, outward).astype(np.float32)
