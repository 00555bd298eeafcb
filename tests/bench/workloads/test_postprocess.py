from __future__ import annotations

import argparse

import cv2
import numpy as np
import pytest

from trocar.bench.workloads import postprocess
from trocar.bench.workloads._opencv import Plain, Tuned
from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels.postprocess import postprocess as native


def measure(*options):
    parser = argparse.ArgumentParser()
    postprocess.add_arguments(parser)
    return postprocess.run(parser.parse_args(options))


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setattr(postprocess, "FRAMES", {"small": (90, 160)})


@pytest.mark.usefixtures("_small")
def test_a_small_run_measures_everything_and_checks_the_kernels():
    threads = cv2.getNumThreads()
    found = measure("--repeats", "2")
    assert found["passed"]
    frame = found["results"]["small"]
    assert len(frame["timings"]) == 7
    for timing in frame["timings"].values():
        assert 0 < timing["min_ms"] <= timing["p50_ms"] <= timing["max_ms"]
    assert cv2.getNumThreads() == threads


@pytest.mark.usefixtures("_small")
def test_a_kernel_unlike_its_reference_does_not_pass(monkeypatch):
    monkeypatch.setattr(postprocess, "_overlay_equals", lambda *_: False)
    assert not measure("--repeats", "1")["passed"]


@pytest.mark.parametrize("chain", [Plain, Tuned])
def test_the_chains_do_the_same_work(chain):
    # OpenCV places a few pixels on the edge between two network pixels otherwise.
    logits = postprocess._logits(7)
    height, width = 216, 384
    labels, confidence = np.empty((2, height, width), np.uint8)
    areas, boxes = np.empty(5, np.int32), np.empty((5, 4), np.int32)
    native(logits, labels, confidence=confidence, areas=areas, boxes=boxes)
    other = chain(logits, height, width, postprocess.COLOURS, 0.4, 2)
    other.postprocess()
    assert (other.labels != labels).mean() < 2e-3
    assert np.abs(other.confidence.astype(int) - confidence).mean() < 0.2
    assert np.abs(other.areas - areas).max() < 100
    left_top_width_height = [(left, top, right - left, bottom - top) for top, left, bottom, right in boxes]
    assert np.abs(np.array(other.boxes) - left_top_width_height).max() <= 1


@pytest.mark.parametrize("repeats", ["0", "-3"])
def test_no_repeats_are_refused(repeats):
    with pytest.raises(InvalidInput, match="repeats: expected at least 1"):
        measure("--repeats", repeats)
