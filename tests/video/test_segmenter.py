"""A model whose answers are written by hand: what becomes of its logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from trocar.runtime.errors import InvalidInput, ManifestMismatch
from trocar.runtime.repository.store import shipped
from trocar.runtime.session.base import TensorSpec
from trocar.runtime.session.fake import FakeSession
from trocar.video.frames import Frame
from trocar.video.segmenter import Recipe, Segmenter, recipe
from trocar.video.types import CLASSES, PixelClass

HEIGHT, WIDTH = 64, 96
HOW = Recipe(
    height=HEIGHT,
    width=WIDTH,
    resize="area",
    order="rgb",
    scale=(1 / 255,) * 3,
    bias=(0.0,) * 3,
    classes=CLASSES,
    object_from=2,
    label="instrument",
    least_px=20,
    tip_stride=4,
    tip_threshold=0.3,
)


def segmenter(logits: np.ndarray, tips: np.ndarray, seen: list[Any] | None = None) -> Segmenter:
    def answer(feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        if seen is not None:
            seen.append(feeds["image"].copy())
        return {"logits": logits, "tips": tips}

    inputs = [TensorSpec("image", "float32", (1, 3, HEIGHT, WIDTH))]
    outputs = [
        TensorSpec("logits", "float32", (1, 5, HEIGHT, WIDTH)),
        TensorSpec("tips", "float32", (1, 1, HEIGHT // 4, WIDTH // 4)),
    ]
    return Segmenter(FakeSession(inputs, outputs, answer), HOW)


def tissue() -> tuple[np.ndarray, np.ndarray]:
    logits = np.zeros((1, 5, HEIGHT, WIDTH), np.float32)
    logits[0, PixelClass.TISSUE] = 5.0
    return logits, np.zeros((1, 1, HEIGHT // 4, WIDTH // 4), np.float32)


def annotated(made: Segmenter, size: tuple[int, int] = (HEIGHT, WIDTH)) -> tuple[Any, np.ndarray]:
    labels = np.full(size, 99, np.uint8)
    frame = Frame(7, 0.28, 0.0, np.zeros((*size, 3), np.uint8))
    return made.annotate(frame, labels), labels


def test_tissue_alone_has_no_instruments_and_every_pixel_is_written() -> None:
    annotation, labels = annotated(segmenter(*tissue()))
    assert annotation.instances == ()
    assert annotation.confidence == 1.0
    assert np.unique(labels).tolist() == [PixelClass.TISSUE]
    assert (annotation.frame_index, annotation.pts_s, annotation.object_from) == (7, 0.28, 2)


def test_boxes_areas_and_tips_are_in_the_frame_s_pixels() -> None:
    logits, tips = tissue()
    logits[0, PixelClass.SHAFT, 10:30, 20:60] = 12.0
    logits[0, PixelClass.CLASPER, 10:30, 60:70] = 12.0
    tips[0, 0, 5, 17] = 0.9  # network pixel (70, 22), beside the clasper
    tips[0, 0, 14, 2] = 1.0  # far away: another's
    annotation, labels = annotated(segmenter(logits, tips), (3 * HEIGHT, 2 * WIDTH))
    (one,) = annotation.instances
    assert one.box_xyxy_px == (40, 30, 140, 90)
    assert one.area_px == 20 * 50 * 6
    assert one.tip_xy_px == ((17 + 0.5) * 4 * 2, (5 + 0.5) * 4 * 3)
    assert one.label == "instrument"
    # softmax of 12 beside 5 and three zeros, as an 8-bit share.
    expected = np.exp(12) / (np.exp(12) + np.exp(5) + 3)
    assert one.confidence == pytest.approx(expected, abs=1 / 255)
    assert np.count_nonzero(labels >= 2) == one.area_px
    assert labels[50, 50] == PixelClass.SHAFT
    assert labels[50, 130] == PixelClass.CLASPER


def test_specks_are_taken_out_of_the_label_map_too() -> None:
    logits, tips = tissue()
    logits[0, PixelClass.SHAFT, 5:9, 5:9] = 12.0  # 16 px: fewer than 20
    logits[0, PixelClass.SHAFT, 40:50, 40:50] = 12.0
    annotation, labels = annotated(segmenter(logits, tips))
    assert [one.box_xyxy_px for one in annotation.instances] == [(40, 40, 50, 50)]
    assert np.count_nonzero(labels >= 2) == 100


def test_several_instruments_come_the_largest_first() -> None:
    logits, tips = tissue()
    logits[0, PixelClass.SHAFT, 0:10, 0:10] = 12.0
    logits[0, PixelClass.SHAFT, 30:60, 30:90] = 12.0
    annotation, _ = annotated(segmenter(logits, tips))
    assert [one.area_px for one in annotation.instances] == [1800, 100]
    assert [one.tip_xy_px for one in annotation.instances] == [None, None]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(bad: float) -> None:
    logits, tips = tissue()
    logits[0, 0, 3, 3] = bad
    with pytest.raises(InvalidInput, match="logit"):
        annotated(segmenter(logits, tips))


def test_the_picture_reaches_the_network_as_its_manifest_says() -> None:
    seen: list[np.ndarray] = []
    made = segmenter(*tissue(), seen)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 0], image[..., 2] = 255, 51  # blue and red of a BGR frame
    made.annotate(Frame(0, 0.0, 0.0, image), np.empty((HEIGHT, WIDTH), np.uint8))
    assert np.allclose(seen[0][0, 0], 51 / 255)  # red comes first
    assert np.allclose(seen[0][0, 1], 0)
    assert np.allclose(seen[0][0, 2], 1)


def test_a_model_of_another_kind_is_refused_by_name() -> None:
    with pytest.raises(ManifestMismatch, match="tpgan/1: expected a model of frames"):
        recipe(shipped().open("tpgan").manifest)


def test_the_shipped_models_say_what_they_are() -> None:
    instruments, polyps = (recipe(shipped().open(name).manifest) for name in ("annotator", "polyp"))
    assert (instruments.classes, instruments.object_from, instruments.label) == (CLASSES, 2, "instrument")
    assert (polyps.object_from, polyps.label, polyps.tip_stride) == (1, "polyp", 0)
