"""The bowel as a body in space: a bent tube with folds, lumps on its wall, seen through a fisheye lens.

Lengths are in radii of the tube. Where a field is positive there is room, where it is negative flesh; a ray
ends where the field changes its sign.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from trocar.video.annotator.renderer.noise import Plane, cut
from trocar.video.annotator.renderer.tissue import grid

Vector = npt.NDArray[np.float32]
# Rows along the tube and columns around it of its table; it repeats after PERIOD.
ROWS, COLUMNS, PERIOD = 512, 192, 12.0
# How far rays are followed, in steps that grow.
_DEPTHS = np.geomspace(0.07, 13.0, 48).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Tube:
    """The wall: how far it is from the axis, by place along and around; and how the axis bends."""

    radius: Plane
    bend: tuple[float, float, float, float]

    def along(self, points: Plane) -> tuple[Plane, Plane, Plane]:
        """Distance from the axis, and column and row of the table, of points (3, ..)."""
        x, y, z = points
        wave, turn, reach, other = self.bend
        x = x - np.float32(reach) * np.sin(np.float32(wave) * z)
        y = y - np.float32(other) * np.sin(np.float32(wave) * z + np.float32(turn))
        away, angle = cv2.cartToPolar(x, y)
        row = z * np.float32(1 / PERIOD)
        row -= np.floor(row)
        row *= ROWS
        angle *= np.float32(COLUMNS / (2 * np.pi))
        return np.asarray(away, dtype=np.float32), np.asarray(angle, dtype=np.float32), row

    def field(self, points: Plane) -> Plane:
        """How far points (3, rows, columns) are from the wall, roughly."""
        away, column, row = self.along(points)
        wall = cv2.remap(self.radius, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        return np.asarray(wall - away, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Lump:
    """Something on the wall, nearly an ellipsoid.

    Parameters
    ----------
    centre : (3,).
    shape : (3, 3); takes an offset from the centre to the unit ball.
    size : least radius.
    waves : (n, 5); direction, phase and height of waves on its surface.
    blend : over what length it runs out into the wall.
    stalk : end and radius of a stalk from the centre, where there is one.
    """

    centre: Vector
    shape: Plane
    size: float
    waves: Plane
    blend: float
    stalk: tuple[Vector, float] | None = None

    def field(self, points: Plane) -> Plane:
        """How far points (3, ..) are from its surface, roughly."""
        flat = points.reshape(3, -1)
        ball = self.shape @ flat - (self.shape @ self.centre)[:, None]
        away = np.sqrt(np.einsum("ij,ij->j", ball, ball))
        away -= 1
        if self.waves[:, 4].any():
            away -= self.waves[:, 4] @ np.sin(self.waves[:, :3] @ ball + self.waves[:, 3:4])
        away *= np.float32(self.size)
        return np.asarray(away.reshape(points.shape[1:]), dtype=np.float32)

    def stalk_field(self, points: Plane) -> Plane:
        """How far points (3, ..) are from the stalk."""
        if self.stalk is None:
            return np.full(points.shape[1:], 1e3, dtype=np.float32)
        end, radius = self.stalk
        offset = points.reshape(3, -1) - self.centre[:, None]
        line = end - self.centre
        share = np.clip((line @ offset) / np.float32(line @ line), 0, 1)
        offset -= line[:, None] * share
        away = np.sqrt(np.einsum("ij,ij->j", offset, offset)) - np.float32(radius)
        return np.asarray(away.reshape(points.shape[1:]), dtype=np.float32)


@dataclass(slots=True)
class View:
    """What the lens sees at one size.

    Parameters
    ----------
    rays : (3, height, width) unit directions.
    start : (3,) of the lens.
    depth : (height, width) along the ray.
    owner : (lumps, height, width); above 0 where the lump is seen, roughly a length.
    """

    rays: Plane
    start: Vector
    depth: Plane
    owner: Plane = field(default_factory=lambda: np.zeros((0, 1, 1), dtype=np.float32))

    @property
    def points(self) -> Plane:
        """(3, height, width) of what is seen."""
        return np.asarray(self.start[:, None, None] + self.rays * self.depth, dtype=np.float32)

    def smaller(self, step: int) -> View:
        """The same lens with every `step`-th pixel's width."""
        size = (self.depth.shape[1] // step, self.depth.shape[0] // step)
        rays = np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in self.rays])
        rays /= np.sqrt((rays * rays).sum(axis=0))
        return View(
            np.ascontiguousarray(rays, dtype=np.float32), self.start, np.zeros(size[::-1], np.float32)
        )


