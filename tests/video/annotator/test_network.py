from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from trocar.runtime.errors import InvalidInput
from trocar.video.annotator.network import NETWORK, POLYP, as_input, network_settings
from trocar.video.annotator.settings import NetworkSettings, TrainSettings, train_settings
from trocar.video.types import CLASSES, PALETTE_RGB

HELD = {"classes": 5, "widths": [16, 32, 64, 96, 128], "depths": [1, 1, 1, 1], "tips": True, "lean": True}


def test_settings_come_back_from_json():
    settings = network_settings({"network": json.loads(json.dumps(HELD))})
    assert settings == NetworkSettings(5, (16, 32, 64, 96, 128), (1, 1, 1, 1), True, True)
    assert network_settings(HELD) == settings
    del (before := dict(HELD))["lean"]
    assert network_settings(before) == replace(settings, lean=False), "written before there was a choice"


@pytest.mark.parametrize(
    "broken",
    [
        {**HELD, "widths": [16, 32]},
        {**HELD, "widths": [15, 32, 64, 96, 128]},
        {**HELD, "classes": 1},
        {"classes": 5},
        {**HELD, "other": 1},
        None,
    ],
)
def test_settings_of_no_network_are_refused(broken):
    with pytest.raises(InvalidInput, match="expected"):
        network_settings({"network": broken})


def test_a_frame_becomes_channels_first_from_nought_to_one():
    images = np.zeros((2, 4, 6, 3), np.uint8)
    images[1, 2, 3] = (255, 0, 51)
    found = as_input(images)
    assert found.shape == (2, 3, 4, 6)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[1, :, 2, 3], [1.0, 0.0, 0.2])


def test_the_manifest_says_how_frames_go_in_and_labels_come_out():
    fields = NETWORK.manifest_fields({"training": {"seed": 0}, "metrics": {"dice": 0.5}})
    assert fields["preprocessing"]["image"]["order"] == "rgb"
    assert fields["preprocessing"]["image"]["scale"] == [1 / 255] * 3
    assert fields["postprocessing"]["logits"]["classes"] == list(CLASSES)
    assert fields["postprocessing"]["logits"]["palette_rgb"] == [list(each) for each in PALETTE_RGB.values()]
    assert fields["postprocessing"]["tips"]["stride"] == 4
    assert "tips" not in POLYP.manifest_fields({})["postprocessing"]
    json.dumps(fields, allow_nan=False)


def test_the_task_is_measured_on_rendered_frames():
    def background(feeds):
        logits = np.zeros((1, 2, 256, 448), np.float32)
        logits[:, 0] = 1
        assert feeds["image"].shape == (1, 3, 256, 448)
        return {"logits": logits}

    found = POLYP.task_metric(background)
    assert found["dice_polyp"] < 0.01 < 0.5 < found["dice_other"] < 1
    assert found["dice"] == pytest.approx((found["dice_polyp"] + found["dice_other"]) / 2)


def test_measured_frames_are_apart_and_the_same_every_time():
    first, again = NETWORK.parity_inputs(), NETWORK.parity_inputs()
    assert [feeds["image"].shape[0] for feeds in first] == [1, 2, 4]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
    calibration = next(iter(NETWORK.calibration_inputs()))["image"]
    assert not (calibration[0] == first[0]["image"][0]).all()


def test_arms_differ_in_the_adversarial_terms_alone():
    full, plain = (train_settings("annotator", arm, 0) for arm in ("full", "no-adversarial"))
    assert full.weights.adversarial > 0
    assert (plain.weights.adversarial, plain.weights.feature_matching) == (0.0, 0.0)
    assert (full.weights.dice, full.network, full.epochs) == (plain.weights.dice, plain.network, plain.epochs)
    assert full == TrainSettings()
    polyp = train_settings("polyp", "full", 3).network
    # What the shipped one was trained as.
    assert polyp == NetworkSettings(2, (16, 32, 80, 128, 192), tips=False, lean=False)


def test_the_card_says_what_was_measured_and_what_it_must_not_do():
    tables = {"accuracy": [{"set": "endovis17", "dice": 0.91234}], "later": []}
    card = NETWORK.card({"network": HELD, "training": {"seed": 0}, "metrics": {}, "tables": tables})
    assert card.startswith("# Annotator\n")
    assert "not a medical device" in card
    assert "| endovis17 | 0.9123 |" in card
    assert "## later\n\nNot measured yet." in card
    assert "no pixel of a patient" in card
    assert POLYP.card({}).startswith("# Polyp\n")
