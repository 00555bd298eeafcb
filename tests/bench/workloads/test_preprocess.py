from __future__ import annotations

import argparse

import cv2
import pytest

from trocar.bench.workloads import preprocess
from trocar.runtime.errors import InvalidInput


def measure(*options):
    parser = argparse.ArgumentParser()
    preprocess.add_arguments(parser)
    return preprocess.run(parser.parse_args(options))


SMALL = ("--height", "270", "--width", "480", "--side", "48", "--frames", "2", "--repeats", "2")


def test_every_way_gives_the_same_picture_and_is_measured():
    found = measure(*SMALL)
    assert found["passed"]
    assert {"trocar", "trocar_nv12", "cv2_numpy", "cv2_tuned_table", "cv2_nv12_tuned"} <= set(
        found["timings"]
    )
    assert set(found["times_faster"]) == set(found["times_faster_at_best"])
    for timing in found["timings"].values():
        assert 0 < timing["min_ms"] <= timing["p50_ms"] <= timing["max_ms"]


def test_another_picture_does_not_pass(monkeypatch):
    scene = preprocess._scene(270, 480, 48, 1)
    monkeypatch.setattr(preprocess, "MEAN_RGB", (0.5, 0.5, 0.5))
    ours = preprocess._ours(scene)
    monkeypatch.undo()
    monkeypatch.setattr(preprocess, "_ours", lambda _: ours)
    assert not measure(*SMALL)["passed"]


def test_opencv_has_its_threads_back():
    before = cv2.getNumThreads()
    measure(*SMALL)
    assert cv2.getNumThreads() == before


@pytest.mark.parametrize(
    "options", [("--height", "271"), ("--width", "0"), ("--side", "0"), ("--repeats", "0")]
)
def test_what_cannot_be_measured_is_refused(options):
    with pytest.raises(InvalidInput, match="expected"):
        measure(*SMALL, *options)
