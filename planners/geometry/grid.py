"""The grid on which dose and volumes of a case are compared."""

from __future__ import annotations

import numpy as np

from trocar.planners.geometry.shape import Extent, extent_mm, slab_volume_cc
from trocar.planners.types import Anatomy, Case, Grid, Lattice, require

MAX_VOXELS = 20_000_000
_WHOLE = ("ctv", "ptv", "urethra")


def evaluation_grid(
    case: Case,
    lattice: Lattice,
    *,
    spacing_mm: float = 1.0,
    margin_mm: float = 6.0,
    organ_margin_mm: float = 15.0,
) -> Grid:
    """An axis-aligned grid on whose voxel centres every hole and plane of the lattice falls.

    It holds CTV, PTV and urethra with a margin, and of rectum and bladder what lies within
    `organ_margin_mm` of the target's box: their hottest cubic centimetres are there.

    Parameters
    ----------
    spacing_mm : largest voxel pitch; each axis takes the nearest smaller pitch that divides the
        lattice's.

    Raises
    ------
    InvalidInput
        The pitch is not positive, or the grid would hold more than 2e7 voxels.
    """
    require(
        bool(np.isfinite(spacing_mm)) and spacing_mm > 0, f"grid spacing: expected > 0 mm, got {spacing_mm:g}"
    )
    boxes = {role: extent_mm(item) for role, item in case.structures.items()}
    target = _hull([box for role, box in boxes.items() if role in ("ctv", "ptv")])
    near = _grown(target, organ_margin_mm)
    kept = [_grown(box, margin_mm) for role, box in boxes.items() if role in ("ctv", "ptv")]
    kept += [_grown(boxes["urethra"], 1.0)] if "urethra" in boxes else []
    kept += [_grown(_cut(box, near), 1.0) for role, box in boxes.items() if role not in _WHOLE]
    hull = _hull(kept)

    template, planes = lattice.template, lattice.planes
    axes = (
        (hull.x_mm, template.origin_xy_mm[0], template.pitch_mm),
        (hull.y_mm, template.origin_xy_mm[1], template.pitch_mm),
        (hull.z_mm, planes.z0_mm, planes.pitch_mm),
    )
    origin, spacing, shape = [], [], []
    for (low, high), node, pitch in axes:
        step = pitch / np.ceil(pitch / spacing_mm - 1e-9)
        first = np.floor((low - node) / step)
        origin.append(float(node + step * first))
        spacing.append(float(step))
        shape.append(float(np.ceil((high - node) / step) - first + 1))
    require(
        float(np.prod(shape)) <= MAX_VOXELS,
        f"evaluation grid of {shape[0]:.0f} x {shape[1]:.0f} x {shape[2]:.0f} voxels at "
        f"{spacing[0]:g} mm is more than {MAX_VOXELS:.0e}: use a coarser grid",
    )
    nx, ny, nz = (int(count) for count in shape)
    return Grid((origin[0], origin[1], origin[2]), (spacing[2], spacing[1], spacing[0]), (nz, ny, nx))


def coverage_notes(case: Case, anatomy: Anatomy) -> list[str]:
    """A sentence for every structure of which less than 98 % lies on the grid."""
    notes = []
    for role, item in case.structures.items():
        whole, held = slab_volume_cc(item), anatomy.volume_cc(role)
        if held < 0.98 * whole:
            notes.append(
                f"Of the {role} ({whole:.1f} cc) the {held:.1f} cc near the target were evaluated; "
                f"percentages refer to that part."
            )
    return notes


def _hull(boxes: list[Extent]) -> Extent:
    sides = ((box.x_mm, box.y_mm, box.z_mm) for box in boxes)
    x, y, z = (
        (min(low), max(high)) for low, high in (zip(*axis, strict=True) for axis in zip(*sides, strict=True))
    )
    return Extent(x, y, z)


def _grown(box: Extent, margin_mm: float) -> Extent:
    x, y, z = ((low - margin_mm, high + margin_mm) for low, high in (box.x_mm, box.y_mm, box.z_mm))
    return Extent(x, y, z)


def _cut(box: Extent, to: Extent) -> Extent:
    """The part of a box within another, or the nearest face of that other where they do not meet."""
    pairs = ((box.x_mm, to.x_mm), (box.y_mm, to.y_mm), (box.z_mm, to.z_mm))
    x, y, z = ((min(max(a, low), high), max(min(b, high), low)) for (a, b), (low, high) in pairs)
    return Extent(x, y, z)
