"""The TG-43U1 dose formalism in float64 NumPy: the specification that the native engine is tested against."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from trocar.planners.dose.source import SourceModel
from trocar.planners.types import Float64Array, require

# TG-43 says nothing inside the capsule, and the line source diverges on its segment. A point nearer
# to the axis than this is lifted to it, over the active length; beyond the ends the clearance shrinks
# by what the point lies beyond them (a cylinder closed by 45 degree cones), so that the dose is
# finite and continuous everywhere. 0.4 mm is the outer radius of the thinnest encapsulation shipped.
CLEARANCE_CM = 0.04
MAX_COORDINATE_MM = 1e5
REFERENCE_RADIUS_CM = 1.0


def dose_rate_cgy_h_u(source: SourceModel, away_cm: npt.ArrayLike, along_cm: npt.ArrayLike) -> Float64Array:
    """Dose rate in water per unit air-kerma strength.

    D(r, theta) = Lambda G_L(r, theta) / G_L(1 cm, 90 deg) g_L(r) F(r, theta).

    Parameters
    ----------
    source : the source model.
    away_cm, along_cm : broadcastable, distance from the axis and position along it (+z is theta = 0).

    Returns
    -------
    float64 array of the broadcast shape, cGy/h/U.

    Raises
    ------
    InvalidInput : a coordinate is not finite.

    Source: TG-43U1 (Rivard 2004) eq. 1; interpolation by TG-43U1S1 (Rivard 2007) section III.
    """
    away, along = np.broadcast_arrays(
        np.abs(np.asarray(away_cm, dtype=np.float64)), np.asarray(along_cm, dtype=np.float64)
    )
    require(bool(np.isfinite(away).all() and np.isfinite(along).all()), "points: expected finite coordinates")
    away = lifted_away_cm(source.length_cm, away, along)
    radius = np.hypot(away, along)
    theta_deg = np.degrees(np.arctan2(away, along))
    reference = geometry_function(source.length_cm, np.float64(REFERENCE_RADIUS_CM), np.float64(0.0))
    return np.asarray(
        source.dose_rate_constant_cgy_h_u
        * (geometry_function(source.length_cm, away, along) / reference)
        * radial_dose_function(source, radius)
        * anisotropy_function(source, radius, theta_deg)
    )


def lifted_away_cm(length_cm: float, away_cm: Float64Array, along_cm: Float64Array) -> Float64Array:
    """Distance from the axis after the clearance around the active length, cm."""
    beyond_end = np.maximum(np.abs(along_cm) - length_cm / 2, 0.0)
    return np.maximum(away_cm, CLEARANCE_CM - beyond_end)


def geometry_function(
    length_cm: float, away_cm: Float64Array | np.float64, along_cm: Float64Array | np.float64
) -> Float64Array:
    """G_L, cm-2: beta / (L r sin theta), and 1 / (r^2 - L^2/4) on the axis.

    beta, the angle that the source subtends, is written as one arctangent that loses no digits near
    the axis or far away.
    """
    away, along = np.asarray(away_cm), np.abs(np.asarray(along_cm))
    across = length_cm * away
    ahead = away * away + (along - length_cm / 2) * (along + length_cm / 2)
    off_axis = across > 0
    beta = np.arctan2(across, ahead)
    return np.where(off_axis, beta / np.where(off_axis, across, 1.0), 1.0 / np.where(off_axis, 1.0, ahead))


def radial_dose_function(source: SourceModel, radius_cm: Float64Array) -> Float64Array:
    """g_L(r): log-linear between the nodes, the nearest below the first, exponential beyond the last.

    Source: TG-43U1S1 eqs. 3 and 4 (the last two nodes give the slope beyond).
    """
    nodes, log_g = source.g_r_cm, np.log(source.g)
    slope = (log_g[-1] - log_g[-2]) / (nodes[-1] - nodes[-2])
    beyond = np.maximum(radius_cm - nodes[-1], 0.0)
    return np.asarray(np.exp(np.interp(radius_cm, nodes, log_g) + slope * beyond))


def anisotropy_function(
    source: SourceModel, radius_cm: Float64Array, theta_deg: Float64Array
) -> Float64Array:
    """F(r, theta): bilinear; the nearest node outside the table; a one-sided table is mirrored at 90 deg."""
    theta = np.minimum(theta_deg, 180.0 - theta_deg) if source.symmetric else theta_deg
    i, u = _cell(source.f_r_cm, radius_cm)
    j, v = _cell(source.f_theta_deg, theta)
    i1, j1 = np.minimum(i + 1, source.f_r_cm.size - 1), np.minimum(j + 1, source.f_theta_deg.size - 1)
    near = source.f[i, j] * (1 - v) + source.f[i, j1] * v
    far = source.f[i1, j] * (1 - v) + source.f[i1, j1] * v
    return np.asarray(near * (1 - u) + far * u)


def total_dose_factor_h(source: SourceModel) -> float:
    """Hours by which a rate is multiplied to give the dose of a permanent implant: T1/2 / ln 2."""
    return source.half_life_days * 24.0 / math.log(2.0)


def dose_gy(
    source: SourceModel,
    points_xyz_mm: npt.ArrayLike,
    seeds_xyz_mm: npt.ArrayLike,
    strength_u: float,
    *,
    directions_xyz: npt.ArrayLike | None = None,
) -> Float64Array:
    """Total dose (complete decay) at points from seeds of one strength.

    Parameters
    ----------
    source : the source model.
    points_xyz_mm : (n, 3) patient frame.
    seeds_xyz_mm : (m, 3) seed centres, patient frame.
    strength_u : air-kerma strength of each seed at implant, U.
    directions_xyz : (m, 3) each seed's own +z axis, of any length; +z of the patient frame if absent.

    Returns
    -------
    (n,) float64, Gy. No interseed attenuation, water everywhere (TG-43U1).

    Raises
    ------
    InvalidInput : a shape is wrong, a value is not finite, or a direction has no length.
    """
    points = vectors(points_xyz_mm, "points")
    seeds = vectors(seeds_xyz_mm, "seeds")
    axes = unit_directions(directions_xyz, len(seeds))
    dose = np.zeros(len(points))
    for seed, axis in zip(seeds, axes, strict=True):
        offset_cm = (points - seed) / 10.0
        if directions_xyz is None:
            away_cm, along_cm = np.hypot(offset_cm[:, 0], offset_cm[:, 1]), offset_cm[:, 2]
        else:
            away_cm = np.linalg.norm(np.cross(offset_cm, axis), axis=1)
            along_cm = offset_cm @ axis
        dose += dose_rate_cgy_h_u(source, away_cm, along_cm)
    return dose * (strength_u * total_dose_factor_h(source) / 100.0)


def vectors(values: npt.ArrayLike, name: str) -> Float64Array:
    """Coordinates in mm as a contiguous float64 (n, 3); an empty list is (0, 3).

    Raises
    ------
    InvalidInput : another shape, or a value that is not finite or absurdly far away.
    """
    array = np.asarray(values)
    require(array.dtype.kind in "fiu", f"{name}: expected numbers, got {array.dtype}")
    if array.size == 0 and array.ndim < 2:
        array = np.zeros((0, 3))
    require(array.ndim == 2 and array.shape[1] == 3, f"{name}: expected shape (n, 3), got {array.shape}")
    array = np.ascontiguousarray(array, dtype=np.float64)
    require(
        bool((np.abs(array) <= MAX_COORDINATE_MM).all()),
        f"{name}: expected finite coordinates within {MAX_COORDINATE_MM:g} mm",
    )
    return array


def unit_directions(directions_xyz: npt.ArrayLike | None, count: int) -> Float64Array:
    """Seed axes as unit vectors (count, 3); +z where none are given.

    Raises
    ------
    InvalidInput : not one direction a seed, or a direction without length.
    """
    if directions_xyz is None:
        return np.tile([0.0, 0.0, 1.0], (count, 1))
    directions = vectors(directions_xyz, "directions")
    require(len(directions) == count, f"directions: expected {count}, one a seed, got {len(directions)}")
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    require(bool((lengths > 1e-9).all()), "directions: expected vectors with a length")
    return np.ascontiguousarray(directions / lengths)


def _cell(nodes: Float64Array, values: Float64Array) -> tuple[npt.NDArray[np.intp], Float64Array]:
    """Index of the node at or below each value, and the fraction towards the next; clamped to the ends."""
    if nodes.size == 1:
        return np.zeros(values.shape, dtype=np.intp), np.zeros(values.shape)
    position = np.interp(values, nodes, np.arange(nodes.size))
    index = np.minimum(position.astype(np.intp), nodes.size - 2)
    return index, position - index
