"""What a surgeon sees, down to a picture of one pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trocar.video.frames import Annotation, Instance
from trocar.video.overlay import Overlay, instrument_palette, object_palette
from trocar.video.privacy import coarsen
from trocar.video.quality import inspect

SIZES = st.tuples(st.integers(1, 60), st.integers(1, 60)) | st.sampled_from([(1, 3000), (3000, 1), (2, 1281)])


@settings(deadline=None, max_examples=60)
@given(SIZES, st.integers(0, 4), st.integers(0, 99))
def test_any_size_is_drawn_inspected_and_blurred(size: tuple[int, int], label: int, seed: int) -> None:
    height, width = size
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    quality = inspect(image)
    values = [getattr(quality, name) for name in quality.__slots__]
    assert all(0 <= value <= 1 for value in values), quality
    one = Instance("instrument", (0, 0, width, height), height * width, 1.0, (float(width), 0.0), 1)
    annotation = Annotation(0, 0.0, np.full(size, label, np.uint8), 2, (one,))
    Overlay(instrument_palette()).draw(image, annotation, "")
    Overlay(instrument_palette()).draw(image, None, "late")
    before = image.copy()
    coarsen(image)
    # In place: that is what the recorders hold.
    assert image.shape == before.shape
    if min(size) > 24:
        assert not np.array_equal(image, before)


def test_the_clean_picture_has_its_badge_and_nothing_else() -> None:
    image = np.full((240, 640, 3), 90, np.uint8)
    Overlay(instrument_palette()).draw(image, None, "late")
    changed = np.any(image != 90, axis=2)
    assert changed[0, 0]
    assert changed[5:25, 5:60].all()
    assert not changed[60:].any()
    other = np.full((240, 640, 3), 90, np.uint8)
    Overlay(instrument_palette()).draw(other, None, "smoke behind a long reason")
    assert np.count_nonzero(np.any(other != 90, axis=2)) > np.count_nonzero(changed)


@pytest.mark.parametrize("label", [0, 1])
def test_background_and_tissue_stay_clear(label: int) -> None:
    image = np.full((50, 60, 3), 90, np.uint8)
    Overlay(instrument_palette()).draw(image, Annotation(0, 0.0, np.full((50, 60), label, np.uint8), 2), "")
    assert np.all(image == 90)


def test_an_object_takes_its_colour_in_the_frames_order() -> None:
    labels = np.zeros((50, 60), np.uint8)
    labels[10:40, 10:50] = 1
    image = np.zeros((50, 60, 3), np.uint8)
    Overlay(object_palette()).draw(image, Annotation(0, 0.0, labels, 1), "")
    blue, green, red = (int(value) for value in image[25, 30])
    assert red > green > blue  # orange
    assert np.all(image[:8] == 0)
