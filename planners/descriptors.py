"""What a case looks like in a few numbers: size, proportions, symmetry, outline and neighbours.

They serve to tell a case that is unlike those a model was trained on (`trocar.planners.novelty`), so each
stands for something that a plan depends on, or for a way in which contours go wrong:

==========================  ==================================================================================
`ctv_radius_mm`             of the ball of the CTV's volume: evenly spread where volume is not
`width_to_height`           ln of left-right over anterior-posterior spread within slices: wrong pixel spacing
`length_to_width`           ln of the spread along z over that within slices: wrong slice spacing
`skew_x, skew_y, skew_z`    third standardised moments: asymmetry, a missing half, base and apex swapped
`tilt_x, tilt_y`            slope of the slices' centroid along z, mm a mm
`slice_fill`                mean of the slices' area over that of the ellipse of their spread: holes, pieces
`solid_fill`                volume over that of the ellipsoid with its spread: cut-off ends
`base_blunt, apex_blunt`    area near either end over the gland's usual area: a gland not contoured to its end
`ragged_across`             outline crossings a line over those of a convex solid, along x and y
`ragged_along`              the same along z: slices that are left out, displaced or out of proportion
`area_jump`                 largest bend in the slices' area from one mm to the next, in usual areas
`centroid_jump_mm`          largest bend in the slices' centroid from one mm to the next
`ptv_margin_mm`             difference between the radii of the balls of the PTV's and the CTV's volume
`urethra_x, urethra_y`      its centroid from the CTV's, in spreads of the CTV
`urethra_inside`            share of it within the CTV
`urethra_length`            its spread along z over the CTV's
`urethra_width_mm`          its diameter left to right
`urethra_roundness`         ln of its width over its height: wrong pixel spacing, whatever the gland's shape
`rectum_gap_mm`             from the CTV straight back to the rectum, where they are nearest
`rectum_overlap`            share of the CTV within the rectum
`rectum_x`                  its centroid from the CTV's, left to right, in spreads of the CTV
`rectum_width_mm`           its diameter left to right
`bladder_above`             share of it above the CTV's centroid less that below: contours upside down
`missing_roles`             how many of urethra and rectum are not contoured, or not near
==========================  ==================================================================================

Moments carry proportions because they move little when slices are 5 mm apart and the ends are blunt, where
a bounding box moves by half a slice. No distance transform, no surface mesh: the sums over each axis of the
covered fraction hold all but the outline crossings, which are sums of absolute differences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trocar.planners.types import Anatomy, Float32Array, Float64Array, require

NAMES = (
    "ctv_radius_mm",
    "width_to_height",
    "length_to_width",
    "skew_x",
    "skew_y",
    "skew_z",
    "tilt_x",
    "tilt_y",
    "slice_fill",
    "solid_fill",
    "base_blunt",
    "apex_blunt",
    "ragged_across",
    "ragged_along",
    "area_jump",
    "centroid_jump_mm",
    "ptv_margin_mm",
    "urethra_x",
    "urethra_y",
    "urethra_inside",
    "urethra_length",
    "urethra_width_mm",
    "urethra_roundness",
    "rectum_gap_mm",
    "rectum_overlap",
    "rectum_x",
    "rectum_width_mm",
    "bladder_above",
    "missing_roles",
)
# Of the slices' areas, the one that counts as usual: not the largest, which may be the one that is wrong.
_USUAL_AREA_PCT = 90.0
# A slice with less of the usual area has no shape to speak of.
_LEAST_AREA = 0.15
# How far from an end its area is taken, mm.
_END_MM = 3.0
# Of the gaps straight back to the rectum, the share that counts as where they are nearest.
_NEAREST_PCT = 3.0
_FAR_MM = 40.0
_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class _Solid:
    """A structure cut out of the grid, with its sums.

    `fraction_zyx` covers rows `first_zyx` onwards; `area_mm2`, `x_mm`, `y_mm` (centroids), `var_x_mm2` and
    `var_y_mm2` (spread within the slice) are (nz,) by slice at `z_mm`; `mass_*` are sums over the other axes.
    """

    fraction_zyx: Float32Array
    first_zyx: tuple[int, int, int]
    z_mm: Float64Array
    area_mm2: Float64Array
    x_mm: Float64Array
    y_mm: Float64Array
    var_x_mm2: Float64Array
    var_y_mm2: Float64Array
    mass_x: Float64Array
    mass_y: Float64Array
    axis_x_mm: Float64Array
    axis_y_mm: Float64Array
    volume_mm3: float

    @property
    def spread_zyx_mm(self) -> Float64Array:
        """Standard deviation along z, and within slices along y and x."""
        share = self.area_mm2 / self.area_mm2.sum()
        along = _moments(self.z_mm, self.area_mm2)[1]
        return np.sqrt([along, share @ self.var_y_mm2, share @ self.var_x_mm2])

    @property
    def centre_zyx_mm(self) -> Float64Array:
        """Centroid."""
        share = self.area_mm2 / self.area_mm2.sum()
        return np.array([share @ self.z_mm, share @ self.y_mm, share @ self.x_mm])


def descriptors(anatomy: Anatomy) -> Float64Array:
    """Describe a case by `NAMES`.

    Returns
    -------
    (d,) float64; NaN where a structure that the case lacks would be needed.

    Raises
    ------
    InvalidInput
        The CTV or the PTV covers no voxel.
    """
    gland = _solid(anatomy, "ctv")
    require(gland is not None, "the CTV is empty on the evaluation grid")
    assert gland is not None
    ptv_cc = anatomy.volume_cc("ptv")
    require(ptv_cc > 0.0, "the PTV is empty on the evaluation grid")
    urethra = _solid(anatomy, "urethra")
    rectum = _solid(anatomy, "rectum")
    radius_mm = _ball_radius_mm(gland.volume_mm3)
    found = {
        "ctv_radius_mm": radius_mm,
        **_proportions(gland),
        **_outline(anatomy, gland),
        "ptv_margin_mm": _ball_radius_mm(1000.0 * ptv_cc) - radius_mm,
        **(_urethra(anatomy, gland, urethra) if urethra is not None else {}),
        **(_rectum(anatomy, gland, rectum) if rectum is not None else {}),
        **_bladder(anatomy, gland),
        "missing_roles": float((urethra is None) + (rectum is None)),
    }
    return np.array([found.get(name, np.nan) for name in NAMES], dtype=np.float64)


def _solid(anatomy: Anatomy, role: str) -> _Solid | None:
    """Cut a structure out of the grid; None where the case has none of it."""
    whole = anatomy.fractions.get(role)
    if whole is None:
        return None
    z = np.flatnonzero(whole.reshape(len(whole), -1).max(axis=1) > 0.0)
    if not len(z):
        return None
    shadow = whole[z[0] : z[-1] + 1].max(axis=0)
    y, x = (np.flatnonzero(shadow.max(axis=axis) > 0.0) for axis in (1, 0))
    part = np.ascontiguousarray(whole[z[0] : z[-1] + 1, y[0] : y[-1] + 1, x[0] : x[-1] + 1])
    axes = anatomy.grid.axes_zyx_mm
    first = (int(z[0]), int(y[0]), int(x[0]))
    at_z, at_y, at_x = (axis[i : i + n] for axis, i, n in zip(axes, first, part.shape, strict=True))
    dz, dy, dx = anatomy.grid.spacing_zyx_mm
    by_x, by_y = (part.sum(axis=axis).astype(np.float64) for axis in (1, 2))
    held = np.maximum(by_x.sum(axis=1), _TINY)
    x_mm, y_mm = by_x @ at_x / held, by_y @ at_y / held
    return _Solid(
        part,
        first,
        at_z,
        by_x.sum(axis=1) * dy * dx,
        x_mm,
        y_mm,
        np.maximum(by_x @ at_x**2 / held - x_mm**2, 0.0),
        np.maximum(by_y @ at_y**2 / held - y_mm**2, 0.0),
        by_x.sum(axis=0),
        by_y.sum(axis=0),
        at_x,
        at_y,
        float(by_x.sum()) * dz * dy * dx,
    )


def _proportions(gland: _Solid) -> dict[str, float]:
    along, high, wide = np.maximum(gland.spread_zyx_mm, _TINY)
    share = gland.area_mm2 / gland.area_mm2.sum()
    centre_z, centre_y, centre_x = gland.centre_zyx_mm
    lever = share * (gland.z_mm - centre_z)
    # 5^1.5: an ellipsoid's half axis is sqrt(5) times its spread.
    ellipsoid_mm3 = 4.0 / 3.0 * np.pi * 5.0**1.5 * along * high * wide
    return {
        "width_to_height": float(np.log(wide / high)),
        "length_to_width": float(np.log(along / np.sqrt(wide * high))),
        "skew_x": _moments(gland.axis_x_mm, gland.mass_x)[2],
        "skew_y": _moments(gland.axis_y_mm, gland.mass_y)[2],
        "skew_z": _moments(gland.z_mm, gland.area_mm2)[2],
        "tilt_x": float(lever @ (gland.x_mm - centre_x) / along**2),
        "tilt_y": float(lever @ (gland.y_mm - centre_y) / along**2),
        "solid_fill": float(gland.volume_mm3 / ellipsoid_mm3),
    }


def _outline(anatomy: Anatomy, gland: _Solid) -> dict[str, float]:
    """Holes, pieces and slices that do not follow from their neighbours."""
    dz_mm = anatomy.grid.spacing_zyx_mm[0]
    usual_mm2 = float(np.percentile(gland.area_mm2, _USUAL_AREA_PCT))
    area = gland.area_mm2 / usual_mm2
    shaped = area >= _LEAST_AREA
    # 4 pi: an ellipse's half axis is twice its spread.
    ellipse_mm2 = 4.0 * np.pi * np.sqrt(gland.var_x_mm2 * gland.var_y_mm2)
    fill = gland.area_mm2 / np.maximum(ellipse_mm2, _TINY)
    crossings = [_crossings(gland.fraction_zyx, axis) for axis in range(3)]
    depth = min(round(_END_MM / dz_mm), len(area) - 1)
    centre_mm = np.stack([gland.x_mm, gland.y_mm])
    inner = shaped[2:] & shaped[1:-1] & shaped[:-2]
    bend_mm = np.hypot(*np.diff(centre_mm, 2, axis=1)) / dz_mm
    # At the ends themselves area starts from nothing, in one step where slices are thick.
    bend = np.abs(np.diff(area, 2))[1:-1] / dz_mm
    return {
        "slice_fill": float(np.average(fill, weights=gland.area_mm2)),
        "apex_blunt": float(area[depth]),
        "base_blunt": float(area[-1 - depth]),
        "ragged_across": (crossings[1][0] + crossings[2][0]) / (crossings[1][1] + crossings[2][1]),
        "ragged_along": crossings[0][0] / crossings[0][1],
        "area_jump": float(bend.max(initial=0.0)),
        "centroid_jump_mm": float(bend_mm[inner].max(initial=0.0)),
    }


def _crossings(fraction_zyx: Float32Array, axis: int) -> tuple[float, float]:
    """Sum over lines along an axis of the fraction's rises and falls, and of twice its largest value.

    The two are the same where every line meets the solid once, wherever the voxels fall.
    """
    ends = fraction_zyx.take([0, -1], axis=axis).sum(dtype=np.float64)
    steps = np.diff(fraction_zyx, axis=axis)
    once = max(2.0 * float(fraction_zyx.max(axis=axis).sum(dtype=np.float64)), _TINY)
    return float(ends + np.abs(steps, out=steps).sum()), once


def _urethra(anatomy: Anatomy, gland: _Solid, urethra: _Solid) -> dict[str, float]:
    offset = (urethra.centre_zyx_mm - gland.centre_zyx_mm) / np.maximum(gland.spread_zyx_mm, _TINY)
    along, high, wide = np.maximum(urethra.spread_zyx_mm, _TINY)
    return {
        "urethra_x": float(offset[2]),
        "urethra_y": float(offset[1]),
        "urethra_inside": _shared(anatomy, urethra, "ctv"),
        "urethra_length": float(along / max(gland.spread_zyx_mm[0], _TINY)),
        "urethra_width_mm": float(4.0 * wide),
        "urethra_roundness": float(np.log(wide / high)),
    }


def _rectum(anatomy: Anatomy, gland: _Solid, rectum: _Solid) -> dict[str, float]:
    wide_mm = max(float(gland.spread_zyx_mm[2]), _TINY)
    return {
        "rectum_gap_mm": _gap_behind_mm(anatomy, gland),
        "rectum_overlap": _shared(anatomy, gland, "rectum"),
        "rectum_x": float((rectum.centre_zyx_mm[2] - gland.centre_zyx_mm[2]) / wide_mm),
        "rectum_width_mm": float(4.0 * rectum.spread_zyx_mm[2]),
    }


def _bladder(anatomy: Anatomy, gland: _Solid) -> dict[str, float]:
    """Of the bladder the network sees nothing and only its side counts, so that a case may lack it."""
    whole = anatomy.fractions.get("bladder")
    if whole is None:
        return {}
    by_z = whole.reshape(len(whole), -1).sum(axis=1).astype(np.float64)
    if not by_z.any():
        return {}
    side = np.sign(anatomy.grid.axes_zyx_mm[0] - gland.centre_zyx_mm[0])
    return {"bladder_above": float(by_z @ side / by_z.sum())}


def _shared(anatomy: Anatomy, part: _Solid, role: str) -> float:
    """Share of a structure that lies within another."""
    window = tuple(
        slice(first, first + count)
        for first, count in zip(part.first_zyx, part.fraction_zyx.shape, strict=True)
    )
    both = np.minimum(part.fraction_zyx, anatomy.fractions[role][window]).sum(dtype=np.float64)
    return float(both / part.fraction_zyx.sum(dtype=np.float64))


def _gap_behind_mm(anatomy: Anatomy, gland: _Solid) -> float:
    """From the gland's back to the rectum's front along y, where they are nearest; negative in an overlap."""
    z, _, x = (
        slice(first, first + count)
        for first, count in zip(gland.first_zyx, gland.fraction_zyx.shape, strict=True)
    )
    step_mm = anatomy.grid.spacing_zyx_mm[1]
    back = _last_edge(gland.fraction_zyx) + gland.first_zyx[1]
    rectum = anatomy.fractions["rectum"][z, :, x]
    front = rectum.shape[1] - 1 - _last_edge(rectum[:, ::-1])
    gaps = (front - back)[np.isfinite(front) & np.isfinite(back)]
    return float(np.percentile(gaps * step_mm, _NEAREST_PCT)) if len(gaps) else _FAR_MM


def _last_edge(fraction_zyx: Float32Array) -> Float64Array:
    """Where along y, in voxels, each (z, x) column's last covered stretch ends; -inf where there is none."""
    inside = fraction_zyx >= 0.5
    count = fraction_zyx.shape[1]
    last = count - 1 - inside[:, ::-1].argmax(axis=1)
    here = np.take_along_axis(fraction_zyx, last[:, None], axis=1)[:, 0]
    beyond = np.take_along_axis(fraction_zyx, np.minimum(last + 1, count - 1)[:, None], axis=1)[:, 0]
    edge = last - 0.5 + here + np.where(last + 1 < count, beyond, 0.0)
    return np.where(inside.any(axis=1), edge, -np.inf)


def _moments(at: Float64Array, mass: Float64Array) -> tuple[float, float, float]:
    """Mean, variance and skewness of a mass along an axis."""
    share = mass / mass.sum()
    mean = float(share @ at)
    off = at - mean
    variance = max(float(share @ off**2), _TINY)
    return mean, variance, float(share @ off**3) / variance**1.5


def _ball_radius_mm(volume_mm3: float) -> float:
    return float((volume_mm3 * 3.0 / (4.0 * np.pi)) ** (1.0 / 3.0))
