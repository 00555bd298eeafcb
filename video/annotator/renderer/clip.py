"""A rendered operation in short: phases by name, instruments that come, work and go, a camera that moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from trocar.runtime.errors import InvalidInput
from trocar.video.annotator.renderer.clutter import add_clutter, soil
from trocar.video.annotator.renderer.effects import (
    Border,
    Camera,
    add_smoke,
    draw_border,
    draw_camera,
    photograph,
)
from trocar.video.annotator.renderer.instruments import Instrument, Pose, draw_instrument
from trocar.video.annotator.renderer.noise import Plane, cut
from trocar.video.annotator.renderer.poses import to_edge
from trocar.video.annotator.renderer.scene import Scene, cast_shadow, lay, visible
from trocar.video.annotator.renderer.strokes import draw_layer
from trocar.video.annotator.renderer.tissue import paint_tissue
from trocar.video.types import HEIGHT, WIDTH, PixelClass

OUT_OF_BODY = "out-of-body"
# How much larger the painted world is than what the camera shows of it.
_WORLD = 1.35
# An instrument takes this long to come in or go out, s.
_TRAVEL_S = 0.6


@dataclass(frozen=True, slots=True)
class Phase:
    """A step of the operation.

    Parameters
    ----------
    share : of the clip's length.
    tools : kinds of instruments at work.
    smoke : its greatest density.
    """

    name: str
    share: float
    tools: tuple[str, ...] = ()
    smoke: float = 0.0


SCRIPT = (
    Phase(OUT_OF_BODY, 0.08),
    Phase("inspection", 0.14, ("grasper",)),
    Phase("dissection", 0.34, ("grasper", "hook"), smoke=0.7),
    Phase("clipping", 0.2, ("grasper", "clip-applier")),
    Phase("cleaning", 0.16, ("grasper", "suction")),
    Phase("closing", 0.08),
)


@dataclass(frozen=True, slots=True)
class ClipFrame:
    """A frame of a clip.

    Parameters
    ----------
    number : from 0.
    time_s : since the clip's begin.
    phase : one of the script's names.
    """

    scene: Scene
    number: int
    time_s: float
    phase: str


@dataclass(frozen=True, slots=True)
class _Path:
    """A smooth wander around 0, of about unit size: three slow waves."""

    speeds: tuple[float, ...]
    starts: tuple[float, ...]

    def at(self, time_s: float) -> float:
        pairs = zip(self.speeds, self.starts, strict=True)
        return float(sum(np.sin(speed * time_s + start) for speed, start in pairs) / 1.7)


@dataclass(frozen=True, slots=True)
class _Hand:
    """One instrument through the clip: where its port is, how it moves, when it is in."""

    instrument: Instrument
    seed: tuple[int, ...]
    port_xy: tuple[float, float]
    target_xy: tuple[float, float]
    sway_px: float
    radius: float
    paths: tuple[_Path, ...]
    since_s: float
    until_s: float

    def pose(self, time_s: float, shape: tuple[int, int]) -> Pose | None:
        """Its pose, or None while it is out."""
        inside = min(time_s - self.since_s, self.until_s - time_s) / _TRAVEL_S
        if inside <= 0:
            return None
        right, down, wrist, jaw = (path.at(time_s) for path in self.paths)
        x, y = self.target_xy[0] + self.sway_px * right, self.target_xy[1] + self.sway_px * down
        away = 1.0 - min(1.0, inside)
        x, y = x + (self.port_xy[0] - x) * away, y + (self.port_xy[1] - y) * away
        angle = float(np.arctan2(y - self.port_xy[1], x - self.port_xy[0]))
        opening = 0.45 * (1 + jaw) if self.instrument.opens else 0.0
        reach = to_edge((x, y), angle, shape) + 4 * self.radius
        return Pose((x, y), angle, self.radius, reach, 0.4 * wrist, max(0.0, opening))


def render_clip(
    seed: int,
    frames: int,
    fps: float,
    shape: tuple[int, int] = (HEIGHT, WIDTH),
    script: tuple[Phase, ...] = SCRIPT,
) -> Iterator[ClipFrame]:
    """Render a clip frame by frame; the same arguments give the same frames.

    Parameters
    ----------
    frames : how many; phases share them out.
    fps : frames a second.
    shape : height and width, px.

    Raises
    ------
    InvalidInput
        No frames, no rate, or a size too small to show anything.
    """
    if frames < 1 or not fps > 0 or min(shape) < 32 or not script:
        raise InvalidInput(
            f"clip: expected frames, a rate and 32 px or more, got {frames} frames, {fps} a second, {shape}"
        )
    return _frames(seed, frames, fps, shape, script)


def phase_spans(frames: int, script: tuple[Phase, ...] = SCRIPT) -> list[tuple[int, int]]:
    """First frame and the one after the last, of each phase."""
    ends = np.round(np.cumsum([phase.share for phase in script]) / sum(p.share for p in script) * frames)
    return list(zip([0, *ends[:-1].astype(int).tolist()], ends.astype(int).tolist(), strict=True))


def _frames(
    seed: int, frames: int, fps: float, shape: tuple[int, int], script: tuple[Phase, ...]
) -> Iterator[ClipFrame]:
    random = np.random.default_rng((0x636C_6970, seed))
    world = (int(shape[0] * _WORLD), int(shape[1] * _WORLD))
    planes = paint_tissue(random, world).colour
    add_clutter(random, planes)
    room = _room(random, shape)
    border, camera = draw_border(random, shape), _steady(draw_camera(random))
    spans = phase_spans(frames, script)
    hands = _hands(random, seed, shape, border, script, [(a / fps, b / fps) for a, b in spans])
    view = tuple(_path(random, 0.5) for _ in range(4))
    for phase, (first, after) in zip(script, spans, strict=True):
        for number in range(first, after):
            time_s = number / fps
            if phase.name == OUT_OF_BODY:
                scene = _shown(
                    seed, number, room.copy(), np.ones(shape, np.uint8), np.zeros((0, 2)), border, camera
                )
            else:
                around = _looked_at(planes, view, time_s, shape)
                share = (number - first) / max(1, after - first)
                smoke = phase.smoke * np.sin(np.pi * share) ** 2
                scene = _operated(seed, number, time_s, around, hands, smoke, border, camera)
            yield ClipFrame(scene, number, time_s, phase.name)


def _operated(
    seed: int,
    number: int,
    time_s: float,
    planes: Plane,
    hands: list[_Hand],
    smoke: float,
    border: Border,
    camera: Camera,
) -> Scene:
    shape = (planes.shape[1], planes.shape[2])
    labels = np.full(shape, PixelClass.TISSUE, dtype=np.uint8)
    tips = np.zeros((0, 2))
    for hand in hands:
        pose = hand.pose(time_s, shape)
        if pose is None:
            continue
        # The same draws in every frame: soil and shadow stay as they are.
        own = np.random.default_rng(hand.seed)
        layer = draw_layer(hand.instrument, pose, shape)
        soil(own, layer)
        cast_shadow(own, planes, layer)
        tips = lay(planes, labels, tips, layer)
    if smoke > 0.02:
        add_smoke(np.random.default_rng((0x736D_6F6B, seed)), planes, smoke)
    return _shown(seed, number, planes, labels, tips, border, camera)


def _shown(
    seed: int,
    number: int,
    planes: Plane,
    labels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    tips: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    border: Border,
    camera: Camera,
) -> Scene:
    image, seen = photograph(np.random.default_rng((0x6E6F_6973, seed, number)), planes, border, camera)
    labels[~seen] = PixelClass.BACKGROUND
    return Scene(image, labels, visible(tips, labels))


def _hands(
    random: np.random.Generator,
    seed: int,
    shape: tuple[int, int],
    border: Border,
    script: tuple[Phase, ...],
    spans_s: list[tuple[float, float]],
) -> list[_Hand]:
    """An instrument for each kind in each run of phases that use it."""
    hands: list[_Hand] = []
    open_runs: dict[str, int] = {}
    for phase, (since_s, until_s) in zip(script, spans_s, strict=True):
        for kind in [kind for kind in open_runs if kind not in phase.tools]:
            del open_runs[kind]
        for place, kind in enumerate(phase.tools):
            if kind in open_runs:
                hands[open_runs[kind]] = replace(hands[open_runs[kind]], until_s=until_s)
                continue
            open_runs[kind] = len(hands)
            seeds = (seed, len(hands))
            hands.append(_hand(random, seeds, kind, place, shape, border, (since_s, until_s)))
    return hands


def _hand(
    random: np.random.Generator,
    seed: tuple[int, ...],
    kind: str,
    place: int,
    shape: tuple[int, int],
    border: Border,
    span_s: tuple[float, float],
) -> _Hand:
    height, width = shape
    half_height, half_width = min(border.half[0], height / 2), min(border.half[1], width / 2)
    side = 1.0 if place % 2 else -1.0
    port = (width / 2 + side * half_width * 1.15, height / 2 + random.uniform(-0.6, 0.9) * half_height)
    target = (
        width / 2 + side * random.uniform(0.05, 0.3) * half_width,
        height / 2 + random.uniform(-0.3, 0.3) * half_height,
    )
    radius = float(random.uniform(7, 16)) * height / 256
    paths = tuple(_path(random, speed) for speed in (1.4, 1.4, 0.8, 2.2))
    sway = float(random.uniform(0.1, 0.22)) * half_height
    return _Hand(draw_instrument(random, kind), seed, port, target, sway, radius, paths, *span_s)


def _looked_at(planes: Plane, view: tuple[_Path, ...], time_s: float, shape: tuple[int, int]) -> Plane:
    """What the camera shows of the world: moved, turned and nearer or farther."""
    right, down, turn, near = (path.at(time_s) for path in view)
    room = (_WORLD - 1) / 2
    zoom = 1.0 + 0.06 * near
    matrix = cv2.getRotationMatrix2D((planes.shape[2] / 2, planes.shape[1] / 2), 3.0 * turn, zoom)
    matrix[0, 2] += shape[1] / 2 - planes.shape[2] / 2 + 0.45 * room * shape[1] * right
    matrix[1, 2] += shape[0] / 2 - planes.shape[1] / 2 + 0.45 * room * shape[0] * down
    size = (shape[1], shape[0])
    shown = [cv2.warpAffine(plane, matrix, size, borderMode=cv2.BORDER_REFLECT) for plane in planes]
    return np.stack(shown).astype(np.float32)


def _room(random: np.random.Generator, shape: tuple[int, int]) -> Plane:
    """Outside the body: drapes, a lamp, blurred shapes; nothing red and wet."""
    unit = shape[0] / 256.0
    base = ((0.16, 0.34, 0.36), (0.18, 0.26, 0.42), (0.55, 0.56, 0.56), (0.2, 0.36, 0.28))[
        int(random.integers(4))
    ]
    image = np.empty((*shape, 3), dtype=np.float32)
    image[:] = base
    for _ in range(int(random.integers(5, 12))):
        corner = random.uniform((-0.2, -0.2), (1.0, 1.0)) * (shape[1], shape[0])
        size = random.uniform(0.1, 0.5, 2) * (shape[1], shape[0])
        grey = random.uniform(0.05, 0.8) * np.exp(random.normal(0, 0.08, 3))
        end = corner + size
        cv2.rectangle(
            image, tuple(int(v) for v in corner), tuple(int(v) for v in end), tuple(map(float, grey)), -1
        )
    lamp = tuple(int(v) for v in random.uniform((0, 0), (shape[1], shape[0])))
    cv2.circle(image, lamp, int(random.uniform(15, 50) * unit), (1.3, 1.3, 1.25), -1)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), random.uniform(2, 9) * unit), dtype=np.float32)
    shade = 1 + 0.15 * cut(random, "cloud", shape, 120 * unit)
    return np.ascontiguousarray(np.moveaxis(image * shade[..., None], 2, 0), dtype=np.float32)


def _path(random: np.random.Generator, speed: float) -> _Path:
    speeds = speed * random.uniform(0.4, 1.6, 3)
    starts = random.uniform(0, 2 * np.pi, 3)
    return _Path(tuple(map(float, speeds)), tuple(map(float, starts)))


def _steady(camera: Camera) -> Camera:
    """A clip is for looking at: the camera's faults are mild."""
    return replace(
        camera,
        noise=min(camera.noise, 0.015),
        blur=min(camera.blur, 0.6),
        shrink=1.0,
        captioned=0.0,
        jpeg=max(camera.jpeg, 85),
        saturation=float(np.clip(camera.saturation, 0.8, 1.2)),
        gamma=float(np.clip(camera.gamma, 0.8, 1.2)),
        contrast=float(np.clip(camera.contrast, 0.8, 1.1)),
        gains=tuple(np.clip(camera.gains, 0.85, 1.25).tolist()),
    )
