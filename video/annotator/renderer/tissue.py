"""Tissue: layered organs with colour, relief, vessels and wet highlights, lit from the camera.

Planes are (3, height, width) float32, linear enough for a look: 0 is black, 1 is white.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from trocar.video.annotator.renderer.noise import Plane, cut

# Colours of tissue under white light, from descriptions in words: muscle and serosa, liver, mucosa,
# fascia, fat, omentum, gallbladder, bowel, clotted blood, peritoneum.
COLOURS = np.array(
    [
        (0.62, 0.22, 0.20),
        (0.36, 0.12, 0.13),
        (0.80, 0.45, 0.42),
        (0.86, 0.68, 0.62),
        (0.86, 0.68, 0.36),
        (0.84, 0.50, 0.26),
        (0.68, 0.62, 0.48),
        (0.60, 0.34, 0.38),
        (0.28, 0.05, 0.06),
        (0.74, 0.36, 0.34),
        (0.50, 0.28, 0.22),
        (0.66, 0.60, 0.60),
    ],
    dtype=np.float32,
)
_COMMON = np.array([16, 12, 12, 7, 9, 9, 5, 8, 4, 12, 6, 5], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Tissue:
    """A painted surface.

    Parameters
    ----------
    colour : (3, height, width), lit.
    relief : (height, width) height above the mean surface, px.
    """

    colour: Plane
    relief: Plane


def paint_tissue(random: np.random.Generator, shape: tuple[int, int]) -> Tissue:
    """Paint a scene without instruments."""
    unit = shape[0] / 256.0
    index, relief, contact = _organs(random, shape, unit)
    folds = random.random() < 0.5
    relief += cut(random, "cloud", shape, random.uniform(50, 160) * unit) * random.uniform(0, 6) * unit
    if folds:
        ridges = cut(random, "cloud", shape, random.uniform(16, 60) * unit, random.uniform(1, 4))
        relief += (1.0 - np.abs(ridges)) * random.uniform(0.5, 4.0) * unit
    gritty = "rough" if random.random() < 0.3 else "cloud"
    bumps = cut(random, gritty, shape, random.uniform(6, 30) * unit)
    cells = cut(random, "cells", shape, random.uniform(4, 24) * unit)
    grit = 0.9 * random.random(2) ** 2 * unit
    relief += bumps * grit[0] + cells * 0.7 * grit[1]
    colour = _albedo(random, index, bumps, cells, shape, unit)
    add_vessels(random, colour, unit)
    wetness = add_blood(random, colour, unit)
    colour *= contact
    return Tissue(light(random, colour, relief, wetness, unit), relief)


def draw_colour(random: np.random.Generator) -> Plane:
    """A tissue colour near one of the list's."""
    base = COLOURS[random.choice(len(COLOURS), p=_COMMON / _COMMON.sum())]
    if random.random() < 0.02:
        base = random.uniform(0.2, 0.8, 3).astype(np.float32)
    spread = np.exp(random.normal(0.0, 0.07, 3)) * np.exp(random.normal(0.0, 0.2))
    grey = base.mean()
    saturation = random.uniform(0.6, 1.25)
    return np.asarray(np.clip((grey + (base - grey) * saturation) * spread, 0.02, 1.0), dtype=np.float32)


def grid(shape: tuple[int, int]) -> tuple[Plane, Plane]:
    """Rows (height, 1) and columns (1, width) of pixel centres, px."""
    return (
        np.arange(shape[0], dtype=np.float32)[:, None] + 0.5,
        np.arange(shape[1], dtype=np.float32)[None, :] + 0.5,
    )


def _organs(
    random: np.random.Generator, shape: tuple[int, int], unit: float
) -> tuple[npt.NDArray[np.uint8], Plane, Plane]:
    """Which organ each pixel shows, their rounded relief, and the dark where one lies on another."""
    index = np.zeros(shape, dtype=np.uint8)
    relief = np.zeros(shape, dtype=np.float32)
    contact = np.ones(shape, dtype=np.float32)
    for number in range(1, 1 + int(random.choice(7, p=(0.08, 0.17, 0.22, 0.2, 0.16, 0.1, 0.07)))):
        inside = _outline(random, shape, unit)
        reach, tall = random.uniform(15, 70) * unit, random.uniform(4, 30) * unit
        part = np.clip(inside / reach, 0.0, 1.0)
        dome = np.sqrt(part * (2.0 - part)) * tall
        shadow = random.uniform(0, 0.6) * np.exp(-np.abs(inside) / (random.uniform(1.5, 10) * unit))
        contact *= np.where(inside > 0, 1.0 - 0.5 * shadow, 1.0 - shadow)
        index[inside > 0] = number
        keep = random.uniform(0.0, 0.6)
        relief = np.where(inside > 0, keep * relief + dome, relief)
    return index, relief, contact


