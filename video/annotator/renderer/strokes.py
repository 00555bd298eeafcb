"""Draw an instrument in a pose: colour, coverage, labels and tips."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from trocar.video.annotator.renderer.instruments import Instrument, Part, Pose
from trocar.video.annotator.renderer.noise import Plane
from trocar.video.annotator.renderer.skins import COLUMNS, ROWS

Labels = npt.NDArray[np.uint8]
# Where along a jaw its tip is taken, so that it lies within it.
_TIP = 0.94


@dataclass(slots=True)
class Layer:
    """One instrument on nothing.

    Parameters
    ----------
    colour : (3, height, width), multiplied by the coverage.
    cover : (height, width), 0 to 1.
    labels : (height, width), 0 where it is not.
    tips_xy : (n, 2) px.
    """

    colour: Plane
    cover: Plane
    labels: Labels
    tips_xy: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Placed:
    """A part in the frame; widths in px."""

    part: Part
    x: float
    y: float
    angle: float
    length: float
    base: float
    end: float

    def point(self, share: float) -> tuple[float, float]:
        """The middle of the ribbon at a share of its length."""
        along, across = share * self.length, self.part.bend * self.length * share**2
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return self.x + along * cos - across * sin, self.y + along * sin + across * cos


def draw_layer(instrument: Instrument, pose: Pose, shape: tuple[int, int]) -> Layer:
    """Draw an instrument."""
    layer = Layer(
        np.zeros((3, *shape), dtype=np.float32),
        np.zeros(shape, dtype=np.float32),
        np.zeros(shape, dtype=np.uint8),
        np.zeros((0, 2)),
    )
    placed = place(instrument, pose)
    for each in placed:
        _stroke(layer, each)
    tips = [each.point(_TIP) for each in placed if each.part.tip]
    layer.tips_xy = np.array(_merged(tips, 0.5 * pose.radius)).reshape(-1, 2)
    return layer


def place(instrument: Instrument, pose: Pose) -> list[_Placed]:
    """Parts in the order in which they are drawn, the shaft first."""
    x, y = pose.joint_xy
    back = (x - pose.reach * np.cos(pose.angle), y - pose.reach * np.sin(pose.angle))
    shaft = _Placed(
        instrument.shaft, *back, pose.angle, pose.reach, pose.radius * instrument.taper, pose.radius
    )
    wrists, angle = [], pose.angle
    for part in instrument.wrists:
        angle += part.turn * pose.wrist
        wrists.append(_at(part, x, y, angle, pose.radius))
        x, y = wrists[-1].point(0.9)
    claspers = [
        _at(part, x, y, angle + part.turn + part.side * pose.opening / 2, pose.radius, angle)
        for part in instrument.claspers
    ]
    return [shaft, *claspers[:1], *wrists, *claspers[1:]] if instrument.opens else [shaft, *wrists, *claspers]


def _at(part: Part, x: float, y: float, angle: float, radius: float, parent: float | None = None) -> _Placed:
    parent = angle if parent is None else parent
    along, across = part.start[0] * radius, part.start[1] * radius
    cos, sin = np.cos(parent), np.sin(parent)
    x, y = x + along * cos - across * sin, y + along * sin + across * cos
    return _Placed(part, x, y, angle, part.length * radius, part.base * radius, part.end * radius)


def _merged(tips: list[tuple[float, float]], apart: float) -> list[tuple[float, float]]:
    """The two tips of closed jaws are one: the first."""
    kept: list[tuple[float, float]] = []
    for tip in tips:
        if all(np.hypot(tip[0] - other[0], tip[1] - other[1]) > max(apart, 3.0) for other in kept):
            kept.append(tip)
    return kept


def _stroke(layer: Layer, placed: _Placed) -> None:
    """Lay one ribbon over what is there."""
    part, shape = placed.part, layer.cover.shape
    window = _window(placed, (shape[0], shape[1]))
    if window is None:
        return
    rows, columns = window
    dx = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] + np.float32(0.5 - placed.x)
    dy = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.float32(0.5 - placed.y)
    cos, sin = np.float32(np.cos(placed.angle)), np.float32(np.sin(placed.angle))
    along = dx * cos + dy * sin
    across = dy * cos - dx * sin
    share = np.clip(along / np.float32(placed.length), 0, 1)
    if part.bend:
        across = across - np.float32(part.bend * placed.length) * share * share
    profile = share if part.power == 1.0 else share ** np.float32(part.power)
    half = np.float32(placed.base) + np.float32(placed.end - placed.base) * profile
    if part.waves[0]:
        size, count, phase = (np.float32(value) for value in part.waves)
        half = half * (1 + size * np.sin(count * share + phase))
    if part.blunt:
        rest = np.clip((1 - share) / np.float32(part.blunt), 0, 1)
        half = half * np.sqrt(rest * (2 - rest))
    edge = np.minimum(half - np.abs(across), np.minimum(along, np.float32(placed.length) - along))
    cover = np.clip(edge + 0.5, 0, 1)
    if part.hole[2]:
        low, high, wide = part.hole
        inside = np.minimum(
            np.minimum(share - low, high - share) * placed.length, half * wide - np.abs(across)
        )
        cover = np.minimum(cover, np.clip(0.5 - inside, 0, 1))
    girth = across / np.maximum(half, 0.5)
    shade = cv2.remap(
        part.skin,
        share * np.float32(COLUMNS - 1),
        (girth + 1) * np.float32((ROWS - 1) / 2),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    body, shine = np.minimum(shade, 1.0), np.maximum(shade - 1.0, 0.0)
    rest = 1 - cover
    for plane, tint in zip(layer.colour, part.tint, strict=True):
        view = plane[rows, columns]
        view *= rest
        view += (body * np.float32(tint) + shine) * cover
    view = layer.cover[rows, columns]
    np.maximum(view * rest + cover, 0, out=view)
    layer.labels[rows, columns][cover > 0.5] = part.label


def _window(placed: _Placed, shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """The rows and columns that a part can touch."""
    ends = np.array([(placed.x, placed.y), placed.point(0.5), placed.point(1.0)])
    half = max(placed.base, placed.end) + 2
    low, high = np.floor(ends.min(0) - half), np.ceil(ends.max(0) + half)
    left, top = (int(max(0, value)) for value in low)
    right, bottom = int(min(shape[1], high[0])), int(min(shape[0], high[1]))
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None
