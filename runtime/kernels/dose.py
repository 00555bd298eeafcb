"""Typed front of the line source kernels: arrays in, arrays out; tables, no medicine.

A line source is a radial function g (log-linear between nodes, constant below the first, exponential
beyond the last), a bilinear table f(radius, angle) and the angle its length subtends. All lengths share
one unit. The float64 specification is `trocar.planners.dose.reference`; a GPU's values have the CPU's
bits. What ends in `_into` writes a buffer of the caller's on any device (see `devices`); the rest
allocate a NumPy array for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels import devices
from trocar.runtime.kernels.devices import Array

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]

ROW_PADDING = 16
"""Kernel rows carry this many spare values, less one, so that rows are added in whole registers."""

_RADIAL_STEPS = (0.25, 0.05, 0.01, 0.005, 0.001)
_ANGULAR_STEPS_DEG = (5.0, 1.0, 0.5, 0.1)
_MAX_BINS = 65_536
_MAX_THREADS = 64
_ON_EDGE = 1e-9


@dataclass(frozen=True, slots=True)
class LineSource:
    """A line source's tables, laid out for the native kernels, on every device where it was needed."""

    tables: tuple[Any, ...]
    _placed: dict[tuple[str, int], Any] = field(default_factory=dict, repr=False, compare=False)

    def on(self, target: devices.Target) -> Any:
        """Return the tables on the device of a call; copied there by the first one."""
        place = (target.device, target.index)
        if place not in self._placed:
            self._placed[place] = target.native.LineSource(*self.tables, target.index)
        return self._placed[place]


@dataclass(frozen=True, slots=True)
class Kernel:
    """One source's dose around it on a grid, stored once for every distinct slab and row.

    Parameters
    ----------
    values : (slabs, rows, nx) float32, C order, `ROW_PADDING - 1` spare values at the end of each row.
    slab_of_z, row_of_y : (nz,), (ny,) int32, the slab and row that serve each offset.
    first_zyx : the offset, in voxels from the source, of the first slab, row and value.
    """

    values: Float32Array
    slab_of_z: Int32Array
    row_of_y: Int32Array
    first_zyx: tuple[int, int, int]


def line_source(
    *,
    length: float,
    clearance: float,
    scale: float,
    g_radius: Float64Array,
    g: Float64Array,
    f_radius: Float64Array,
    f_angle_deg: Float64Array,
    f: Float64Array,
) -> LineSource:
    """Lay out tables for lookup.

    Parameters
    ----------
    length, clearance : the active length, and the least distance from its axis beside it.
    scale : what geometry x g x f is multiplied by.
    g_radius, g : (n,) increasing, positive.
    f_radius, f_angle_deg, f : (nr,), (nt,), (nr, nt); a table that ends at 90 degrees is mirrored.

    Raises
    ------
    InvalidInput : nodes too close together for the lookup.
    """
    radial_nodes = np.union1d(g_radius, f_radius)
    radial_step = _bin_step([radial_nodes], _RADIAL_STEPS, "radii")
    log2_g = np.log2(g)
    slope = (log2_g[-1] - log2_g[-2]) / (g_radius[-1] - g_radius[-2])
    bins = int(np.ceil(radial_nodes[-1] / radial_step - 1e-9)) + 1
    g_lines = _bin_lines(
        g_radius / radial_step, log2_g, slope * radial_step, bins, radial_nodes / radial_step
    )
    f_radius, f = (
        (f_radius, f) if f_radius.size > 1 else (np.append(f_radius, f_radius + 1), np.repeat(f, 2, 0))
    )
    row_lines = _bin_lines(
        f_radius / radial_step, np.arange(f_radius.size), 0.0, bins, radial_nodes / radial_step
    )
    halves = _halves(f_angle_deg, f)
    angular_step = _bin_step([angle for angle, _ in halves], _ANGULAR_STEPS_DEG, "angles")
    bins = int(np.ceil(90.0 / angular_step - 1e-9)) + 1
    column_lines = [
        _bin_lines(angle / angular_step, np.arange(angle.size), 0.0, bins, angle / angular_step)
        for angle, _ in halves
    ]
    radial = np.stack([*g_lines[:2], *row_lines[:2], g_lines[3], g_lines[2], row_lines[2]])
    angular = np.stack([[lines[k] for lines in column_lines] for k in (0, 1, 3, 2)])
    cells = np.concatenate([_bilinear_cells(table) for _, table in halves], axis=2) * scale
    hinged = bool(np.any(radial[5:]) or np.any(angular[3]))
    return LineSource(
        (
            length,
            clearance,
            1.0 / radial_step,
            np.degrees(1.0) / angular_step,
            halves[0][0].size - 1,
            hinged,
            *(np.ascontiguousarray(table, dtype=np.float32) for table in (radial, angular, cells)),
        )
    )


