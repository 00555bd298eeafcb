"""Distance, coverage and shape kernels, with their NumPy references.

A reference is the kernel's specification: plain, slow, and what the tests compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trocar.runtime.kernels import _native

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]


def distance_transform(
    mask_zyx: npt.NDArray[np.bool_], spacing_zyx_mm: tuple[float, float, float], *, per_slice: bool = False
) -> Float32Array:
    """Exact Euclidean distance from every voxel centre to the nearest True voxel's centre.

    Parameters
    ----------
    mask_zyx : (nz, ny, nx) bool.
    spacing_zyx_mm : voxel pitch, each > 0.
    per_slice : measure within each z slice alone.

    Returns
    -------
    (nz, ny, nx) float32, mm; infinite where there is nothing to measure to.

    References
    ----------
    Felzenszwalb and Huttenlocher, Distance transforms of sampled functions, Theory of Computing 8, 2012.
    """
    mask = np.ascontiguousarray(mask_zyx, dtype=np.uint8)
    out = np.empty(mask.shape, dtype=np.float32)
    if mask.size:
        dz, dy, dx = map(float, spacing_zyx_mm)
        _native.distance_transform(mask, dz, dy, dx, per_slice, out)
    return out


def distance_transform_reference(
    mask_zyx: npt.NDArray[np.bool_], spacing_zyx_mm: tuple[float, float, float], *, per_slice: bool = False
) -> Float64Array:
    """`distance_transform` by comparing every voxel with every True voxel."""
    index = np.indices(mask_zyx.shape).reshape(3, -1).T
    apart = (index[:, None, :] - index[None, mask_zyx.ravel(), :]) * np.asarray(
        spacing_zyx_mm, dtype=np.float64
    )
    squared = (apart**2).sum(axis=2)
    if per_slice:
        squared[apart[:, :, 0] != 0.0] = np.inf
    nearest = squared.min(axis=1, initial=np.inf)
    return np.asarray(np.sqrt(nearest).reshape(mask_zyx.shape), dtype=np.float64)


def signed_slices(occupancy_zyx: Float32Array, spacing_yx_mm: tuple[float, float]) -> Float32Array:
    """Signed distance of each slice to its half-covered level, negative inside, mm.

    The level's points are where rows and columns of pixel centres cross 0.5 (by linear interpolation),
    so a partly covered pixel moves the boundary by less than a pixel. Each slice is then shifted by at
    most half a pixel so that its zero level holds the slice's area.

    Parameters
    ----------
    occupancy_zyx : (nz, ny, nx) float32, 0 to 1, with an empty rim; ny and nx at least 2.

    Returns
    -------
    (nz, ny, nx) float32; infinite in a slice where no pixel is half covered.
    """
    occupancy = np.ascontiguousarray(occupancy_zyx, dtype=np.float32)
    out = np.empty_like(occupancy)
    if occupancy.size:
        dy, dx = map(float, spacing_yx_mm)
        _native.signed_slices(occupancy, dy, dx, out)
    return out


def signed_slice_reference(occupancy_yx: Float32Array, spacing_yx_mm: tuple[float, float]) -> Float64Array:
    """One slice of `signed_slices` before the shift that keeps the area."""
    inside = occupancy_yx >= 0.5
    level: list[npt.NDArray[np.float64]] = []
    for axis in (0, 1):
        low = np.delete(occupancy_yx, -1, axis=axis).astype(np.float64)
        high = np.delete(occupancy_yx, 0, axis=axis).astype(np.float64)
        at = np.argwhere((low >= 0.5) != (high >= 0.5)).astype(np.float64)
        step = (high - low)[(low >= 0.5) != (high >= 0.5)]
        at[:, axis] += (0.5 - low[(low >= 0.5) != (high >= 0.5)]) / step
        level.append(at)
    index = np.indices(occupancy_yx.shape).reshape(2, -1).T
    apart = (index[:, None, :] - np.concatenate(level)[None]) * np.asarray(spacing_yx_mm)
    away = np.sqrt((apart**2).sum(axis=2).min(axis=1, initial=np.inf)).reshape(occupancy_yx.shape)
    return np.asarray(np.where(inside, -away, away), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Blend:
    """Which source slices make each target plane.

    Row m adds `weight[m]` times the shape at `t[m]` between `slices[m]` (0 at the first, 1 at the
    second) to target plane `plane[m]`; each slice is first moved by `shift_xy_mm[m]`, and the blend is
    grown outwards by `grow_mm[m]`.
    """

    plane: npt.NDArray[np.int32]
    slices: npt.NDArray[np.int32]
    t: Float64Array
    weight: Float64Array
    shift_xy_mm: Float64Array
    grow_mm: Float64Array


@dataclass(frozen=True, slots=True)
class PlaneGrid:
    """An in-plane grid: centre of its first pixel and its pitch."""

    origin_xy_mm: tuple[float, float]
    spacing_yx_mm: tuple[float, float]


def blend_planes(
    distance_zyx_mm: Float32Array,
    source: PlaneGrid,
    blend: Blend,
    target: PlaneGrid,
    shape_zyx: tuple[int, int, int],
    *,
    split: int,
) -> Float32Array:
    """Covered fraction of target pixels from signed distances of source slices.

    Slices are sampled bilinearly at `split` x `split` points of each target pixel, blended linearly,
    and turned into coverage by a ramp as wide as the sample's pitch. Beyond the source's rim the
    distance grows by what a sample lies outside.

    Returns
    -------
    `shape_zyx` float32.
    """
    out = np.zeros(shape_zyx, dtype=np.float32)
    if out.size and len(blend.plane):
        (from_x, from_y), (from_dy, from_dx) = source.origin_xy_mm, source.spacing_yx_mm
        (to_x, to_y), (to_dy, to_dx) = target.origin_xy_mm, target.spacing_yx_mm
        _native.blend_planes(
            np.ascontiguousarray(distance_zyx_mm, dtype=np.float32),
            float(from_x),
            float(from_y),
            float(from_dx),
            float(from_dy),
            blend.plane,
            blend.slices,
            blend.t,
            blend.weight,
            blend.shift_xy_mm,
            blend.grow_mm,
            float(to_x),
            float(to_y),
            float(to_dx),
            float(to_dy),
            split,
            out,
        )
    return out


def _sampled(
    slice_mm: Float64Array, source: PlaneGrid, y_mm: Float64Array, x_mm: Float64Array
) -> Float64Array:
    """Bilinear values of a slice on the product of two axes, growing beyond its rim."""
    cells, weights, beyond = [], [], []
    origin_yx, spacing_yx = source.origin_xy_mm[::-1], source.spacing_yx_mm
    for at_mm, origin, step, count in zip((y_mm, x_mm), origin_yx, spacing_yx, slice_mm.shape, strict=True):
        at = (at_mm - origin) / step
        held = np.clip(at, 0.0, count - 1.0)
        cell = np.minimum(held.astype(int), count - 2)
        cells.append(cell)
        weights.append(held - cell)
        beyond.append(np.abs(at - held) * step)
    (y, x), (wy, wx) = cells, weights
    low = slice_mm[y] * (1 - wy)[:, None] + slice_mm[y + 1] * wy[:, None]
    values = low[:, x] * (1 - wx) + low[:, x + 1] * wx
    return np.asarray(values + beyond[0][:, None] + beyond[1], dtype=np.float64)


def blend_planes_reference(
    distance_zyx_mm: Float32Array,
    source: PlaneGrid,
    blend: Blend,
    target: PlaneGrid,
    shape_zyx: tuple[int, int, int],
    *,
    split: int,
) -> Float64Array:
    """`blend_planes` in float64."""
    _, ny, nx = shape_zyx
    (sy, sx), (ox, oy) = target.spacing_yx_mm, target.origin_xy_mm
    x = ox - sx / 2 + (np.arange(nx * split) + 0.5) * sx / split
    y = oy - sy / 2 + (np.arange(ny * split) + 0.5) * sy / split
    out = np.zeros(shape_zyx)
    distance = distance_zyx_mm.astype(np.float64)
    for m, plane in enumerate(blend.plane):
        value = np.full((len(y), len(x)), -blend.grow_mm[m])
        for s, scale in enumerate((1.0 - blend.t[m], blend.t[m])):
            if scale > 0.0:
                shift_x, shift_y = blend.shift_xy_mm[m, s]
                value += scale * _sampled(distance[blend.slices[m, s]], source, y - shift_y, x - shift_x)
        covered = np.clip(0.5 - value * 2 * split / (sx + sy), 0.0, 1.0)
        out[plane] += blend.weight[m] * covered.reshape(ny, split, nx, split).mean(axis=(1, 3))
    return out


def cover_polygons(
    slices: Sequence[Sequence[Float64Array]], shape_yx: tuple[int, int], *, lines: int = 16
) -> Float32Array:
    """Even-odd coverage of pixels by closed polygons, slice by slice.

    Exact along x on `lines` scan lines a pixel row, the midpoint rule along y. Polygons of a slice
    combine by even-odd: a contour within another is a hole, whichever way it turns.

    Parameters
    ----------
    slices : per slice, polygons (n, 2) in pixels; pixel (row, column) spans [column, column + 1] along
        x and [row, row + 1] along y.

    Returns
    -------
    (slices, ny, nx) float32, 0 to 1.
    """
    out = np.zeros((len(slices), *shape_yx), dtype=np.float32)
    polygons = [polygon for polygons in slices for polygon in polygons]
    if polygons and out.size:
        starts = np.cumsum([0, *map(len, polygons)], dtype=np.int64)
        slice_starts = np.cumsum([0, *map(len, slices)], dtype=np.int64)
        points = np.ascontiguousarray(np.concatenate(polygons), dtype=np.float64)
        _native.cover_polygons(points, starts, slice_starts, lines, out)
        np.minimum(out, 1.0, out=out)
    return out
