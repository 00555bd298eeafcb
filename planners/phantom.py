"""Parametric pelvic phantoms: prostate, urethra, rectum, bladder, deterministic by seed.

Shapes are level sets in mm, sampled with partial volume. Ranges follow published implant anatomy:
18-90 cc glands, base and apex tapering differently, a flattened posterior face, left-right asymmetry,
sometimes a median lobe, and a rectum 2-8 mm behind the gland.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from trocar.planners.geometry import Margins, expand
from trocar.planners.types import Case, Float32Array, Float64Array, Structure

Level = Callable[[Float64Array, Float64Array, Float64Array], Float64Array]

_STREAM = 0x7472_6F63  # keeps phantom seeds apart from every other use of small seeds


@dataclass(frozen=True, slots=True)
class PhantomShape:
    """The parameters of one phantom; lengths in mm, `tilt` in mm along y per mm along z.

    `half_*_mm` are the gland's half axes; `posterior_flatness` scales the posterior one.
    """

    volume_cc: float
    half_x_mm: float
    half_y_mm: float
    half_z_mm: float
    asymmetry: float
    posterior_flatness: float
    posterior_power: float
    base_power: float
    apex_power: float
    tilt: float
    median_lobe: float
    urethra_radius_mm: float
    urethra_y_mm: float
    urethra_curve: float
    urethra_x_mm: float
    rectal_gap_mm: float
    rectum_half_x_mm: float
    rectum_half_y_mm: float
    rectum_bend: float
    bladder_half_mm: float


def phantom_shape(seed: int) -> PhantomShape:
    """Draw the parameters of phantom `seed`: uniform draws in a fixed order, so that they never move."""
    random = np.random.default_rng([_STREAM, seed])

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(random.random())

    volume_cc = uniform(18.0, 90.0)
    # A large gland is rounder than a small one: growth is in the transition zone.
    growth = (volume_cc - 18.0) / 72.0
    aspect = np.array(
        [
            uniform(1.15, 1.40) - 0.30 * growth,
            uniform(0.85, 1.05) + 0.10 * growth,
            uniform(0.95, 1.25) - 0.05 * growth,
        ]
    )
    draws = {
        "asymmetry": uniform(-0.12, 0.12),
        "posterior_flatness": uniform(0.60, 0.90),
        "posterior_power": uniform(2.2, 3.2),
        "base_power": uniform(2.2, 3.0),
        "apex_power": uniform(1.5, 2.0),
        "tilt": uniform(-0.15, 0.15),
    }
    lobed, lobe_size = uniform(0.0, 1.0) < 0.2, uniform(0.30, 0.45)
    draws["median_lobe"] = lobe_size if lobed else 0.0
    half = aspect * _size_of(volume_cc, aspect, draws)
    return PhantomShape(
        volume_cc=volume_cc,
        half_x_mm=float(half[0]),
        half_y_mm=float(half[1]),
        half_z_mm=float(half[2]),
        urethra_radius_mm=uniform(2.5, 3.2),
        urethra_y_mm=float(half[1]) * uniform(-0.15, 0.05),
        urethra_curve=uniform(0.10, 0.30),
        urethra_x_mm=uniform(-1.5, 1.5),
        rectal_gap_mm=uniform(2.0, 8.0),
        rectum_half_x_mm=uniform(14.0, 20.0),
        rectum_half_y_mm=uniform(9.0, 14.0),
        rectum_bend=uniform(0.0, 6.0),
        bladder_half_mm=uniform(20.0, 30.0),
        **draws,
    )


def phantom_case(seed: int, *, pixel_mm: float = 1.0, slice_mm: float = 1.0) -> Case:
    """Build phantom `seed` as a case.

    Parameters
    ----------
    seed : any non-negative integer.
    pixel_mm, slice_mm : as in `phantom_from_shape`.
    """
    case = phantom_from_shape(phantom_shape(seed), f"phantom:{seed}", pixel_mm=pixel_mm, slice_mm=slice_mm)
    return replace(case, phantom_seed=seed)


def phantom_from_shape(
    shape: PhantomShape, name: str, *, pixel_mm: float = 1.0, slice_mm: float = 1.0
) -> Case:
    """Build a case from a shape's parameters.

    Parameters
    ----------
    shape : drawn by `phantom_shape`, or made by hand; its `volume_cc` is not used, the half axes are.
    pixel_mm, slice_mm : sampling of the contours, mm; the anatomy does not depend on it.

    Returns
    -------
    Case
        All five roles; the PTV is the CTV with 3 mm on every side but the posterior.
    """
    reach_x = shape.half_x_mm + 12.0
    front, back = -shape.half_y_mm - 14.0, shape.half_y_mm + 2.0 * shape.rectum_half_y_mm + 24.0
    foot, head = -shape.half_z_mm - 12.0, shape.half_z_mm + 2.0 * shape.bladder_half_mm + 4.0
    x = _axis(-reach_x - 6.0, reach_x + 6.0, pixel_mm)
    y = _axis(front, back, pixel_mm)
    z = _axis(foot, head, slice_mm)
    gland_z = z[np.abs(z) <= shape.half_z_mm * 1.45 + slice_mm]

    ctv = _sampled("Prostate", "ctv", x, y, gland_z, pixel_mm, slice_mm, lambda *p: _gland(shape, *p))
    urethra = _sampled(
        "Urethra", "urethra", x, y, gland_z, pixel_mm, slice_mm, lambda *p: _urethra(shape, *p)
    )
    wall_y = _posterior_wall_mm(shape)
    rectum = _sampled(
        "Rectum",
        "rectum",
        x,
        y,
        z[z <= shape.half_z_mm + 12.0],
        pixel_mm,
        slice_mm,
        lambda *p: _rectum(shape, wall_y, *p),
    )
    bladder = _sampled(
        "Bladder",
        "bladder",
        x,
        y,
        z,
        pixel_mm,
        slice_mm,
        lambda *p: np.maximum(_bladder(shape, *p), -_gland(shape, *p)),
    )
    margins = Margins(3.0, 3.0, 3.0, 0.0, 3.0, 3.0)  # posterior 0: the rectum is there
    ptv = expand(ctv, margins, name="PTV", role="ptv")
    structures = {s.role: s for s in (ctv, ptv, urethra, rectum, bladder)}
    return Case(name=name, structures=structures)


def _axis(low: float, high: float, step: float) -> Float64Array:
    return np.arange(np.floor(low / step), np.ceil(high / step) + 1) * step


def _sampled(
    name: str,
    role: str,
    x: Float64Array,
    y: Float64Array,
    z: Float64Array,
    pixel_mm: float,
    slice_mm: float,
    level: Level,
) -> Structure:
    """Sample a level set (inside where negative) on 2 x 2 x 2 points a voxel and its centre.

    Nine points: no voxel is exactly half covered, so that whole voxels keep the volume.
    """
    occupancy: Float32Array = np.zeros((len(z), len(y), len(x)), np.float32)
    for dz, dy, dx in (*product((-0.25, 0.25), repeat=3), (0.0, 0.0, 0.0)):
        inside = level(
            (x + dx * pixel_mm)[None, None, :],
            (y + dy * pixel_mm)[None, :, None],
            (z + dz * slice_mm)[:, None, None],
        )
        occupancy += inside < 0.0
    occupancy /= np.float32(9.0)
    kept = np.flatnonzero(occupancy.any(axis=(1, 2)))
    first, last = int(kept[0]), int(kept[-1]) + 1
    return Structure(
        name,
        role,
        np.ascontiguousarray(occupancy[first:last]),
        z[first:last],
        (float(x[0]), float(y[0])),
        (pixel_mm, pixel_mm),
    )


def _unit_gland(
    u: Float64Array, v: Float64Array, w: Float64Array, draws: Mapping[str, float]
) -> Float64Array:
    """Level set of the gland in units of its half axes: a superellipse per slice, tapering along w."""
    v = v - draws["tilt"] * w
    u = u / (1.0 + draws["asymmetry"] * np.sign(u))
    posterior = v > 0.0
    v = np.where(posterior, v / draws["posterior_flatness"], v)
    power = np.where(posterior, draws["posterior_power"], 2.0)
    taper_power = np.where(w > 0.0, draws["base_power"], draws["apex_power"])
    taper = np.maximum(1.0 - np.abs(w) ** taper_power, 0.0) ** (1.0 / taper_power)
    level = (np.abs(u) ** power + np.abs(v) ** power) ** (1.0 / power) - taper
    level = np.where(np.abs(w) >= 1.0, np.maximum(level, 1e-3), level)
    lobe = draws["median_lobe"]
    if lobe > 0.0:
        bump = np.sqrt((u / lobe) ** 2 + ((v - 0.1) / lobe) ** 2 + ((w - 0.85) / (1.3 * lobe)) ** 2) - 1.0
        level = np.minimum(level, bump)
    return np.asarray(level, dtype=np.float64)


def _size_of(volume_cc: float, aspect: Float64Array, draws: dict[str, float]) -> float:
    """Scale in mm that gives the shape its volume; lengths scale as the cube root."""
    step = 0.04
    u = np.arange(-1.3, 1.3, step)[None, None, :]
    v = np.arange(-1.3, 1.3, step)[None, :, None]
    w = np.arange(-1.1, 1.6, step)[:, None, None]
    unit_volume = float((_unit_gland(u, v, w, draws) < 0.0).sum()) * step**3 * float(np.prod(aspect))
    return float((volume_cc * 1000.0 / unit_volume) ** (1.0 / 3.0))


def _draws(shape: PhantomShape) -> dict[str, float]:
    names = (
        "tilt",
        "asymmetry",
        "posterior_flatness",
        "posterior_power",
        "base_power",
        "apex_power",
        "median_lobe",
    )
    return {name: getattr(shape, name) for name in names}


def _gland(shape: PhantomShape, x: Float64Array, y: Float64Array, z: Float64Array) -> Float64Array:
    return _unit_gland(x / shape.half_x_mm, y / shape.half_y_mm, z / shape.half_z_mm, _draws(shape))


def _urethra(shape: PhantomShape, x: Float64Array, y: Float64Array, z: Float64Array) -> Float64Array:
    """A tube that bends forward above and below the verumontanum, contoured from base to apex."""
    w = z / shape.half_z_mm
    centre_y = (
        shape.urethra_y_mm + shape.tilt * w * shape.half_y_mm - shape.urethra_curve * w**2 * shape.half_y_mm
    )
    distance = np.hypot(x - shape.urethra_x_mm, y - centre_y) - shape.urethra_radius_mm
    return np.where(np.abs(w) <= 0.9, distance, 1.0)


def _posterior_wall_mm(shape: PhantomShape) -> float:
    """Posterior-most y of the gland with its tilt taken out."""
    return shape.half_y_mm * shape.posterior_flatness


def _rectum(
    shape: PhantomShape, wall_y_mm: float, x: Float64Array, y: Float64Array, z: Float64Array
) -> Float64Array:
    """A tube behind the gland that follows its tilt and falls away towards base and apex."""
    w = z / shape.half_z_mm
    front = (
        wall_y_mm + shape.tilt * w * shape.half_y_mm + shape.rectal_gap_mm + shape.rectum_bend * w**2 * 0.5
    )
    across = x / shape.rectum_half_x_mm
    along = (y - front - shape.rectum_half_y_mm) / shape.rectum_half_y_mm
    return np.sqrt(across**2 + along**2) - 1.0


def _bladder(shape: PhantomShape, x: Float64Array, y: Float64Array, z: Float64Array) -> Float64Array:
    half = shape.bladder_half_mm
    centre_z = shape.half_z_mm + 0.75 * half
    return (
        np.sqrt((x / (1.3 * half)) ** 2 + ((y + 5.0) / half) ** 2 + ((z - centre_z) / (0.8 * half)) ** 2)
        - 1.0
    )