def dose_away_along(source: LineSource, away: Float32Array, along: Float32Array) -> Float32Array:
    """Dose at (n,) distances from the axis (not negative) and positions along it; float32 (n,)."""
    out = np.empty(np.shape(away), dtype=np.float32)
    dose_away_along_into(source, away, along, out)
    return out


def dose_away_along_into(
    source: LineSource, away: Array, along: Array, out: Array, *, stream: int | None = None
) -> None:
    """`dose_away_along` on any device, into (n,) float32.

    Raises
    ------
    InvalidInput : a shape, dtype, layout or device is wrong, or `out` overlaps an input.
    DeviceError : CUDA failed, or is not built in.
    """
    target = devices.target(stream, away=away, along=along, out=out)
    target.native.dose_away_along(source.on(target), away, along, out, target.stream)


def dose_points(
    source: LineSource,
    points: Float64Array,
    seeds: Float64Array,
    axes: Float64Array | None = None,
    *,
    threads: int = 1,
) -> Float64Array:
    """Summed dose of m seeds at n points.

    Parameters
    ----------
    points, seeds : (n, 3), (m, 3) float64, C order, in the tables' unit.
    axes : (m, 3) unit vectors; +z where absent.
    threads : the result does not depend on it.

    Returns
    -------
    (n,) float64, each term float32.
    """
    out = np.empty(len(points))
    dose_points_into(source, points, seeds, out, axes, threads=threads)
    return out


def dose_points_into(
    source: LineSource,
    points: Array,
    seeds: Array,
    out: Array,
    axes: Array | None = None,
    *,
    threads: int = 1,
    stream: int | None = None,
) -> None:
    """`dose_points` on any device, into (n,) float64.

    Raises
    ------
    InvalidInput : a shape, dtype, layout or device is wrong, or `out` overlaps an input.
    DeviceError : CUDA failed, or is not built in.
    """
    given = {} if axes is None else {"axes": axes}
    target = devices.target(stream, points=points, seeds=seeds, out=out, **given)
    target.native.dose_points(source.on(target), points, seeds, axes, out, _threads(threads), target.stream)


def dose_matrix(
    source: LineSource, seeds: Float64Array, points: Float64Array, *, threads: int = 1
) -> Float32Array:
    """Dose of each of m seeds along +z at each of n points: (m, n) float32, from float64 (m, 3), (n, 3)."""
    out = np.empty((len(seeds), len(points)), dtype=np.float32)
    dose_matrix_into(source, seeds, points, out, threads=threads)
    return out


def dose_matrix_into(
    source: LineSource,
    seeds: Array,
    points: Array,
    out: Array,
    *,
    threads: int = 1,
    stream: int | None = None,
) -> None:
    """`dose_matrix` on any device, into (m, n) float32.

    Raises
    ------
    InvalidInput : a shape, dtype, layout or device is wrong, or `out` overlaps an input.
    DeviceError : CUDA failed, or is not built in.
    """
    target = devices.target(stream, seeds=seeds, points=points, out=out)
    target.native.dose_matrix(source.on(target), seeds, points, out, _threads(threads), target.stream)


def superpose(
    out: Array,
    kernel: Kernel,
    seeds_zyx: Array,
    weight: float,
    *,
    threads: int = 1,
    stream: int | None = None,
) -> None:
    """Add the kernel at each of m voxels to a grid, in place, on the device of the arrays.

    Parameters
    ----------
    out : (nz, ny, nx) float32, C order, writable.
    kernel : reaches from every seed to every voxel of the grid.
    seeds_zyx : (m, 3) int32 voxel indices, inside the grid or not; ordered by z they run fastest.
    weight : what the kernel is multiplied by.
    threads : the result does not depend on it.
    stream : the CUDA stream, for arrays on a GPU.

    Raises
    ------
    InvalidInput : a shape, dtype, layout or device is wrong, or the kernel does not reach. A GPU reads the
        seeds after the call: there, a voxel that a seed's kernel does not reach becomes NaN.
    DeviceError : CUDA failed, or is not built in.
    """
    z0, y0, x0 = (-first for first in kernel.first_zyx)
    arrays = {
        "out": out,
        "kernel values": kernel.values,
        "kernel slabs": kernel.slab_of_z,
        "kernel rows": kernel.row_of_y,
        "seeds": seeds_zyx,
    }
    target = devices.target(stream, **arrays)
    target.native.superpose(
        out,
        kernel.values,
        kernel.slab_of_z,
        kernel.row_of_y,
        z0,
        y0,
        x0,
        seeds_zyx,
        weight,
        _threads(threads),
        target.stream,
    )


