"""Cases that a model has not seen: phantoms beyond the training ranges, and contours gone wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from trocar.planners.case import PTV_MARGINS_MM
from trocar.planners.geometry import expand
from trocar.planners.phantom import PhantomShape
from trocar.planners.types import Case, Float32Array, Structure

Random = np.random.Generator
Misshape = Callable[[PhantomShape, Random], PhantomShape]
Corrupt = Callable[[Case, Random], Case]
OnSlices = Callable[[Float32Array, Random], Float32Array]


# Phantoms beyond the ranges of `trocar.planners.phantom.phantom_shape`.


def with_volume(shape: PhantomShape, volume_cc: float) -> PhantomShape:
    """The same gland at another volume."""
    return scaled(shape, *(3 * [(volume_cc / shape.volume_cc) ** (1.0 / 3.0)]))


def scaled(shape: PhantomShape, x: float, y: float, z: float) -> PhantomShape:
    """The gland stretched by a factor an axis; what lies around it stays."""
    return replace(
        shape,
        volume_cc=shape.volume_cc * x * y * z,
        half_x_mm=shape.half_x_mm * x,
        half_y_mm=shape.half_y_mm * y,
        half_z_mm=shape.half_z_mm * z,
        urethra_y_mm=shape.urethra_y_mm * y,
    )


def _either(random: Random) -> float:
    return 1.0 if random.random() < 0.5 else -1.0


MISSHAPEN: Mapping[str, Misshape] = MappingProxyType(
    {
        "volume 8-12 cc": lambda s, r: with_volume(s, r.uniform(8.0, 12.0)),
        "volume 120-150 cc": lambda s, r: with_volume(s, r.uniform(120.0, 150.0)),
        "asymmetry 0.35-0.5": lambda s, r: replace(s, asymmetry=_either(r) * r.uniform(0.35, 0.5)),
        "rectal gap 0 mm": lambda s, _: replace(s, rectal_gap_mm=0.0),
        "rectal gap 20 mm": lambda s, _: replace(s, rectal_gap_mm=20.0),
        "twice as wide as high, same volume": lambda s, _: scaled(s, 1.4, 0.7, 1.0),
        "narrow and high, same volume": lambda s, _: scaled(s, 0.7, 1.4, 1.0),
        "long, same volume": lambda s, _: scaled(s, 0.8, 0.8, 1.5625),
        "short, same volume": lambda s, _: scaled(s, 1.25, 1.25, 0.64),
        "tilt 0.5": lambda s, r: replace(s, tilt=_either(r) * 0.5),
    }
)


# Contours gone wrong. The PTV is derived again where the CTV changed, as a reader of the file would do:
# that is harder to notice than a PTV which no longer fits.


def _on_gland(change: OnSlices) -> Corrupt:
    """A corruption of the CTV's slices."""

    def corrupt(case: Case, random: Random) -> Case:
        ctv = case.structures["ctv"]
        slices = change(np.pad(ctv.occupancy_zyx, ((0, 0), (16, 16), (16, 16))), random)
        (dy, dx), (x, y) = ctv.spacing_yx_mm, ctv.origin_xy_mm
        return _with_ctv(case, replace(ctv, occupancy_zyx=slices, origin_xy_mm=(x - 16 * dx, y - 16 * dy)))

    return corrupt


def _with_ctv(case: Case, ctv: Structure) -> Case:
    ptv = expand(ctv, PTV_MARGINS_MM, name="PTV", role="ptv")
    return replace(case, structures={**case.structures, "ctv": ctv, "ptv": ptv})


def _some_slice(slices: Float32Array, random: Random) -> int:
    """A slice within the middle 80 % of the stack."""
    count = len(slices)
    return int(random.integers(max(1, round(0.1 * count)), min(count - 1, round(0.9 * count))))


def _empty_slice(slices: Float32Array, random: Random) -> Float32Array:
    slices[_some_slice(slices, random)] = 0.0
    return slices


def _shifted_slice(slices: Float32Array, random: Random) -> Float32Array:
    at, angle, pixels = _some_slice(slices, random), random.uniform(0.0, 2.0 * np.pi), random.uniform(8, 14)
    steps = (round(pixels * np.sin(angle)), round(pixels * np.cos(angle)))
    slices[at] = np.roll(slices[at], steps, axis=(0, 1))
    return slices


def _doubled_slice(slices: Float32Array, random: Random) -> Float32Array:
    """One slice's contour at twice its size about its middle."""
    at = _some_slice(slices, random)
    y, x = np.nonzero(slices[at] >= 0.5)
    rows, columns = (
        np.rint(middle + 0.5 * (np.arange(count) - middle)).astype(np.int64)
        for middle, count in zip((y.mean(), x.mean()), slices[at].shape, strict=True)
    )
    slices[at] = slices[at][np.ix_(rows, columns)]
    return slices


