from __future__ import annotations

import numpy as np
import pytest

from trocar.planners.expert import Example
from trocar.planners.features import DISTANCE_REACH, SIDE, parities
from trocar.planners.tpgan.data import dataset_of

PITCH_MM = 5.0


def make_example(number: int) -> Example:
    """An egg-shaped target with seeds on the canonical board, a urethra through it and a rectum behind it."""
    random = np.random.default_rng(number)
    half_mm = random.uniform(18.0, 26.0, 3)
    z, y, x = (PITCH_MM * (np.indices((SIDE,) * 3) - 8.0)).astype(np.float64)
    egg = np.sqrt((z / half_mm[0]) ** 2 + (y / half_mm[1]) ** 2 + (x / half_mm[2]) ** 2)
    ptv_mm = (egg - 1.0) * half_mm.min()
    aside_mm = random.uniform(-3.0, 3.0)
    distances = (
        ptv_mm + 3.0,
        ptv_mm,
        np.hypot(x - aside_mm, y + 2.0) - 3.0,
        np.hypot(x, y - half_mm[1] - 16.0) - 12.0,
    )
    features = np.empty((8, SIDE, SIDE, SIDE), np.float32)
    features[:4] = np.clip(np.stack(distances) / 10.0, -DISTANCE_REACH, DISTANCE_REACH)
    features[4] = ptv_mm <= 3.0
    features[5], features[6] = parities()
    features[7] = 0.0
    plane, row, column = np.indices((SIDE,) * 3)
    board = ((row + column) % 2 == 0) & ((plane + column) % 2 == 0)
    seeds = board & (ptv_mm <= 0.0) & (distances[2] > 2.0)
    return Example(features, seeds.astype(np.uint8), 0.42 / 145.0, 40.0)


@pytest.fixture
def example():
    return make_example


@pytest.fixture(scope="session")
def kernel_gy_u():
    """An inverse-square seed of 18.5 Gy/U at 1 cm that absorption dims, at 5 mm offsets."""
    offset = PITCH_MM / 10.0 * np.arange(1 - SIDE, SIDE)
    z, y, x = np.meshgrid(offset, offset, offset, indexing="ij")
    away_cm = np.maximum(np.sqrt(z**2 + y**2 + x**2), 0.25)
    return (18.5 * np.exp(-0.4 * (away_cm - 1.0)) / away_cm**2).astype(np.float32)


@pytest.fixture
def dataset(kernel_gy_u):
    def make(cases: int):
        return dataset_of(
            [f"synthetic-{i}" for i in range(cases)], [make_example(i) for i in range(cases)], kernel_gy_u
        )

    return make