def _halves(
    angle_deg: Float64Array, f: Float64Array
) -> tuple[tuple[Float64Array, Float64Array], tuple[Float64Array, Float64Array]]:
    """The table's two halves, each over the angle from its own pole, 0 to 90 degrees."""
    if angle_deg[-1] <= 90.0:
        half = _over_quadrant(angle_deg, f)
        return half, half
    return _over_quadrant(angle_deg, f), _over_quadrant(180.0 - angle_deg[::-1], f[:, ::-1])


def _over_quadrant(angle_deg: Float64Array, f: Float64Array) -> tuple[Float64Array, Float64Array]:
    # The nodes at 0 and 90 degrees are put in where the table has none: its own interpolation there.
    inside = angle_deg[(angle_deg > 0.0) & (angle_deg < 90.0)]
    nodes = np.concatenate([[0.0], inside, [90.0]])
    return nodes, np.stack([np.interp(nodes, angle_deg, row) for row in f])


def _bilinear_cells(f: Float64Array) -> Float64Array:
    """(4, rows, columns) of F00, F01 - F00, F10 - F00, F11 - F10 - F01 + F00 for (rows + 1, columns + 1)."""
    corner, right, below, diagonal = f[:-1, :-1], f[:-1, 1:], f[1:, :-1], f[1:, 1:]
    return np.stack([corner, right - corner, below - corner, diagonal - below - right + corner])


def _bin_step(axes: Sequence[Float64Array], preferred: Sequence[float], name: str) -> float:
    """A bin width with every node on an edge; else one that leaves at most one node of an axis in a bin."""
    last = max(float(nodes[-1]) for nodes in axes)
    for step in preferred:
        if last / step < _MAX_BINS and not any(_off_edge(nodes / step).any() for nodes in axes):
            return step
    gap = min(float(np.diff(nodes).min()) for nodes in axes)
    _require(
        last / gap < _MAX_BINS / 2,
        f"{name}: expected nodes at least {2 * last / _MAX_BINS:.3g} apart, got {gap:.3g}",
    )
    return 0.99 * gap


def _off_edge(position: Float64Array) -> npt.NDArray[np.bool_]:
    return np.abs(position - np.rint(position)) >= _ON_EDGE


def _bin_lines(
    nodes: Float64Array, values: npt.NDArray[Any], last_slope: float, bins: int, all_nodes: Float64Array
) -> tuple[Float64Array, Float64Array, Float64Array, Float64Array]:
    """Intercept and slope of a piecewise linear function in each unit bin, and its bend inside the bin.

    Returns (a, b, c, node): a + b p + c max(p - node, 0). `all_nodes` places the hinges, so that two
    functions of one coordinate share them.
    """
    slopes = np.concatenate([[0.0], np.diff(values) / np.diff(nodes), [last_slope]])
    edges = np.arange(bins, dtype=np.float64)
    segment = np.searchsorted(nodes, edges + _ON_EDGE, side="right")
    anchor = np.maximum(segment - 1, 0)
    slope = slopes[segment]
    intercept = values[anchor] - slope * nodes[anchor]
    hinge, bend = np.zeros(bins), np.zeros(bins)
    inside = all_nodes[_off_edge(all_nodes)]
    hinge[inside.astype(np.intp)] = inside
    own = np.isin(nodes, inside)
    bend[nodes[own].astype(np.intp)] = np.diff(slopes)[own]
    return intercept, slope, bend, hinge


def _threads(threads: int) -> int:
    _require(1 <= threads <= _MAX_THREADS, f"threads: expected 1 to {_MAX_THREADS}, got {threads}")
    return threads


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InvalidInput(message)