def _outline(random: np.random.Generator, shape: tuple[int, int], unit: float) -> Plane:
    """How far inside an organ each pixel lies, px, negative outside; roughly."""
    rows, columns = grid(shape)
    height, width = shape
    row, column = random.uniform(-0.1, 1.1) * height, random.uniform(-0.1, 1.1) * width
    angle = random.uniform(0, 2 * np.pi)
    across = (columns - column) * np.cos(angle) + (rows - row) * np.sin(angle)
    along = (rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)
    kind = random.choice(3, p=(0.45, 0.3, 0.25))
    if kind == 0:
        small = random.uniform(0.1, 0.5) * height
        large = small * random.uniform(1.0, 2.6)
        inside = (1.0 - np.sqrt((across / small) ** 2 + (along / large) ** 2)) * small
    elif kind == 1:
        inside = across + random.normal(0, 0.15) * along
    else:
        bend = random.normal(0, 0.6) / height
        inside = random.uniform(0.05, 0.22) * height - np.abs(across - bend * along**2)
    warp = cut(random, "cloud", shape, random.uniform(30, 110) * unit)
    return np.asarray(inside + warp * random.uniform(0.2, 1.0) ** 2 * 14 * unit, dtype=np.float32)


def _albedo(
    random: np.random.Generator,
    index: npt.NDArray[np.uint8],
    bumps: Plane,
    cells: Plane,
    shape: tuple[int, int],
    unit: float,
) -> Plane:
    """Colour before light: an organ blends between two colours, mottled at three scales."""
    organs = int(index.max()) + 1
    first = np.stack([draw_colour(random) for _ in range(organs)])
    other = np.stack([draw_colour(random) for _ in range(organs)])
    share = (0.8 * random.random(organs) ** 2).astype(np.float32)
    other = first + (other - first) * share[:, None]
    mix = cut(random, "cloud", shape, random.uniform(20, 110) * unit)
    detail = cut(random, "rough", shape, random.uniform(15, 60) * unit)
    mix = np.clip(0.5 + random.uniform(0.2, 0.6) * mix + random.uniform(0.0, 0.3) * detail, 0.0, 1.0)
    mottle = random.uniform(0.1, 1.0) * np.array([[0.10], [0.14], [0.10]], np.float32)
    weights = random.uniform(-1.0, 1.0, (3, organs)).astype(np.float32) * mottle
    gain = 1.0 + weights[0][index] * bumps + weights[1][index] * cells + weights[2][index] * detail
    np.clip(gain, 0.25, 1.9, out=gain)
    planes = [(first[index, c] + (other - first)[index, c] * mix) * gain for c in range(3)]
    return np.ascontiguousarray(np.stack(planes), dtype=np.float32)


def add_vessels(random: np.random.Generator, colour: Plane, unit: float) -> None:
    """Branching vessels, darker and redder or bluer than what they cross."""
    if random.random() < 0.25:
        return
    shape = colour.shape[1:]
    mask: npt.NDArray[np.uint8] = np.zeros(shape, dtype=np.uint8)
    for _ in range(int(random.integers(1, 14))):
        start = random.uniform((0, 0), (shape[1], shape[0]))
        grow_vessel(random, mask, start, random.uniform(0, 2 * np.pi), random.uniform(0.6, 3.2) * unit, unit)
    if random.random() < 0.4:
        mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), random.uniform(0.6, 2.0) * unit), dtype=np.uint8)
    tint = (
        np.array([0.75, 0.35, 0.38], np.float32)
        if random.random() < 0.75
        else np.array([0.6, 0.5, 0.66], np.float32)
    )
    strength = random.uniform(0.25, 1.0) / 255.0
    share = mask.astype(np.float32) * strength
    for plane, value in zip(colour, tint, strict=True):
        plane *= 1.0 - share * (1.0 - value)


def grow_vessel(
    random: np.random.Generator,
    mask: npt.NDArray[np.uint8],
    start: npt.NDArray[Any],
    angle: float,
    width: float,
    unit: float,
    depth: int = 0,
) -> None:
    """Draw a vessel and its branches into a mask; `depth` counts the forks behind it."""
    steps = int(random.integers(6, 22))
    angles = angle + np.cumsum(random.normal(0, 0.25, steps))
    moves = np.stack([np.cos(angles), np.sin(angles)], axis=1) * random.uniform(4, 9) * unit
    points = start + np.cumsum(moves, axis=0)
    fixed = np.round(points * 16).astype(np.int32)
    level = int(np.clip(255 * width, 60, 255))
    cv2.polylines(mask, [fixed], False, level, max(1, round(width)), cv2.LINE_AA, 4)
    if depth < 2:
        for _ in range(int(random.integers(0, 3))):
            place = int(random.integers(steps))
            turn = random.choice((-1, 1)) * random.uniform(0.4, 1.1)
            grow_vessel(random, mask, points[place], angles[place] + turn, width * 0.7, unit, depth + 1)