def _cut(axis: int) -> OnSlices:
    """Half of the gland left out: the part beyond its middle on one side along an axis."""

    def cut(slices: Float32Array, random: Random) -> Float32Array:
        held = np.flatnonzero((slices >= 0.5).any(axis=tuple({0, 1, 2} - {axis})))
        middle = (held[0] + held[-1]) // 2
        lost = slice(0, middle) if random.random() < 0.5 else slice(middle + 1, None)
        slices[(slice(None),) * axis + (lost,)] = 0.0
        return slices

    return cut


def _two_pieces(slices: Float32Array, _: Random) -> Float32Array:
    """A gap of 5 pixels along the middle from front to back."""
    x = np.flatnonzero((slices >= 0.5).any(axis=(0, 1)))
    middle = (x[0] + x[-1]) // 2
    slices[:, :, middle - 2 : middle + 3] = 0.0
    return slices


def _rough(slices: Float32Array, random: Random) -> Float32Array:
    """Every pixel of the outline, 3 pixels deep, is in or out by chance."""
    inside = slices >= 0.5
    rim = _grown(inside) & ~_shrunk(inside)
    return np.where(rim, random.random(slices.shape) < 0.5, inside).astype(np.float32)


def _grown(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    out = inside.copy()
    for axis, step in ((1, 1), (1, -1), (2, 1), (2, -1)):
        out |= np.roll(inside, step, axis=axis)
    return out


def _shrunk(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return ~_grown(_grown(~inside))


def _urethra_outside(case: Case, random: Random) -> Case:
    urethra, ctv = case.structures["urethra"], case.structures["ctv"]
    held = np.flatnonzero((ctv.occupancy_zyx >= 0.5).any(axis=(0, 1)))
    off_mm = _either(random) * (0.5 * len(held) * ctv.spacing_yx_mm[1] + 5.0)
    x, y = urethra.origin_xy_mm
    return replace(
        case, structures={**case.structures, "urethra": replace(urethra, origin_xy_mm=(x + off_mm, y))}
    )


def _swapped(case: Case, _: Random) -> Case:
    gland, rectum = case.structures["ctv"], case.structures["rectum"]
    swapped = replace(case, structures={**case.structures, "rectum": replace(gland, role="rectum")})
    return _with_ctv(swapped, replace(rectum, role="ctv"))


def _respaced(x: float, y: float, z: float) -> Corrupt:
    """Every structure stretched by a factor an axis: a wrong spacing in the file; the margin is right."""

    def corrupt(case: Case, _: Random) -> Case:
        parts = {
            role: replace(
                part,
                z_mm=part.z_mm * z,
                origin_xy_mm=(part.origin_xy_mm[0] * x, part.origin_xy_mm[1] * y),
                spacing_yx_mm=(part.spacing_yx_mm[0] * y, part.spacing_yx_mm[1] * x),
            )
            for role, part in case.structures.items()
        }
        return _with_ctv(replace(case, structures=parts), parts["ctv"])

    return corrupt


def _upside_down(case: Case, _: Random) -> Case:
    parts = {
        role: replace(
            part, occupancy_zyx=np.ascontiguousarray(part.occupancy_zyx[::-1]), z_mm=-part.z_mm[::-1]
        )
        for role, part in case.structures.items()
    }
    return replace(case, structures=parts)


def _back_to_front(case: Case, _: Random) -> Case:
    parts = {}
    for role, part in case.structures.items():
        (x, y), rows = part.origin_xy_mm, part.occupancy_zyx.shape[1]
        last = -(y + part.spacing_yx_mm[0] * (rows - 1))
        parts[role] = replace(
            part, occupancy_zyx=np.ascontiguousarray(part.occupancy_zyx[:, ::-1]), origin_xy_mm=(x, last)
        )
    return replace(case, structures=parts)


CORRUPTED: Mapping[str, Corrupt] = MappingProxyType(
    {
        "a slice left empty": _on_gland(_empty_slice),
        "a slice displaced by 8-14 mm": _on_gland(_shifted_slice),
        "a slice at twice its size": _on_gland(_doubled_slice),
        "half the gland missing along z": _on_gland(_cut(0)),
        "half the gland missing along x": _on_gland(_cut(2)),
        "two pieces": _on_gland(_two_pieces),
        "rough outline": _on_gland(_rough),
        "urethra outside the gland": _urethra_outside,
        "CTV and rectum swapped": _swapped,
        "x spacing halved": _respaced(0.5, 1.0, 1.0),
        "z spacing halved": _respaced(1.0, 1.0, 0.5),
        "z spacing doubled": _respaced(1.0, 1.0, 2.0),
        "upside down": _upside_down,
        "back to front": _back_to_front,
    }
)
