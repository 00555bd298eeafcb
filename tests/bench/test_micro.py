"""How long the smallest parts take: `pytest tests/bench/test_micro.py --benchmark-enable`.

By default each runs once, as a test of its result. No time is a limit here: `trocar bench` is what claims are
measured with.
"""

import numpy as np
import pytest

from trocar.planners.dose.engine import DoseEngine
from trocar.planners.dose.source import load_source
from trocar.planners.dvh import dvh
from trocar.planners.types import Anatomy, Grid
from trocar.runtime.kernels.overlay import overlay, palette
from trocar.runtime.kernels.postprocess import postprocess
from trocar.runtime.kernels.preprocess import preprocess

GRID = Grid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (40, 40, 40))
SEEDS_MM = 5.0 * np.random.default_rng(7).integers(1, 8, (50, 3)).astype(np.float64)
FRAME = np.random.default_rng(7).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
LOGITS = np.random.default_rng(7).normal(size=(5, 128, 224)).astype(np.float32)


@pytest.fixture(scope="module")
def engine():
    return DoseEngine(load_source("i125-6711"))


def test_dose_on_a_grid(benchmark, engine):
    dose_gy = benchmark(engine.grid_gy, SEEDS_MM, 0.42, GRID)
    assert dose_gy.min() > 0


def test_dose_at_points(benchmark, engine):
    points_mm = np.random.default_rng(1).uniform(0, 40, (1000, 3))
    dose_gy = benchmark(engine.points_gy, SEEDS_MM, 0.42, points_mm)
    assert dose_gy.shape == (1000,)
    assert dose_gy.min() > 0


def test_dvh(benchmark):
    dose_gy = np.linspace(0, 300, 64000, dtype=np.float32).reshape(GRID.shape_zyx)
    whole = Anatomy(GRID, {"ctv": np.ones(GRID.shape_zyx, np.float32)})
    found = benchmark(dvh, dose_gy, whole, prescription_gy=145.0)
    assert found["ctv"].d_gy(90) == pytest.approx(30.0, abs=0.1)


def test_preprocess(benchmark):
    out = np.empty((3, 256, 448), np.float32)
    benchmark(preprocess, FRAME, out, pixel_format="bgr")
    assert out.mean() == pytest.approx(FRAME.mean() / 255, rel=0.01)


def test_postprocess(benchmark):
    labels, confidence = np.empty((2, 720, 1280), np.uint8)
    areas, boxes = np.empty(5, np.int32), np.empty((5, 4), np.int32)
    benchmark(postprocess, LOGITS, labels, confidence=confidence, areas=areas, boxes=boxes)
    assert areas.sum() == labels.size
    assert areas.tolist() == np.bincount(labels.ravel(), minlength=5).tolist()


def test_overlay(benchmark):
    frame = np.zeros((720, 1280, 3), np.uint8)
    labels = np.zeros((720, 1280), np.uint8)
    labels[100:200, 300:500] = 2
    benchmark(overlay, frame, labels, palette({2: (80, 200, 80)}, alpha=0.5), contour=0)
    assert frame[150, 400].any()
    assert not frame[labels == 0].any()
