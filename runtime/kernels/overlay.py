"""Classes painted over a frame in place: a blend of colours, and contour lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels.devices import Array, target

Colour = tuple[int, int, int]

_CLASSES = 256
_OPAQUE = 256
_NOT_DRAWN = 65535


@dataclass(frozen=True, slots=True)
class Palette:
    """Which classes are drawn, in what colour and how opaque; make it once with `palette`.

    Parameters
    ----------
    table : (256, 4) uint16, a class a row: its colour in the frame's channel order, and how many 256ths of it
        stand over the frame; 65535 there for a class that is not drawn.
    """

    table: npt.NDArray[np.uint16]


def palette(colours: Mapping[int, Colour], *, alpha: float | Mapping[int, float]) -> Palette:
    """Lay out colours for `overlay`. Classes that are not named are not drawn.

    Parameters
    ----------
    colours : three values from 0 to 255 a class, in the order of the frame's channels.
    alpha : opacity from 0 (only a contour shows) to 1, of all classes or of each.

    Raises
    ------
    InvalidInput
        A class, a colour or an opacity lies outside its range.
    """
    table = np.zeros((_CLASSES, 4), dtype=np.uint16)
    table[:, 3] = _NOT_DRAWN
    for label, colour in colours.items():
        if not 0 <= label < _CLASSES:
            raise InvalidInput(f"colours: expected classes from 0 to 255, got {label}")
        if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
            raise InvalidInput(
                f"colours: expected three values from 0 to 255 for class {label}, got {colour}"
            )
        opacity = alpha if isinstance(alpha, float | int) else alpha.get(label)
        if opacity is None or not 0 <= opacity <= 1:
            raise InvalidInput(f"alpha: expected an opacity from 0 to 1 for class {label}, got {opacity}")
        table[label] = (*colour, round(opacity * _OPAQUE))
    table.flags.writeable = False
    return Palette(table)


def overlay(
    frame: Array, labels: Array, palette: Palette, *, contour: int = 0, stream: int | None = None
) -> None:
    """Paint classes over a frame, in place.

    A pixel of a drawn class becomes (value * (256 - weight) + colour * weight + 128) // 256. On a contour it
    is the class's colour alone: where, within `contour` pixels along rows, columns and diagonals and inside
    the frame, a pixel has another label. So the line lies inside its class, also towards classes that are
    not drawn, and there is none along the frame's edge. Equals `overlay_reference` bit for bit.

    To touch only where classes are, pass views of both arrays: the union of the drawn classes' boxes, grown
    by `contour`, gives what the whole frame would.

    Parameters
    ----------
    frame : (H, W, 3) uint8, pixels of a row dense; rows may be padded or part of a larger frame.
    labels : (H, W) uint8, W dense.
    contour : thickness of the line, 0 (none) to 16 pixels.
    stream : handle of the CUDA stream, for arrays on a GPU.

    Raises
    ------
    InvalidInput
        An array or the thickness does not fit, or the arrays overlap; nothing was written.
    """
    where = target(stream, frame=frame, labels=labels)
    where.native.overlay(frame, labels, palette.table, contour, where.stream)


def overlay_reference(
    frame: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], palette: Palette, *, contour: int = 0
) -> None:
    """Specify `overlay` in NumPy."""
    if labels.size == 0:
        return
    weight = palette.table[labels, 3].astype(np.int32)
    drawn = weight != _NOT_DRAWN
    weight[_differs(labels, contour)] = _OPAQUE
    colour = palette.table[labels, :3].astype(np.int32)
    blended = (frame * (_OPAQUE - weight[..., None]) + colour * weight[..., None] + _OPAQUE // 2) // _OPAQUE
    frame[drawn] = blended[drawn]


def _differs(labels: npt.NDArray[np.uint8], reach: int) -> npt.NDArray[np.bool_]:
    """Whether a pixel within `reach` rows and columns of each has another label."""
    height, width = labels.shape
    around = np.pad(labels, reach, mode="edge")
    found = np.zeros(labels.shape, dtype=bool)
    for y in range(2 * reach + 1):
        for x in range(2 * reach + 1):
            found |= around[y : y + height, x : x + width] != labels
    return found