def draw_tube(random: np.random.Generator) -> Tube:
    """A wall with folds one behind the other, most of them reaching part of the way around."""
    along = (np.arange(ROWS, dtype=np.float32)[:, None] + 0.5) * np.float32(PERIOD / ROWS)
    around = (np.arange(COLUMNS, dtype=np.float32)[None, :] + 0.5) * np.float32(2 * np.pi / COLUMNS)
    radius = np.full((ROWS, COLUMNS), 1.0, dtype=np.float32)
    # Three bands along the colon draw its section into a triangle.
    radius -= np.float32(random.uniform(0, 0.18)) * np.cos(3 * around + np.float32(random.uniform(0, 6.3)))
    place, spacing = 0.0, random.uniform(0.4, 1.6)
    tall, thick = random.uniform(0.05, 0.5), random.uniform(0.05, 0.2)
    plain = random.random() < 0.12
    while not plain:
        place += spacing * random.uniform(0.5, 1.6)
        if place > PERIOD - 0.3:
            break
        middle, reach = random.uniform(0, 2 * np.pi), random.uniform(0.5, 3.2)
        apart = np.abs((around - np.float32(middle) + np.pi) % np.float32(2 * np.pi) - np.pi)
        part = np.clip(1.2 - apart / np.float32(reach), 0, 1)
        part = part * part * (3 - 2 * part)
        line = (
            place
            + random.uniform(-0.15, 0.15) * np.cos(around - middle)
            + random.normal(0, 0.08) * np.cos(2 * around)
        )
        width = thick * random.uniform(0.6, 1.6)
        radius -= (tall * random.uniform(0.4, 1.3)) * part * np.exp(-(((along - line) / width) ** 2))
    # Slow unevenness; its tile repeats with neither axis, so it fades out at the seam.
    seam = np.clip(np.minimum(along, PERIOD - along) * 4, 0, 1) * np.clip(
        np.minimum(around, 2 * np.pi - around) * 4, 0, 1
    )
    for feature, height in ((70.0, 0.10), (22.0, 0.03)):
        radius += (
            cut(random, "cloud", (ROWS, COLUMNS), feature) * seam * np.float32(height * random.random())
        ).astype(np.float32)
    np.maximum(radius, 0.25, out=radius)
    bend = (random.uniform(0.2, 0.7), random.uniform(0, 6.3), random.normal(0, 0.35), random.normal(0, 0.35))
    return Tube(radius, bend)


def draw_view(random: np.random.Generator, tube: Tube, shape: tuple[int, int]) -> View:
    """Put the lens into the tube, looking along it or at the wall."""
    height, width = shape
    rows, columns = grid(shape)
    half = np.hypot(height, width) / 2
    down, right = (rows - height / 2) / half, (columns - width / 2) / half
    out = np.hypot(down, right)
    # Equidistant: the angle off the axis grows with the distance from the middle.
    angle = out * np.float32(np.deg2rad(random.uniform(45, 78)))
    spread = np.sin(angle) / np.maximum(out, 1e-6)
    rays = np.stack([right * spread, down * spread, np.cos(angle)]).astype(np.float32)
    tilt = np.deg2rad(random.uniform(0, 35) if random.random() < 0.45 else random.uniform(35, 100))
    turned = _rotation(random.uniform(0, 6.3), tilt, random.uniform(0, 6.3)) @ rays.reshape(3, -1)
    rays = turned.reshape(rays.shape)
    depth = np.zeros(shape, dtype=np.float32)
    for away in (random.uniform(0, 0.75), 0.3, 0.0):
        turn = random.uniform(0, 6.3)
        start = np.array([away * np.cos(turn), away * np.sin(turn), PERIOD / 2], dtype=np.float32)
        wave, phase, reach, other = tube.bend
        start[0] += reach * np.sin(wave * start[2])
        start[1] += other * np.sin(wave * start[2] + phase)
        if float(tube.field(start.reshape(3, 1, 1))[0, 0]) > 0.2:
            break
    return View(np.ascontiguousarray(rays, dtype=np.float32), start, depth)


