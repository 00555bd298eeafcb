"""The native dose engine: exact evaluation anywhere, superposition of a precomputed kernel on a grid."""

from __future__ import annotations

import math
import threading

import numpy as np
import numpy.typing as npt

from trocar.planners.dose.reference import (
    CLEARANCE_CM,
    geometry_function,
    total_dose_factor_h,
    unit_directions,
    vectors,
)
from trocar.planners.dose.source import SourceModel
from trocar.planners.types import Float32Array, Float64Array, Grid, require
from trocar.runtime.kernels import dose as kernels

MM_PER_CM = 10.0
MAX_GRID_VOXELS = 200_000_000
MAX_CACHED_KERNELS = 32
OFFSET_DECIMALS_MM = 7  # seeds whose sub-voxel offsets agree to this share a kernel

Offset = tuple[float, float, float]


class DoseEngine:
    """TG-43U1 dose of one source, float32 tables, within 1e-5 of `trocar.planners.dose.reference`.

    Safe to share between threads: the only state is a cache of kernels, behind a lock. Results do not
    depend on the number of threads, on what was computed before, nor on the processor.

    Parameters
    ----------
    source : the source model.
    """

    def __init__(self, source: SourceModel) -> None:
        self.source = source
        at_reference = float(geometry_function(source.length_cm, np.float64(1.0), np.float64(0.0)))
        self.table = kernels.line_source(
            length=source.length_cm,
            clearance=CLEARANCE_CM,
            scale=source.dose_rate_constant_cgy_h_u / at_reference * total_dose_factor_h(source) / 100.0,
            g_radius=source.g_r_cm,
            g=source.g,
            f_radius=source.f_r_cm,
            f_angle_deg=source.f_theta_deg,
            f=source.f,
        )
        self._kernels: dict[tuple[Offset, tuple[float, float, float]], kernels.Kernel] = {}
        self._lock = threading.Lock()

    def grid_gy(
        self, seeds_xyz_mm: npt.ArrayLike, strength_u: float, grid: Grid, *, threads: int = 1
    ) -> Float32Array:
        """Total dose on a grid from seeds along +z.

        Seeds that share a sub-voxel offset (a lattice's all do) share one precomputed kernel, which is
        exact at voxel centres; where the seeds have so many offsets that the kernels would cost more
        than they save, every voxel is evaluated instead.

        Parameters
        ----------
        seeds_xyz_mm : (m, 3) seed centres, patient frame.
        strength_u : air-kerma strength of each seed, U.
        grid : the voxel centres.
        threads : worker threads.

        Returns
        -------
        float32 zyx, Gy.

        Raises
        ------
        InvalidInput : shapes, values or the grid are not usable.
        """
        seeds = vectors(seeds_xyz_mm, "seeds")
        _require_strength(strength_u)
        _require_grid(grid)
        spacing_xyz_mm = np.array(grid.spacing_zyx_mm[::-1])
        position = (seeds - np.array(grid.origin_xyz_mm)) / spacing_xyz_mm
        nearest = np.rint(position).astype(np.int64)
        offsets_mm = np.round((position - nearest) * spacing_xyz_mm, OFFSET_DECIMALS_MM) + 0.0
        distinct, group = np.unique(offsets_mm, axis=0, return_inverse=True)
        reach = _reach(grid, nearest[:, ::-1])
        values = sum(self._kernel_size(tuple(offset), reach) for offset in distinct)
        voxels = math.prod(grid.shape_zyx)
        if values > len(seeds) * voxels:
            return self._exact_grid(seeds, strength_u, grid, threads)
        dose_gy = np.zeros(grid.shape_zyx, dtype=np.float32)
        for index, offset in enumerate(distinct):
            kernel = self._kernel(tuple(offset), grid.spacing_zyx_mm, reach)
            members = nearest[group.reshape(-1) == index][:, ::-1]
            members = members[np.argsort(members[:, 0], kind="stable")].astype(np.int32)
            kernels.superpose(dose_gy, kernel, members, strength_u, threads=threads)
        return dose_gy

    def points_gy(
        self,
        seeds_xyz_mm: npt.ArrayLike,
        strength_u: float,
        points_xyz_mm: npt.ArrayLike,
        *,
        directions_xyz: npt.ArrayLike | None = None,
        threads: int = 1,
    ) -> Float64Array:
        """Total dose at any points from seeds of any orientation.

        Parameters
        ----------
        seeds_xyz_mm : (m, 3) seed centres, patient frame.
        strength_u : air-kerma strength of each seed, U.
        points_xyz_mm : (n, 3) patient frame.
        directions_xyz : (m, 3) each seed's own +z axis; +z of the patient frame if absent.
        threads : worker threads.

        Returns
        -------
        (n,) float64, Gy.

        Raises
        ------
        InvalidInput : a shape is wrong, a value is not finite, or a direction has no length.
        """
        seeds = vectors(seeds_xyz_mm, "seeds")
        points = vectors(points_xyz_mm, "points")
        _require_strength(strength_u)
        axes = None if directions_xyz is None else unit_directions(directions_xyz, len(seeds))
        return strength_u * kernels.dose_points(
            self.table, points / MM_PER_CM, seeds / MM_PER_CM, axes, threads=threads
        )

    def matrix_gy_u(
        self, candidates_xyz_mm: npt.ArrayLike, points_xyz_mm: npt.ArrayLike, *, threads: int = 1
    ) -> Float32Array:
        """Total dose per U from every candidate seed along +z to every point.

        Parameters
        ----------
        candidates_xyz_mm : (c, 3) seed centres, patient frame.
        points_xyz_mm : (p, 3) patient frame.
        threads : worker threads.

        Returns
        -------
        (c, p) float32, Gy/U.
        """
        candidates = vectors(candidates_xyz_mm, "candidates")
        points = vectors(points_xyz_mm, "points")
        return kernels.dose_matrix(self.table, candidates / MM_PER_CM, points / MM_PER_CM, threads=threads)

    def _exact_grid(self, seeds: Float64Array, strength_u: float, grid: Grid, threads: int) -> Float32Array:
        dose_gy = np.empty(grid.shape_zyx, dtype=np.float32)
        z, y, x = grid.axes_zyx_mm
        points = np.empty((y.size, x.size, 3))
        points[..., 0], points[..., 1] = x, y[:, None]
        for plane, z_mm in zip(dose_gy, z, strict=True):
            points[..., 2] = z_mm
            plane[...] = self.points_gy(seeds, strength_u, points.reshape(-1, 3), threads=threads).reshape(
                plane.shape
            )
        return dose_gy

    def _kernel_size(self, offset_mm: Offset, reach: _Reach) -> int:
        nz, ny, nx = (last - first + 1 for first, last in reach)
        slabs = nz // 2 + 1 if offset_mm[2] == 0.0 and self.source.symmetric else nz
        rows = ny // 2 + 1 if offset_mm[1] == 0.0 else ny
        return slabs * rows * nx

    def _kernel(
        self, offset_mm: Offset, spacing_zyx_mm: tuple[float, float, float], reach: _Reach
    ) -> kernels.Kernel:
        key = (offset_mm, spacing_zyx_mm)
        with self._lock:
            kernel = self._kernels.pop(key, None)
            if kernel is None or not _covers(kernel, reach):
                kernel = self._build_kernel(offset_mm, spacing_zyx_mm, reach)
            self._kernels[key] = kernel  # the most recently used stands last
            while len(self._kernels) > MAX_CACHED_KERNELS:
                del self._kernels[next(iter(self._kernels))]
            return kernel

    def _build_kernel(
        self, offset_mm: Offset, spacing_zyx_mm: tuple[float, float, float], reach: _Reach
    ) -> kernels.Kernel:
        """Dose per U at every voxel offset within reach; slabs and rows at equal distances are stored once.

        The dose depends on the distance from the axis and the position along it alone, so that few
        distinct pairs are evaluated.
        """
        z_cm, y_cm, x_cm = (
            (np.arange(first, last + 1) * step - offset) / MM_PER_CM
            for (first, last), step, offset in zip(reach, spacing_zyx_mm, offset_mm[::-1], strict=True)
        )
        along, slab_of_z = np.unique(np.abs(z_cm) if self.source.symmetric else z_cm, return_inverse=True)
        rows, row_of_y = np.unique(np.abs(y_cm), return_inverse=True)
        away, cell = np.unique(np.hypot(rows[:, None], x_cm).astype(np.float32), return_inverse=True)
        dose = kernels.dose_away_along(
            self.table, np.tile(away, along.size), np.repeat(along.astype(np.float32), away.size)
        ).reshape(along.size, away.size)
        width = x_cm.size + kernels.ROW_PADDING - 1
        values = np.zeros((along.size, rows.size, width), dtype=np.float32)
        values[:, :, : x_cm.size] = dose[:, cell.reshape(rows.size, x_cm.size)]
        return kernels.Kernel(
            values,
            slab_of_z.astype(np.int32),
            row_of_y.astype(np.int32),
            (reach[0][0], reach[1][0], reach[2][0]),
        )


