"""Where instruments stand: from the border inward, mostly towards the middle."""

from __future__ import annotations

import numpy as np

from trocar.video.annotator.renderer.instruments import Instrument, Pose


def draw_pose(
    random: np.random.Generator, instrument: Instrument, shape: tuple[int, int], field: tuple[float, float]
) -> Pose:
    """A pose in which part of the instrument is in view.

    Parameters
    ----------
    field : half height and half width of the endoscope's picture, px.
    """
    height, width = shape
    unit = height / 256.0
    half_height, half_width = field
    radius = float(np.exp(random.uniform(np.log(4.0), np.log(34.0)))) * unit
    target = (
        width / 2 + random.uniform(-0.75, 0.75) * half_width,
        height / 2 + random.uniform(-0.75, 0.75) * half_height,
    )
    # Ports are to the sides and below more often than above.
    side = random.choice(4, p=(0.32, 0.32, 0.22, 0.14))
    entry = (
        (width / 2 - half_width, height / 2 + random.uniform(-1.2, 1.2) * half_height),
        (width / 2 + half_width, height / 2 + random.uniform(-1.2, 1.2) * half_height),
        (width / 2 + random.uniform(-1.1, 1.1) * half_width, height / 2 + half_height),
        (width / 2 + random.uniform(-1.1, 1.1) * half_width, height / 2 - half_height),
    )[side]
    angle = float(np.arctan2(target[1] - entry[1], target[0] - entry[0]) + random.normal(0, 0.12))
    opening = (
        float(random.choice((0.0, random.uniform(0, 0.35), random.uniform(0.2, 1.3))))
        if instrument.opens
        else 0.0
    )
    reach = to_edge(target, angle, shape) + 4.0 * radius
    return Pose(target, angle, radius, reach, float(random.normal(0, 0.45)), opening)


def to_edge(joint_xy: tuple[float, float], angle: float, shape: tuple[int, int]) -> float:
    """How far back along a shaft from its end the frame's edge is, px."""
    steps = []
    for place, direction, size in zip(joint_xy, (-np.cos(angle), -np.sin(angle)), shape[::-1], strict=True):
        if abs(direction) > 1e-6:
            steps.append(((size if direction > 0 else 0.0) - place) / direction)
    return float(max(0.0, min(steps)))
