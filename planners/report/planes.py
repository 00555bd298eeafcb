"""What a picture of one seed plane shows: outlines, isodose lines and seeds, as polylines in mm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from trocar.planners.report.style import ISODOSES
from trocar.planners.types import ROLES, Float64Array

if TYPE_CHECKING:
    from contourpy import ContourGenerator

    from trocar.planners.pipeline import PlanResult
    from trocar.planners.types import Plan

Polylines = tuple[Float64Array, ...]
# A seed this near a plane is drawn as lying in it.
IN_PLANE_MM = 1.0
MAX_SEED_PLANES = 24
GATHERED_PITCH_MM = 5.0
MARGIN_MM = 7.0
MARGIN_POSTERIOR_MM = 13.0


@dataclass(frozen=True, slots=True)
class View:
    """The rectangle of the patient that is shown, LPS mm: x to the patient's left, y posterior."""

    x_mm: tuple[float, float]
    y_mm: tuple[float, float]

    @property
    def width_mm(self) -> float:
        """Extent along x."""
        return self.x_mm[1] - self.x_mm[0]

    @property
    def height_mm(self) -> float:
        """Extent along y."""
        return self.y_mm[1] - self.y_mm[0]


@dataclass(frozen=True, slots=True)
class PlanePicture:
    """One axial plane. Lines are (n, 2) arrays of x, y; `wash` is the area at 100 % or more, even-odd."""

    z_mm: float
    outlines: Mapping[str, Polylines]
    isodoses: Mapping[int, Polylines]
    wash: Polylines
    seeds_xy_mm: Float64Array
    near_seeds_xy_mm: Float64Array


def plane_pictures(result: PlanResult) -> tuple[View, tuple[PlanePicture, ...]]:
    """Return what to draw of every seed plane, base (largest z) first, and the view they share."""
    view = _view(result)
    grid = result.anatomy.grid
    z_axis, y_axis, x_axis = grid.axes_zyx_mm
    columns = _window(x_axis, view.x_mm)
    rows = _window(y_axis, view.y_mm)
    x, y = x_axis[columns], y_axis[rows]
    planes_mm = plane_positions_mm(result)
    owner = _nearest(planes_mm, result.plan.seeds_xyz_mm[:, 2])
    pictures = []
    for index, z_mm in enumerate(planes_mm):
        layer = int(np.argmin(np.abs(z_axis - z_mm)))
        dose = _contours(x, y, result.dose_gy[layer, rows, columns])
        seeds = result.plan.seeds_xyz_mm[owner == index]
        seeds = seeds[np.abs(seeds[:, 2] - z_mm) <= GATHERED_PITCH_MM]
        in_plane = np.abs(seeds[:, 2] - z_mm) <= IN_PLANE_MM
        pictures.append(
            PlanePicture(
                z_mm=float(z_mm),
                outlines={
                    role: _contours(x, y, result.anatomy.fractions[role][layer, rows, columns]).lines(0.5)
                    for role in ROLES
                    if role in result.anatomy.fractions
                },
                isodoses={
                    percent: dose.lines(percent / 100.0 * result.plan.prescription_gy) for percent in ISODOSES
                },
                wash=dose.areas(result.plan.prescription_gy),
                seeds_xy_mm=seeds[in_plane, :2],
                near_seeds_xy_mm=seeds[~in_plane, :2],
            )
        )
    return view, tuple(pictures)


def plane_positions_mm(result: PlanResult) -> Float64Array:
    """Return the z of the planes worth a picture, descending.

    They are where seeds lie, and every lattice plane that crosses the PTV, so that a cold plane
    without seeds is seen too. Seeds off any lattice (an implant as it was placed) are gathered in planes
    5 mm apart.
    """
    grid_z = result.anatomy.grid.axes_zyx_mm[0]
    seed_z = np.unique(np.round(result.plan.seeds_xyz_mm[:, 2], 1))
    seed_z = seed_z[(seed_z >= grid_z[0]) & (seed_z <= grid_z[-1])]  # elsewhere there is no dose to show
    lattice = result.plan.lattice
    if len(seed_z) > MAX_SEED_PLANES:
        steps = np.unique(np.round((seed_z - seed_z[0]) / GATHERED_PITCH_MM))
        seed_z = seed_z[0] + GATHERED_PITCH_MM * steps
    elif lattice:
        z = lattice.planes.z0_mm + lattice.planes.pitch_mm * np.arange(lattice.planes.count)
        low, high = _extent(result, "ptv" if "ptv" in result.anatomy.fractions else "ctv", axis=0)
        crossing = z[(z >= low) & (z <= high)]
        extra = [plane for plane in crossing if not np.any(np.abs(seed_z - plane) <= IN_PLANE_MM)]
        seed_z = np.concatenate([seed_z, extra])
    return np.sort(seed_z)[::-1]