def add_blood(random: np.random.Generator, colour: Plane, unit: float) -> Plane | float:
    """Smears and pools of blood; returns how wet that makes the surface."""
    if random.random() < 0.6:
        return 0.0
    shape = colour.shape[1:]
    noise = cut(random, "cloud", (shape[0], shape[1]), random.uniform(20, 90) * unit)
    noise = noise + 0.3 * cut(random, "rough", (shape[0], shape[1]), random.uniform(10, 40) * unit)
    share = np.clip((noise - random.uniform(0.3, 1.6)) * random.uniform(1.5, 8), 0, 1) * random.uniform(
        0.4, 0.95
    )
    blood = np.array(
        [random.uniform(0.25, 0.6), random.uniform(0.01, 0.08), random.uniform(0.01, 0.09)], np.float32
    )
    for plane, value in zip(colour, blood, strict=True):
        plane += (value - plane) * share
    return np.asarray(share, dtype=np.float32)


def light(
    random: np.random.Generator,
    colour: Plane,
    relief: Plane,
    wetness: Plane | float,
    unit: float,
    uneven: float = 0.8,
) -> Plane:
    """Headlight shading that falls off with distance, and highlights where the wet surface faces it.

    Parameters
    ----------
    uneven : how much the light may differ from place to place for no other reason.
    """
    shape = (relief.shape[0], relief.shape[1])
    steep = random.uniform(0.5, 1.3)
    slope_x = cv2.Sobel(relief, cv2.CV_32F, 1, 0, scale=0.125) * steep
    slope_y = cv2.Sobel(relief, cv2.CV_32F, 0, 1, scale=0.125) * steep
    facing = 1.0 / np.sqrt(1.0 + slope_x**2 + slope_y**2)
    side = random.normal(0, 0.25, 2)
    ambient = random.uniform(0.1, 0.5)
    shade = ambient + (1 - ambient) * np.clip(facing * (1 - slope_x * side[0] - slope_y * side[1]), 0, 1.6)
    far = cut(random, "cloud", shape, random.uniform(140, 400) * unit) * uneven * random.random() ** 1.5
    rows, columns = grid(shape)
    centre = (shape[0] * random.uniform(0.2, 0.8), shape[1] * random.uniform(0.2, 0.8))
    radius = ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / (
        shape[0] * random.uniform(0.7, 2.5)
    ) ** 2
    shade *= np.exp(far) / (1.0 + radius)
    lit = colour * shade
    lit += _highlights(random, slope_x, slope_y, wetness, unit) * np.minimum(shade, 1.2)
    _glints(random, lit, unit)
    return np.asarray(lit, dtype=np.float32)


def _highlights(
    random: np.random.Generator, slope_x: Plane, slope_y: Plane, wetness: Plane | float, unit: float
) -> Plane | float:
    """Mirror images of the light: where the surface, roughened, tilts just so."""
    if random.random() < 0.15:
        return 0.0
    shape = (slope_x.shape[0], slope_x.shape[1])
    texture = "rough" if random.random() < 0.2 else "cloud"
    feature_px = random.uniform(6, 40) * unit
    film, other = (cut(random, texture, shape, feature_px) for _ in range(2))
    rough = 0.02 + 0.6 * random.random() ** 2
    tilt = random.normal(0, 0.3, 2)
    miss = (slope_x - tilt[0] + rough * film) ** 2 + (slope_y - tilt[1] + rough * other) ** 2
    width = random.uniform(0.03, 0.16) * (1.0 + 0.8 * wetness)
    glint = np.exp(-miss / width**2)
    if random.random() < 0.6:
        patches = cut(random, "cloud", shape, random.uniform(40, 120) * unit)
        glint = glint * np.clip(patches + random.uniform(-0.5, 1.0), 0, 1)
    return np.asarray(glint * random.uniform(0.3, 2.0), dtype=np.float32)


def _glints(random: np.random.Generator, lit: Plane, unit: float) -> None:
    """Crowds of small hard highlights on wet folds, white or bluish, as bright as metal."""
    if random.random() < 0.35:
        return
    shape = (lit.shape[1], lit.shape[2])
    rows, columns = grid((shape[0] // 4, shape[1] // 4))
    window = np.zeros((shape[0] // 4, shape[1] // 4), dtype=np.float32)
    for _ in range(int(random.integers(1, 8))):
        x, y = random.uniform((0, 0), (window.shape[1], window.shape[0]))
        long, wide = np.exp(random.uniform(np.log(1.2), np.log(12), 2)) * unit
        turn = random.uniform(0, np.pi)
        across = ((columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)) / long
        along = ((rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)) / wide
        np.maximum(window, np.exp(-(across**2) - along**2) * random.uniform(0.5, 1.3), out=window)
    kind = "rough" if random.random() < 0.6 else "cloud"
    noise = cut(random, kind, shape, random.uniform(6, 30) * unit, random.uniform(1, 3))
    near = cv2.resize(window, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    share = np.clip((noise + 2.5 * near - random.uniform(2.0, 3.2)) * random.uniform(2, 8), 0, 1)
    tint = (1.0, 1.0, 1.0) if random.random() < 0.6 else (0.85, 0.85, 1.1)
    level = random.uniform(0.7, 1.8)
    for plane, value in zip(lit, tint, strict=True):
        plane += (np.float32(value * level) - plane) * share
