"""Polyps in the bowel: the second model's frames."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from trocar.video.annotator.renderer.effects import Camera, Image, draw_border, draw_camera, photograph
from trocar.video.annotator.renderer.noise import Plane, cut
from trocar.video.annotator.renderer.scene import Scene
from trocar.video.annotator.renderer.tissue import add_blood, add_vessels, grid, light
from trocar.video.types import HEIGHT, WIDTH

_COLOURS = np.array(
    [
        (0.80, 0.50, 0.34),
        (0.84, 0.54, 0.48),
        (0.88, 0.70, 0.58),
        (0.70, 0.32, 0.26),
        (0.84, 0.62, 0.36),
        (0.62, 0.40, 0.30),
    ],
    dtype=np.float32,
)
_COUNT = (0.12, 0.72, 0.13, 0.03)


def render_polyp(seed: int | tuple[int, ...], shape: tuple[int, int] = (HEIGHT, WIDTH)) -> Scene:
    """Render one frame of a colonoscopy; labels are 1 on polyps and 0 elsewhere, and there are no tips."""
    random = np.random.default_rng(seed)
    # Colonoscopes have nearly square pictures, which the network sees drawn out.
    drawn = (shape[0], round(shape[0] * random.uniform(1.1, 1.8) / 16) * 16)
    unit = drawn[0] / 256.0
    relief, dark = _bowel(random, drawn, unit)
    colour = _mucosa(random, drawn, unit)
    labels = np.zeros(drawn, dtype=np.uint8)
    for _ in range(int(random.choice(len(_COUNT), p=_COUNT))):
        relief, dark = _add_polyp(random, colour, relief, dark, labels, unit)
    if random.random() < 0.2:
        _debris(random, colour, relief, unit)
    add_vessels(random, colour, unit)
    wet = add_blood(random, colour, unit) if random.random() < 0.12 else 0.0
    planes = light(random, colour * dark, relief, wet, unit, uneven=0.25)
    kind = ("none", "octagon", "circle", "bars")[int(random.choice(4, p=(0.25, 0.5, 0.1, 0.15)))]
    border = draw_border(random, drawn, kind)
    image, seen = photograph(random, planes, border, _camera(random))
    if random.random() < 0.3:
        _inset(random, image)
    labels[~seen] = 0
    size = (shape[1], shape[0])
    return Scene(
        np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8),
        np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8),
        np.zeros((0, 2)),
    )


def _bowel(random: np.random.Generator, shape: tuple[int, int], unit: float) -> tuple[Plane, Plane]:
    """Relief and darkness of a tube seen along its length, with folds one behind the other."""
    rows, columns = grid(shape)
    relief = cut(random, "cloud", shape, random.uniform(60, 180) * unit) * random.uniform(1, 9) * unit
    relief += cut(random, "cloud", shape, random.uniform(8, 40) * unit) * 0.6 * random.random() ** 2 * unit
    dark = np.ones(shape, dtype=np.float32)
    row, column = random.uniform(-0.2, 1.2) * shape[0], random.uniform(-0.2, 1.2) * shape[1]
    squash = random.uniform(0.6, 1.6)
    warp = cut(random, "cloud", shape, random.uniform(60, 180) * unit) * random.uniform(2, 18) * unit
    far = np.hypot((columns - column) * squash, rows - row) + warp
    if random.random() < 0.75:
        hole = random.uniform(5, 70) * unit
        dark *= np.clip(far / hole, 0, None) ** 2 / (1 + np.clip(far / hole, 0, None) ** 2) * 0.97 + 0.03
    if random.random() < 0.7:
        turns = random.uniform(1.2, 4.0)
        phase = np.log(np.maximum(far, 1.0) / (20 * unit)) * turns + random.uniform(0, 1)
        share = np.asarray(phase - np.floor(phase), dtype=np.float32)
        sector = np.clip(0.6 + cut(random, "cloud", shape, random.uniform(80, 200) * unit) * 0.6, 0, 1)
        depth = random.uniform(0.1, 0.7) * sector
        # From a crest the wall turns away until the next fold hides it.
        dark *= 1 - depth * (1 - share) ** random.uniform(1.0, 4.0)
        relief += sector * np.sin(np.pi * share) * random.uniform(0, 10) * unit
    return np.asarray(relief, dtype=np.float32), np.asarray(dark, dtype=np.float32)


def _mucosa(random: np.random.Generator, shape: tuple[int, int], unit: float) -> Plane:
    first, other = _colour(random), _colour(random)
    other = first + (other - first) * random.uniform(0, 0.4)
    mix = np.clip(0.5 + 0.4 * cut(random, "cloud", shape, random.uniform(40, 180) * unit), 0, 1)
    detail = 1 + random.uniform(0, 0.1) * cut(random, "rough", shape, random.uniform(5, 40) * unit)
    return np.stack([(a + (b - a) * mix) * detail for a, b in zip(first, other, strict=True)]).astype(
        np.float32
    )


def _colour(random: np.random.Generator) -> Plane:
    base = _COLOURS[int(random.integers(len(_COLOURS)))]
    return np.asarray(
        np.clip(base * np.exp(random.normal(0, 0.07, 3) + random.normal(0, 0.15)), 0.02, 1), dtype=np.float32
    )


def _add_polyp(
    random: np.random.Generator,
    colour: Plane,
    relief: Plane,
    dark: Plane,
    labels: npt.NDArray[np.uint8],
    unit: float,
) -> tuple[Plane, Plane]:
    """Raise a lump, from flat to on a stalk; returns relief and darkness with it."""
    shape = (relief.shape[0], relief.shape[1])
    rows, columns = grid(shape)
    small = float(np.exp(random.uniform(np.log(22), np.log(140)))) * unit
    large = small * random.uniform(1.0, 1.7)
    turn = random.uniform(0, np.pi)
    y, x = random.uniform(0.1, 0.9) * shape[0], random.uniform(0.1, 0.9) * shape[1]
    across = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
    along = (rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)
    # Polyps are smooth in outline: only the noise's slow part is kept.
    wide = round(random.uniform(0.1, 0.4) * small) | 1
    warp = cv2.blur(cut(random, "cloud", shape, random.uniform(0.8, 2.5) * small), (wide, wide))
    warp = np.asarray(warp) * random.uniform(0.02, 0.2) * small
    inside = (1 - np.sqrt((across / small) ** 2 + (along / large) ** 2)) * small + warp
    part = np.clip(inside / (small * random.uniform(0.4, 1.0)), 0, 1)
    tall = small * random.uniform(0.25, 0.9)
    dome = np.sqrt(part * (2 - part)) * tall
    lobes = cut(random, "cells" if random.random() < 0.5 else "cloud", shape, random.uniform(6, 40) * unit)
    dome += lobes * random.uniform(0, 1.2) * unit * (part > 0)
    over = np.clip(inside / (random.uniform(1, 0.25 * small / unit + 1.5) * unit), 0, 1)
    relief = relief * (1 - over * random.uniform(0.3, 1.0)) + dome
    side = np.array([np.cos(turn * 2), np.sin(turn * 2)]) * random.uniform(0, 8) * unit
    shadow = np.exp(
        -np.clip(-np.roll(inside, np.round(side).astype(int), (0, 1)), 0, None)
        / (random.uniform(2, 9) * unit)
    )
    dark = dark * np.where(inside > 0, 1.0, 1 - random.uniform(0.15, 0.75) * shadow)
    dark = np.where(inside > 0, dark + (1 - dark) * random.uniform(0.2, 1.0) * over, dark)
    # Redder, paler, darker or yellower than the bowel around it.
    change = ((1.05, 0.72, 0.72), (1.12, 1.2, 1.2), (0.75, 0.65, 0.65), (1.05, 0.95, 0.7))[
        int(random.integers(4))
    ]
    strength = random.uniform(0.3, 1.3)
    texture = "cells" if random.random() < 0.6 else "rough"
    mottle = 1 + random.uniform(0, 0.15) * cut(random, texture, shape, random.uniform(4, 16) * unit)
    for plane, factor in zip(colour, change, strict=True):
        plane *= 1 + over * (mottle * factor**strength - 1)
    labels[inside > 0] = 1
    return np.asarray(relief, dtype=np.float32), np.asarray(dark, dtype=np.float32)


def _camera(random: np.random.Generator) -> Camera:
    """Colonoscopes expose more evenly than laparoscopes do, and bowel has one colour."""
    camera = draw_camera(random)
    gains = np.clip(camera.gains, 0.75, 1.35)
    return replace(
        camera,
        gains=(float(gains[0]), float(gains[1]), float(gains[2])),
        gamma=float(np.clip(camera.gamma, 0.75, 1.25)),
        contrast=float(np.clip(camera.contrast, 0.75, 1.15)),
        saturation=float(np.clip(camera.saturation, 0.75, 1.35)),
        noise=0.5 * camera.noise,
    )


def _debris(random: np.random.Generator, colour: Plane, relief: Plane, unit: float) -> None:
    """Stool, mucus and bubbles: raised too, and no polyp."""
    shape = (relief.shape[0], relief.shape[1])
    noise = cut(random, "cloud", shape, random.uniform(10, 50) * unit)
    share = np.clip((noise - random.uniform(1.2, 2.2)) * 4, 0, 1)
    tint = ((0.55, 0.42, 0.12), (0.75, 0.7, 0.5), (0.35, 0.3, 0.1))[int(random.integers(3))]
    for plane, value in zip(colour, tint, strict=True):
        plane += (np.float32(value) - plane) * share * 0.9
    relief += share * random.uniform(0.5, 4) * unit


def _inset(random: np.random.Generator, image: Image) -> None:
    """The small panel in a corner that shows how the endoscope lies."""
    height, width = image.shape[:2]
    size = (int(random.uniform(0.1, 0.3) * width), int(random.uniform(0.15, 0.35) * height))
    left = 0 if random.random() < 0.8 else width - size[0]
    top = height - size[1] if random.random() < 0.8 else 0
    colour = ((20, 90, 40), (20, 40, 110), (10, 10, 10), (60, 120, 60))[int(random.integers(4))]
    cv2.rectangle(image, (left, top), (left + size[0], top + size[1]), colour, -1)
    points = random.uniform((left, top), (left + size[0], top + size[1]), (12, 2))
    cv2.polylines(image, [points.astype(np.int32)], False, (200, 220, 120), 1, cv2.LINE_AA)
