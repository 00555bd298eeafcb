"""What lies between the lens and the wall of a bowel: liquid, mucus and bubbles. None of it is a polyp."""

from __future__ import annotations

import numpy as np

from trocar.video.annotator.renderer.noise import Plane, cut
from trocar.video.annotator.renderer.tissue import grid


def add_liquid(random: np.random.Generator, planes: Plane, unit: float) -> None:
    """A murky pool with a level of its own, which hides what is below."""
    shape = (planes.shape[1], planes.shape[2])
    rows, columns = grid(shape)
    turn = random.uniform(0, 2 * np.pi)
    across = (columns - shape[1] / 2) * np.cos(turn) + (rows - shape[0] / 2) * np.sin(turn)
    shore = across - random.uniform(0.05, 0.45) * shape[0]
    shore = shore + cut(random, "cloud", shape, random.uniform(30, 120) * unit) * random.uniform(3, 20) * unit
    share = np.clip(shore / (random.uniform(2, 30) * unit), 0, 1) * random.uniform(0.3, 0.9)
    tints = ((0.62, 0.55, 0.2), (0.5, 0.42, 0.15), (0.7, 0.66, 0.45), (0.45, 0.25, 0.15), (0.6, 0.2, 0.15))
    tint = tints[int(random.integers(len(tints)))]
    level = planes.mean(axis=0) * np.float32(random.uniform(0.8, 1.5))
    murk = 1 + 0.08 * cut(random, "rough", shape, random.uniform(8, 50) * unit)
    for plane, value in zip(planes, tint, strict=True):
        plane += (np.float32(value / 0.5) * level * murk - plane) * share


def add_mucus(random: np.random.Generator, planes: Plane, unit: float) -> None:
    """Pale strands and films."""
    shape = (planes.shape[1], planes.shape[2])
    noise = cut(random, "cloud", shape, random.uniform(25, 90) * unit, random.uniform(1, 4))
    share = np.clip((noise - random.uniform(1.0, 2.0)) * random.uniform(1, 4), 0, 1) * random.uniform(
        0.2, 0.8
    )
    level = planes.max(axis=0) * np.float32(random.uniform(0.9, 1.3))
    for plane, value in zip(planes, (1.0, random.uniform(0.85, 1.0), random.uniform(0.6, 0.95)), strict=True):
        plane += (level * np.float32(value) - plane) * share


def add_bubbles(random: np.random.Generator, planes: Plane, unit: float) -> None:
    """Foam: clear balls with a dark or bright rim and a mirror image of the lamp."""
    shape = (planes.shape[1], planes.shape[2])
    middle = random.uniform(0, 1, 2) * shape
    spread = random.uniform(8, 90) * unit
    size = random.uniform(1.5, 9) * unit
    rows, columns = grid(shape)
    rim = random.uniform(0.15, 0.5) * random.choice((-1, 1))
    for _ in range(int(random.integers(2, 40))):
        y, x = middle + random.normal(0, 1, 2) * spread
        radius = size * float(np.exp(random.normal(0, 0.5)))
        top, left = max(0, int(y - radius - 2)), max(0, int(x - radius - 2))
        bottom, right = min(shape[0], int(y + radius + 3)), min(shape[1], int(x + radius + 3))
        if top >= bottom or left >= right:
            continue
        part = planes[:, top:bottom, left:right]
        away = np.hypot(rows[top:bottom] - y, columns[:, left:right] - x) / radius
        inside = np.clip((1 - away) * radius, 0, 1)
        part *= 1 + rim * inside * away**4
        glint = np.hypot(rows[top:bottom] - y + 0.35 * radius, columns[:, left:right] - x + 0.2 * radius)
        part += np.clip(1.2 - glint / max(0.18 * radius, 0.6), 0, 1) * np.float32(0.8)
    np.clip(planes, 0, None, out=planes)
