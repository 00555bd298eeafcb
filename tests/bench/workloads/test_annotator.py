from __future__ import annotations

import argparse
from shutil import copytree

import cv2
import numpy as np
import pytest

from trocar.bench.workloads import annotator
from trocar.runtime.errors import InvalidInput


def measured(*words):
    parser = argparse.ArgumentParser()
    annotator.add_arguments(parser)
    return annotator.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def folder(tmp_path):
    """Two frames of an instrument that is grey on red, where the colour baseline cannot fail."""
    for number in range(2):
        image = np.full((256, 448, 3), (60, 60, 200), dtype=np.uint8)  # BGR
        mask = np.zeros((256, 448), dtype=np.uint8)
        image[100:160, :300] = 120
        mask[100:160, :300] = 255
        for name, array in (("frames", image), ("masks", mask)):
            place = tmp_path / "cholecseg8k_instrument" / name
            place.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place / f"{number}.png"), array)
    return tmp_path


def test_every_model_and_the_baseline_is_scored_on_what_is_there(folder):
    document = measured("--folder", folder, "--repeats", 1, "--threads", 1)
    rows = document["tables"]["instruments on real frames"]
    assert "polyps on real frames" not in document["tables"]
    assert document["sets"] == ["cholecseg8k_instrument"]
    assert {row["model"] for row in rows} == {"GAN", "GAN, all regions", "colour threshold"}
    threshold = [row for row in rows if row["model"] == "colour threshold" and row["class"] == "instrument"]
    assert [row["set"] for row in threshold] == ["cholecseg8k_instrument", "all of these"]
    assert all(row["dice"] > 0.97 and row["frames"] == 2 for row in threshold)
    assert all(0 <= row[figure] <= 1 for row in rows for figure in ("dice", "iou", "nsd"))
    assert document["tables"]["time of a frame"][0]["threads"] == 1


def test_other_repositories_stand_beside(folder, tmp_path):
    from trocar.runtime.repository.store import shipped

    beside = tmp_path / "beside"
    beside.mkdir()
    copytree(shipped().root / "annotator", beside / "annotator")
    rows = measured("--folder", folder, "--beside", f"again={beside}", "--repeats", 1)
    rows = rows["tables"]["instruments on real frames"]
    ours, again = (
        [{**row, "model": ""} for row in rows if row["model"] == model] for model in ("GAN", "again")
    )
    assert ours == again != []


def test_what_is_not_there_is_refused(tmp_path, folder):
    with pytest.raises(InvalidInput, match=r"expected one of endovis17, .* in it"):
        measured("--folder", tmp_path / "none")
    with pytest.raises(InvalidInput, match=r"--beside: expected NAME=DIR with a folder that exists, got 'x'"):
        measured("--folder", folder, "--beside", "x")
