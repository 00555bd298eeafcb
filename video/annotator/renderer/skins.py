"""What instruments are made of: small textures over a part's length and girth, and their tints.

A skin is a plane of brightness, rows across the part from edge to edge and columns from its base to its
end. Above 1 it is a highlight, which is white whatever the tint.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from trocar.video.annotator.renderer.noise import Plane, cut

ROWS, COLUMNS = 48, 160


@dataclass(frozen=True, slots=True)
class Material:
    """A finish.

    Parameters
    ----------
    tint : red, green and blue of the reflected light, 0 to 1.
    gloss : 0 for matt, 1 for a mirror.
    grain : how much the brightness varies over the surface.
    """

    tint: tuple[float, float, float]
    gloss: float
    grain: float


def shaft_material(random: np.random.Generator) -> Material:
    """Black or grey coating, bare or satin metal, white or coloured plastic."""
    kind = random.choice(6, p=(0.34, 0.18, 0.24, 0.08, 0.11, 0.05))
    grey = random.uniform(*((0.04, 0.2), (0.2, 0.45), (0.4, 0.85), (0.75, 1.0), (0.0, 0.0), (0.0, 0.0))[kind])
    if kind < 4:
        tint = grey * np.exp(random.normal(0, 0.05, 3))
    elif kind == 4:
        hue = random.choice((random.uniform(75, 130), random.uniform(40, 150)))
        tint = _hsv(hue, random.uniform(0.25, 0.95), random.uniform(0.25, 0.85))
    else:
        tint = _hsv(random.uniform(0, 180), random.uniform(0.2, 0.9), random.uniform(0.3, 0.9))
    gloss = random.uniform(0.3, 1.0) if kind == 2 else random.uniform(0.0, 0.7)
    return Material(_rgb(tint), gloss, random.choice((random.uniform(0, 0.06), random.uniform(0.03, 0.22))))


def metal(random: np.random.Generator) -> Material:
    """Steel, now and then brass, dark oxide or white ceramic."""
    kind = random.choice(4, p=(0.76, 0.06, 0.11, 0.07))
    grey = random.uniform(*((0.4, 0.9), (0.5, 0.85), (0.1, 0.35), (0.8, 1.0))[kind])
    spread = np.exp(random.normal(0, 0.05, 3))
    tint = grey * spread * (np.array([1.0, 0.85, 0.55]) if kind == 1 else 1.0)
    gloss = random.uniform(0.05, 0.3) if kind == 3 else random.uniform(0.3, 1.0)
    return Material(_rgb(tint), gloss, random.uniform(0.02, 0.25))


def tube_skin(random: np.random.Generator, material: Material) -> Plane:
    """A round bar, with rings and seams at times."""
    skin = _round(random, material)
    for _ in range(int(random.integers(0, 4)) if random.random() < 0.4 else 0):
        column, broad = int(random.integers(COLUMNS)), int(random.integers(1, 8))
        skin[:, column : column + broad] *= random.uniform(0.3, 1.6)
    if random.random() < 0.45:
        skin[:, -int(random.integers(2, 14)) :] *= random.uniform(0.5, 2.2)
    if random.random() < 0.15:
        row, broad = int(random.integers(ROWS)), int(random.integers(1, 5))
        skin[row : row + broad, int(random.integers(COLUMNS // 2)) :] *= random.uniform(0.3, 1.5)
    return skin


def joint_skin(random: np.random.Generator, material: Material) -> Plane:
    """A wrist: pins, slots, pulleys and facets on a round bar."""
    skin = _round(random, material)
    for _ in range(int(random.integers(2, 12))):
        kind = random.integers(3)
        centre = (int(random.integers(COLUMNS)), int(random.integers(ROWS)))
        level = float(random.choice((random.uniform(0.05, 0.4), random.uniform(0.7, 1.5))))
        if kind == 0:
            radius = int(random.integers(3, 16))
            cv2.circle(skin, centre, radius, level, -1, cv2.LINE_AA)
            cv2.circle(skin, centre, radius, level * random.uniform(0.2, 0.7), 1, cv2.LINE_AA)
        elif kind == 1:
            end = (centre[0] + int(random.integers(-50, 50)), centre[1] + int(random.integers(-16, 16)))
            cv2.line(skin, centre, end, level, int(random.integers(1, 5)), cv2.LINE_AA)
        else:
            corner = (centre[0] + int(random.integers(5, 60)), centre[1] + int(random.integers(3, 24)))
            patch = np.zeros_like(skin)
            cv2.rectangle(patch, centre, corner, 1.0, -1)
            skin *= 1.0 + patch * (level - 1.0)
    return skin


def jaw_skin(random: np.random.Generator, material: Material) -> Plane:
    """A jaw: a lit bevel, teeth along one edge at times."""
    skin = _round(random, material)
    if random.random() < 0.5:
        row = int(random.integers(ROWS // 4, ROWS))
        skin[row:] *= random.uniform(0.4, 1.5)
    if random.random() < 0.5:
        pitch = int(random.integers(4, 14))
        teeth = ((np.arange(COLUMNS) // pitch) % 2).astype(np.float32)
        depth = int(random.integers(5, ROWS // 2))
        skin[-depth:] *= 1.0 - random.uniform(0.2, 0.7) * teeth
    if random.random() < 0.3:
        skin[:, : int(random.integers(10, 60))] *= random.uniform(0.4, 1.2)
    return skin


def _round(random: np.random.Generator, material: Material) -> Plane:
    """A bar lit by the camera's own light: bright along the middle, reflections in bands, dark edges."""
    across = np.linspace(-1, 1, ROWS, dtype=np.float32)[:, None]
    tilt = random.normal(0, 0.25)
    body = np.sqrt(np.clip(1.0 - (across * 0.98) ** 2, 0, 1)) ** random.uniform(0.3, 1.5)
    body = random.uniform(0.15, 0.45) + random.uniform(0.5, 0.8) * body
    coarse = random.normal(0, 1, (int(random.integers(4, 10)), int(random.integers(2, 6)))).astype(np.float32)
    bands = cv2.resize(coarse, (COLUMNS, ROWS), interpolation=cv2.INTER_CUBIC)
    skin = body * np.exp(0.55 * material.gloss * bands)
    for _ in range(int(random.integers(0, 3)) if material.gloss > 0.1 else 0):
        place, width = tilt + random.normal(0, 0.25), random.uniform(0.03, 0.22)
        along = np.clip(
            np.interp(np.arange(COLUMNS), np.linspace(0, COLUMNS, 5), random.normal(0.6, 0.6, 5)), 0, 1
        )
        peak = material.gloss * random.uniform(0.3, 1.6)
        skin = skin + peak * np.exp(-(((across - place) / width) ** 2)) * along.astype(np.float32)
    streaks = cut(
        random, "streak" if random.random() < 0.5 else "grain", (ROWS, COLUMNS), random.uniform(20, 90)
    )
    skin = skin * (1.0 + material.grain * streaks)
    return np.ascontiguousarray(np.clip(skin, 0.02, 2.2), dtype=np.float32)


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    pixel = np.array([[[hue * 2.0, saturation, value]]], dtype=np.float32)
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0], dtype=np.float64)


def _rgb(tint: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in np.clip(tint, 0.02, 1.0))
    return red, green, blue