def silhouette(result: PlanResult, role: str) -> Polylines:
    """Return a structure's outline as seen along the needles: its largest extent over all planes."""
    _, y, x = result.anatomy.grid.axes_zyx_mm
    return _contours(x, y, result.anatomy.fractions[role].max(axis=0)).lines(0.5)


def reference_plane_mm(plan: Plan) -> float:
    """Return the z of the seed nearest the base: where retraction counts from."""
    return float(plan.seeds_xyz_mm[:, 2].max()) if len(plan.seeds_xyz_mm) else 0.0


@dataclass(frozen=True, slots=True)
class _Contours:
    """Level lines and areas of one slice; the casts name what the requested line and fill types return."""

    generator: ContourGenerator

    def lines(self, level: float) -> Polylines:
        return tuple(cast("list[Float64Array]", self.generator.lines(level)))

    def areas(self, level: float) -> Polylines:
        filled = self.generator.filled(level, np.inf)
        points, offsets = cast("tuple[list[Float64Array], list[npt.NDArray[np.uint32]]]", filled)
        return tuple(
            ring
            for polygon, starts in zip(points, offsets, strict=True)
            for ring in np.split(polygon, starts[1:-1])
        )


def _contours(x_mm: Float64Array, y_mm: Float64Array, values_yx: npt.NDArray[np.float32]) -> _Contours:
    from contourpy import contour_generator

    return _Contours(contour_generator(x_mm, y_mm, values_yx, line_type="Separate", fill_type="OuterOffset"))


def _nearest(planes_mm: Float64Array, z_mm: Float64Array) -> npt.NDArray[np.intp]:
    return (
        np.argmin(np.abs(z_mm[:, None] - planes_mm[None, :]), axis=1)
        if len(planes_mm)
        else z_mm.astype(np.intp)
    )


def _view(result: PlanResult) -> View:
    target = "ptv" if "ptv" in result.anatomy.fractions else "ctv"
    _, grid_y, grid_x = result.anatomy.grid.axes_zyx_mm
    sides = []
    for axis, after, limits in ((2, MARGIN_MM, grid_x), (1, MARGIN_POSTERIOR_MM, grid_y)):
        low, high = _extent(result, target, axis)
        seeds = result.plan.seeds_xyz_mm[:, 2 - axis]
        if len(seeds):
            low, high = min(low, float(seeds.min())), max(high, float(seeds.max()))
        sides.append((max(low - MARGIN_MM, limits[0]), min(high + after, limits[-1])))
    (x0, x1), (y0, y1) = sides
    return View((float(x0), float(x1)), (float(y0), float(y1)))


def _extent(result: PlanResult, role: str, axis: int) -> tuple[float, float]:
    others = tuple(other for other in range(3) if other != axis)
    covered = np.flatnonzero(result.anatomy.fractions[role].max(axis=others) >= 0.5)
    line = result.anatomy.grid.axes_zyx_mm[axis]
    if not len(covered):
        return float(line[0]), float(line[-1])
    return float(line[covered[0]]), float(line[covered[-1]])


def _window(axis_mm: Float64Array, limits_mm: tuple[float, float]) -> slice:
    first = min(int(np.searchsorted(axis_mm, limits_mm[0] - 1e-6)), len(axis_mm) - 2)
    last = int(np.searchsorted(axis_mm, limits_mm[1] + 1e-6))
    return slice(first, max(last, first + 2))