_Reach = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def _reach(grid: Grid, seeds_zyx: npt.NDArray[np.int64]) -> _Reach:
    """First and last offset, voxel minus seed, by axis: from any grid voxel and every seed to any voxel."""
    spans = []
    for axis, count in enumerate(grid.shape_zyx):
        low = min(0, int(seeds_zyx[:, axis].min(initial=0)))
        high = max(count - 1, int(seeds_zyx[:, axis].max(initial=0)))
        spans.append((-high, count - 1 - low))
    return spans[0], spans[1], spans[2]


def _covers(kernel: kernels.Kernel, reach: _Reach) -> bool:
    counts = (
        kernel.slab_of_z.size,
        kernel.row_of_y.size,
        kernel.values.shape[2] - kernels.ROW_PADDING + 1,
    )
    return all(
        have <= first and have + count > last
        for have, count, (first, last) in zip(kernel.first_zyx, counts, reach, strict=True)
    )


def _require_strength(strength_u: float) -> None:
    require(
        math.isfinite(strength_u) and strength_u >= 0.0,
        f"strength: expected a finite U of at least 0, got {strength_u}",
    )


def _require_grid(grid: Grid) -> None:
    require(
        all(math.isfinite(step) and step > 0 for step in grid.spacing_zyx_mm),
        f"grid spacing: expected positive mm, got {grid.spacing_zyx_mm}",
    )
    require(
        all(math.isfinite(value) for value in grid.origin_xyz_mm),
        f"grid origin: expected finite mm, got {grid.origin_xyz_mm}",
    )
    require(
        all(count >= 0 for count in grid.shape_zyx) and math.prod(grid.shape_zyx) <= MAX_GRID_VOXELS,
        f"grid shape: expected at most {MAX_GRID_VOXELS} voxels, got {grid.shape_zyx}",
    )
