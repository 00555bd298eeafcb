from __future__ import annotations

import numpy as np
import pytest

from trocar.runtime.session.base import TensorSpec
from trocar.video.annotator.evaluate import (
    by_network,
    grey_is_instrument,
    network_input,
    peaks,
    red_is_polyp,
    small_regions,
    summarise,
    tip_errors,
)
from trocar.video.annotator.labels import ANY_INSTRUMENT, IGNORE
from trocar.video.annotator.loaders import LabelledFrame


class Fixed:
    """A session that answers the same to every frame."""

    def __init__(self, labels=None, tip=None):
        self.logits = np.zeros((1, 5, 256, 448), dtype=np.float32)
        if labels is not None:
            np.put_along_axis(self.logits[0], labels[None].astype(int), 1.0, axis=0)
        self.tips = np.zeros((1, 1, 64, 112), dtype=np.float32)
        if tip is not None:
            self.tips[0, 0, tip[1], tip[0]] = 0.9
        self.seen = []

    inputs = (TensorSpec("image", "float32", ("batch", 3, 256, 448)),)

    def run(self, feeds):
        self.seen.append(feeds["image"])
        return {"logits": self.logits, "tips": self.tips}


def frame(labels, tips=None, image=None):
    labels = np.asarray(labels, dtype=np.uint8)
    image = np.zeros((*labels.shape, 3), np.uint8) if image is None else image
    return LabelledFrame("f", image, labels, tips)


def test_the_network_sees_rgb_from_nought_to_one_at_its_own_size():
    image = np.full((512, 896, 3), (255, 51, 0), dtype=np.uint8)
    found = network_input(image)
    assert found.shape == (1, 3, 256, 448)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, :, 100, 100], [1.0, 0.2, 0.0], atol=1e-6)


def test_labels_come_back_at_the_frames_size():
    small = np.ones((256, 448))
    small[64:128, 112:224] = 3
    labels = by_network(Fixed(small))(np.zeros((512, 896, 3), np.uint8))
    assert labels.shape == (512, 896)
    assert labels.dtype == np.uint8
    assert (labels[130:254, 226:446] == 3).all()
    assert (labels == 3).sum() == pytest.approx(128 * 224, rel=0.02)


def test_small_regions_of_instrument_become_tissue_by_their_area_in_the_networks_picture():
    small = np.ones((256, 448))
    small[10:20, 10:20] = 2  # 100 px
    small[100:120, 100:110] = 2  # with the next, 300 px: one region of two parts
    small[100:120, 110:115] = 4
    small[200:, :] = 0
    session = Fixed(small)
    image = np.zeros((512, 896, 3), np.uint8)
    kept = by_network(session, 150)(image)
    assert (by_network(session)(image)[22:38, 22:38] == 2).all()
    assert (kept[:60, :60] == 1).all()
    assert (kept[202:238, 202:216] == 2).all()
    assert (kept[202:238, 224:228] == 4).all()
    assert (kept[410:] == 0).all()
    assert not (by_network(session, 1000)(image) >= 2).any()
    mask = np.zeros((5, 5), bool)
    mask[0, :2] = mask[3:, 3:] = True
    assert small_regions(mask, 3).sum() == 2
    assert not small_regions(mask, 2).any()
    assert small_regions(mask, 5).sum() == 6


def test_summaries_are_means_over_frames_by_hand():
    truth = np.ones((10, 10))
    truth[:, :5] = 2
    none = np.ones((10, 10))

    def half(_):
        found = np.ones((10, 10), np.uint8)
        found[:5, :5] = 2
        return found

    found = {each.of: each for each in summarise([frame(truth), frame(none)], half)}
    assert set(found) == {"instrument", "shaft", "wrist", "clasper", "tissue"}
    # 25 of 50 px found: 2 / 3. The second frame has none, and some is marked: 0.
    assert found["instrument"].dice == pytest.approx((2 / 3 + 0) / 2)
    assert found["instrument"].iou == pytest.approx((1 / 2 + 0) / 2)
    assert (found["instrument"].frames, found["shaft"].frames) == (2, 1)
    assert found["wrist"].dice == 1.0  # neither has one


def test_sets_without_parts_are_scored_as_one_and_the_unknown_is_left_out():
    truth = np.full((10, 10), ANY_INSTRUMENT)
    truth[:, 5:] = IGNORE

    def everywhere(_):
        return np.full((10, 10), 3, np.uint8)

    found = summarise([frame(truth)], everywhere)
    assert [each.of for each in found] == ["instrument", "tissue"]
    assert found[0].dice == 1.0


def test_polyps_are_their_own_class():
    truth = np.zeros((4, 4))
    truth[:2] = 1
    (found,) = summarise([frame(truth)], lambda _: (truth > 0).astype(np.uint8), polyps=True)
    assert (found.of, found.dice) == ("polyp", 1.0)


def test_tips_are_measured_from_the_nearest_peak():
    truth = frame(np.ones((512, 896)), tips=np.array([[400.0, 200.0]]))
    # The cell's middle is (50.5, 25.5) * 4 px of the network, twice that in the frame.
    (error,) = tip_errors([truth], Fixed(tip=(50, 25)))
    assert error == pytest.approx(100 * np.hypot(404 - 400, 204 - 200) / 896)
    assert tip_errors([truth], Fixed()) == [np.inf]
    assert tip_errors([frame(np.ones((4, 4)))], Fixed()) == []


def test_peaks_are_the_highest_of_their_neighbours_in_order():
    heat = np.zeros((8, 8), np.float32)
    heat[2, 3], heat[2, 4], heat[6, 6], heat[0, 0] = 0.6, 0.5, 0.9, 0.2
    assert peaks(heat).tolist() == [[26.0, 26.0], [14.0, 10.0]]


def test_the_colour_baselines_mark_what_is_grey_and_what_is_red():
    image = np.full((120, 160, 3), (180, 60, 60), dtype=np.uint8)
    image[40:80, 60:] = (128, 128, 130)
    image[:, :20] = 0
    found = grey_is_instrument(image)
    assert (found[45:75, 70:] == 2).all()
    assert (found[:30, 30:] == 1).all()
    assert (found[:, :15] == 0).all()
    bowel = np.full((120, 160, 3), (200, 140, 110), dtype=np.uint8)
    bowel[40:80, 60:100] = (200, 60, 60)
    found = red_is_polyp(bowel)
    assert found[60, 80] == 1
    assert found[10, 10] == 0
    assert not red_is_polyp(np.zeros((20, 20, 3), np.uint8)).any()
