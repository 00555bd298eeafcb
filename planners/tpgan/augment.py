"""Other cases from one: mirrored and shifted windows that keep the canonical style.

The style sits on the window's parities: a seed's plane, row and column are all even or all odd where it
can be. A plain mirror (column c to 15 - c) turns even columns odd and would teach the other board; the
mirrors here run about a column (c to 16 - c or 14 - c), and shifts move all three axes by one, so that
every site keeps its place on the board and the parity channels stay as they are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trocar.planners.features import CHANNELS, DISTANCE_REACH
from trocar.planners.types import Float32Array

DISTANCES = tuple(i for i, name in enumerate(CHANNELS) if name.endswith("_distance"))
PARITIES = tuple(i for i, name in enumerate(CHANNELS) if name.endswith("_parity"))
CANDIDATE = CHANNELS.index("candidate")
SHIFTS = tuple((z, y, x) for z in (-1, 1) for y in (-1, 1) for x in (-1, 1))

Seeds = npt.NDArray[np.uint8]


def augmented(
    features: Float32Array, seeds: Seeds, random: np.random.Generator, *, mirror: bool = True
) -> tuple[Float32Array, Seeds]:
    """The same case mirrored left to right half of the time, and shifted half of the time.

    Parameters
    ----------
    features, seeds : (8, 16, 16, 16) and (16, 16, 16), one case's.
    mirror : off for a centre whose style is not the same on both sides.
    """
    flip, move, which = random.random(), random.random(), int(random.integers(len(SHIFTS)))
    if mirror and flip < 0.5:
        features, seeds = mirrored(features, seeds) or (features, seeds)
    if move < 0.5:
        features, seeds = shifted(features, seeds, SHIFTS[which]) or (features, seeds)
    return features, seeds


def mirrored(features: Float32Array, seeds: Seeds) -> tuple[Float32Array, Seeds] | None:
    """Left and right exchanged about a middle column, or None where a candidate would leave the window."""
    flipped, seeds = features[..., ::-1], seeds[..., ::-1]
    for step in (1, -1):  # 15 - c is now c; one step more makes it 16 - c, or 14 - c
        moved = _moved(flipped, seeds, 3, step)
        if moved is not None:
            return _with_parities(moved[0], features), moved[1]
    return None


def shifted(
    features: Float32Array, seeds: Seeds, step_zyx: tuple[int, int, int]
) -> tuple[Float32Array, Seeds] | None:
    """The case moved in its window by one site or none along each axis, or None as above."""
    moved: tuple[Float32Array, Seeds] | None = features, seeds
    for axis, step in enumerate(step_zyx, start=1):
        if step and moved is not None:
            moved = _moved(moved[0], moved[1], axis, step)
    return None if moved is None else (_with_parities(moved[0], features), moved[1])


def _moved(features: Float32Array, seeds: Seeds, axis: int, step: int) -> tuple[Float32Array, Seeds] | None:
    """Roll by one site along a feature axis; distances go on as they did, nothing else enters."""
    lost, entered = (-1, 0) if step > 0 else (0, -1)
    if features[CANDIDATE].take(lost, axis - 1).any() or seeds.take(lost, axis - 1).any():
        return None
    features, seeds = np.roll(features, step, axis), np.roll(seeds, step, axis - 1)
    rim = np.moveaxis(features, axis, 0)
    inward = (1, 2) if step > 0 else (-2, -3)
    for channel in DISTANCES:
        onward = 2.0 * rim[inward[0], channel] - rim[inward[1], channel]
        rim[entered, channel] = np.clip(onward, -DISTANCE_REACH, DISTANCE_REACH)
    rim[entered, CANDIDATE] = 0.0
    return features, seeds


def _with_parities(features: Float32Array, original: Float32Array) -> Float32Array:
    features[list(PARITIES)] = original[list(PARITIES)]
    return features