def normals_of(view: View) -> Plane:
    """Unit normals (3, height, width) of what a view sees, into the room."""
    points = view.points
    right = np.stack([cv2.Sobel(plane, cv2.CV_32F, 1, 0, scale=0.125) for plane in points])
    down = np.stack([cv2.Sobel(plane, cv2.CV_32F, 0, 1, scale=0.125) for plane in points])
    normals = np.cross(down, right, axis=0)
    normals /= np.maximum(np.sqrt((normals * normals).sum(axis=0)), 1e-9)
    return np.asarray(normals, dtype=np.float32)


def march(tube: Tube, view: View, lumps: list[Lump]) -> None:
    """Find what each ray meets first; fills the view's depth and owners."""
    shape = view.depth.shape
    steps = len(_DEPTHS)
    rays = view.rays.reshape(3, 1, -1)
    points = view.start[:, None, None] + rays * _DEPTHS[None, :, None]
    # As a picture for OpenCV, which takes no side of more than 32767.
    room = tube.field(points.reshape(3, steps * shape[0], shape[1])).reshape(steps, -1)
    for lump in lumps:
        near = _near(lump, view)
        room[:, near] = _joined(room[:, near], lump, points[:, :, near])
    flesh = room < 0
    hit = flesh.argmax(axis=0)
    hit[~flesh.any(axis=0)] = steps - 1
    hit = np.maximum(hit, 1)
    each = np.arange(room.shape[1])
    before, after = room[hit - 1, each], room[hit, each]
    share = np.clip(before / np.where(before - after > 1e-6, before - after, 1.0), 0, 1)
    depth = _DEPTHS[hit - 1] + (_DEPTHS[hit] - _DEPTHS[hit - 1]) * share
    view.depth = depth.reshape(shape).astype(np.float32)
    refine(tube, view, lumps, (_DEPTHS[hit] - _DEPTHS[hit - 1]).reshape(shape))


def refine(tube: Tube, view: View, lumps: list[Lump], span: Plane) -> None:
    """Bring depths onto the surface, and say whose it is."""
    for _ in range(2):
        view.depth = view.depth + np.clip(_whole(tube, view, lumps), -0.4 * span, 0.4 * span) * np.float32(
            0.7
        )
    np.clip(view.depth, _DEPTHS[0], _DEPTHS[-1], out=view.depth)
    points = view.points
    wall = tube.field(points)
    owner = [wall - lump.field(points) for lump in lumps]
    view.owner = np.stack(owner) if owner else np.zeros((0, *wall.shape), dtype=np.float32)


def _whole(tube: Tube, view: View, lumps: list[Lump]) -> Plane:
    points = view.points
    room = tube.field(points)
    for lump in lumps:
        room = _joined(room, lump, points)
    return room


def _joined(room: Plane, lump: Lump, points: Plane) -> Plane:
    """The field with a lump, run together smoothly."""
    room = _smooth_least(room, lump.field(points), lump.blend)
    if lump.stalk is not None:
        room = _smooth_least(room, lump.stalk_field(points), lump.blend)
    return room


def _smooth_least(a: Plane, b: Plane, over: float) -> Plane:
    share = a - b
    share *= np.float32(0.5 / over)
    share += np.float32(0.5)
    np.clip(share, 0, 1, out=share)
    joined = b - a
    joined -= np.float32(over) * (1 - share)
    joined *= share
    joined += a
    return joined


def _near(lump: Lump, view: View) -> npt.NDArray[np.intp]:
    """The rays that may meet it."""
    middle = lump.centre - view.start
    reach = 1.35 / float(np.linalg.svd(lump.shape, compute_uv=False)[-1]) + lump.blend
    if lump.stalk is not None:
        reach += float(np.linalg.norm(lump.stalk[0] - lump.centre))
    away = float(np.linalg.norm(middle))
    if away <= reach:
        return np.arange(view.rays[0].size)
    least = np.sqrt(1 - (reach / away) ** 2)
    return np.flatnonzero((middle / np.float32(away)) @ view.rays.reshape(3, -1) > least)


def _rotation(first: float, tilt: float, last: float) -> Plane:
    def about_z(angle: float) -> Plane:
        c, s = np.cos(angle), np.sin(angle)
        return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=np.float32)

    c, s = np.cos(tilt), np.sin(tilt)
    return about_z(first) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]], dtype=np.float32) @ about_z(last)
