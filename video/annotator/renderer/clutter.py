"""What is no instrument but looks like one, and what hides instruments: thread, gauze, clips, blood."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from trocar.video.annotator.renderer.noise import Plane, cut
from trocar.video.annotator.renderer.strokes import Labels, Layer
from trocar.video.types import PixelClass


def add_clutter(random: np.random.Generator, planes: Plane) -> None:
    """Thread, needles, clips and gauze on the tissue; all of it is tissue to the labels."""
    if random.random() < 0.22:
        for _ in range(int(random.integers(1, 4))):
            _thread(random, planes)
    if random.random() < 0.1:
        _gauze(random, planes)
    if random.random() < 0.12:
        for _ in range(int(random.integers(1, 5))):
            _clip(random, planes)


def soil(random: np.random.Generator, layer: Layer) -> None:
    """Light that falls off along an instrument, and blood on it."""
    shape = (layer.cover.shape[0], layer.cover.shape[1])
    unit = shape[0] / 256.0
    gain = np.exp(
        random.normal(0, 0.25)
        + cut(random, "cloud", shape, random.uniform(60, 200) * unit) * random.uniform(0, 0.35)
    )
    layer.colour *= gain
    if random.random() < 0.25:
        noise = cut(random, "cloud", shape, random.uniform(12, 50) * unit)
        share = np.clip((noise - random.uniform(0, 1.5)) * 3, 0, 1) * random.uniform(0.3, 0.9)
        blood = (random.uniform(0.25, 0.6), random.uniform(0.01, 0.1), random.uniform(0.01, 0.1))
        for plane, value in zip(layer.colour, blood, strict=True):
            plane += (np.float32(value) * layer.cover - plane) * share


def cover_tips(
    random: np.random.Generator, planes: Plane, labels: Labels, tips: npt.NDArray[np.float64], below: Plane
) -> npt.NDArray[np.float64]:
    """Bury the last tip in the tissue that was there before; returns the tips, for the labels to judge."""
    if not len(tips):
        return tips
    shape = (labels.shape[0], labels.shape[1])
    unit = shape[0] / 256.0
    x, y = tips[-1]
    rows = np.arange(shape[0], dtype=np.float32)[:, None] + 0.5
    columns = np.arange(shape[1], dtype=np.float32)[None, :] + 0.5
    warp = cut(random, "cloud", shape, random.uniform(20, 60) * unit) * 4 * unit
    share = np.clip(random.uniform(4, 26) * unit - np.hypot(columns - x, rows - y) + warp, 0, 1)
    planes += (below - planes) * share
    labels[(share > 0.5) & (labels > PixelClass.TISSUE)] = PixelClass.TISSUE
    return tips


def _thread(random: np.random.Generator, planes: Plane) -> None:
    """Suture, or a curved needle of steel."""
    height, width = planes.shape[1:]
    unit = height / 256.0
    start = random.uniform((0, 0), (width, height))
    if random.random() < 0.3:
        centre = tuple(int(v) for v in start)
        axis = int(random.uniform(5, 18) * unit)
        begin = random.uniform(0, 360)
        mask = np.zeros((height, width), dtype=np.uint8)
        cv2.ellipse(
            mask,
            centre,
            (axis, axis),
            0,
            begin,
            begin + random.uniform(120, 200),
            255,
            max(1, round(unit * 1.5)),
            cv2.LINE_AA,
        )
        colour = np.full(3, random.uniform(0.5, 1.2))
    else:
        turns = random.uniform(0, 2 * np.pi) + np.cumsum(random.normal(0, 0.2, 40))
        points = start + np.cumsum(
            np.stack([np.cos(turns), np.sin(turns)], 1) * random.uniform(3, 9) * unit, 0
        )
        mask = np.zeros((height, width), dtype=np.uint8)
        cv2.polylines(
            mask,
            [np.round(points * 16).astype(np.int32)],
            False,
            255,
            max(1, round(random.uniform(0.6, 2) * unit)),
            cv2.LINE_AA,
            4,
        )
        colour = random.choice(
            [
                (0.35, 0.25, 0.7),
                (0.9, 0.9, 0.9),
                (0.15, 0.2, 0.6),
                (0.05, 0.05, 0.06),
                (0.1, 0.45, 0.3),
                (0.8, 0.75, 0.5),
            ]
        ) * random.uniform(0.7, 1.3)
    share = mask.astype(np.float32) / np.float32(255)
    for plane, value in zip(planes, colour, strict=True):
        plane += (np.float32(value) - plane) * share


def _gauze(random: np.random.Generator, planes: Plane) -> None:
    """A swab, woven, white to blood-soaked."""
    shape = (planes.shape[1], planes.shape[2])
    unit = shape[0] / 256.0
    rows = np.arange(shape[0], dtype=np.float32)[:, None]
    columns = np.arange(shape[1], dtype=np.float32)[None, :]
    x, y = random.uniform((0, 0), (shape[1], shape[0]))
    warp = cut(random, "cloud", shape, random.uniform(25, 80) * unit)
    share = np.clip(random.uniform(20, 70) * unit - np.hypot(columns - x, rows - y) + warp * 12 * unit, 0, 1)
    pitch = random.uniform(2, 5) * unit
    weave = 1 + 0.12 * np.sin(columns * 6.28 / pitch) * np.sin(rows * 6.28 / pitch)
    shade = weave * (0.85 + 0.12 * cut(random, "cloud", shape, 20 * unit))
    red = np.clip(0.4 * cut(random, "cloud", shape, 40 * unit) + random.uniform(-0.4, 0.6), 0, 1)
    for plane, stain in zip(planes, (0.2, 0.8, 0.8), strict=True):
        plane += (shade * (1 - stain * red) * np.float32(0.85) - plane) * share


def _clip(random: np.random.Generator, planes: Plane) -> None:
    """A ligation clip, metal or plastic."""
    height, width = planes.shape[1:]
    unit = height / 256.0
    x, y = random.uniform((0, 0), (width, height))
    angle, half = random.uniform(0, np.pi), random.uniform(3, 10) * unit
    dx, dy = np.cos(angle) * half, np.sin(angle) * half
    mask = np.zeros((height, width), dtype=np.uint8)
    ends = [(round((x - dx) * 16), round((y - dy) * 16)), (round((x + dx) * 16), round((y + dy) * 16))]
    cv2.line(mask, ends[0], ends[1], 255, max(1, round(random.uniform(1.5, 4) * unit)), cv2.LINE_AA, 4)
    level = random.uniform(0.4, 1.3)
    tint = level * np.array(((1, 1, 1), (1, 1, 1), (0.6, 0.5, 0.9), (0.3, 0.7, 0.5))[int(random.integers(4))])
    share = mask.astype(np.float32) / np.float32(255)
    for plane, value in zip(planes, tint, strict=True):
        plane += (np.float32(value) - plane) * share
