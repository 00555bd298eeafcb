"""The models in the zoo: they load, they know rendered frames, and hold on real ones."""

from __future__ import annotations

import numpy as np
import pytest

from trocar.runtime.repository.load import open_model
from trocar.runtime.repository.store import shipped
from trocar.video.annotator.evaluate import by_network, network_input, peaks, red_is_polyp, summarise
from trocar.video.annotator.loaders import LabelledFrame, load_frames
from trocar.video.annotator.network import LEAST_REGION_PX, NETWORK, POLYP
from trocar.video.annotator.renderer import render_frame, render_polyp
from trocar.video.types import CLASSES, PixelClass

HELD_OUT = 31_000


def opened(name):
    return open_model(shipped().open(name), threads=1, device="cpu")


@pytest.fixture(scope="module")
def annotator():
    return opened("annotator")


@pytest.fixture(scope="module")
def polyp():
    return opened("polyp")


@pytest.fixture(scope="module")
def scenes():
    return [render_frame((HELD_OUT, number)) for number in range(24)]


def labelled(scene):
    return LabelledFrame("rendered", scene.image_rgb, scene.labels, scene.tips_xy)


@pytest.mark.parametrize("network", [NETWORK, POLYP], ids=lambda network: network.name)
def test_the_manifest_says_what_the_network_is(network):
    model = shipped().open(network.name)
    manifest = model.manifest
    assert tuple(spec.name for spec in manifest.inputs) == network.input_names
    assert tuple(spec.name for spec in manifest.outputs) == network.output_names
    assert manifest.inputs[0].shape == ("batch", 3, 256, 448)
    assert manifest.outputs[0].shape == ("batch", len(network.classes), 256, 448)
    assert manifest.opset == 18
    # Real frames may be looked at, never learned from.
    assert manifest.training["data"] == f"rendered {network.kind}"
    assert len(model.read("model.onnx")) < 10_000_000
    assert "Limits" in model.read("card.md").decode()


def test_a_batch_is_its_frames(annotator, scenes):
    images = np.concatenate([network_input(scene.image_rgb) for scene in scenes[:3]])
    together = annotator.run({"image": images})
    assert together["tips"].shape == (3, 1, 64, 112)
    alone = annotator.run({"image": images[2:3]})
    np.testing.assert_allclose(together["logits"][2:], alone["logits"], atol=2e-3)


def test_it_knows_rendered_frames(annotator, scenes):
    found = {
        each.of: each.dice
        for each in summarise(map(labelled, scenes), by_network(annotator, LEAST_REGION_PX))
    }
    assert found["instrument"] > 0.75
    assert found["tissue"] > 0.9


def test_it_knows_where_the_picture_ends(annotator, scenes):
    annotate = by_network(annotator)
    counts = np.zeros(3)
    for scene in scenes:
        ours, theirs = annotate(scene.image_rgb) == 0, scene.labels == PixelClass.BACKGROUND
        counts += [(ours & theirs).sum(), ours.sum(), theirs.sum()]
    assert 2 * counts[0] / (counts[1] + counts[2]) > 0.9


def test_it_finds_tips(annotator, scenes):
    near = total = 0
    for scene in scenes:
        heat = annotator.run({"image": network_input(scene.image_rgb)})["tips"][0, 0]
        found = peaks(heat)
        for tip in scene.tips_xy:
            total += 1
            near += bool(len(found) and np.hypot(*(found - tip).T).min() < 12)
    assert near / total > 0.3


def test_a_black_frame_is_background(annotator):
    labels = by_network(annotator)(np.zeros((256, 448, 3), np.uint8))
    assert (labels == PixelClass.BACKGROUND).mean() > 0.95


@pytest.mark.parametrize(
    ("folder", "name", "floor"),
    [("endovis17", "endovis17", 0.8), ("artnet_tool_tip", "artnet", 0.7)],
)
def test_real_frames_it_never_saw(annotator, shared_dir, folder, name, floor):
    frames = load_frames(shared_dir / "video" / folder, name)
    assert summarise(frames, by_network(annotator))[0].dice > floor


def test_all_real_frames_together(annotator, shared_dir):
    """The aim is a mean Dice of 0.60; a frame without instruments counts 1, or 0 where any is marked."""
    sets = {
        "endovis17": "endovis17",
        "cholecseg8k_instrument": "cholecseg8k-instrument",
        "artnet_tool_tip": "artnet",
    }
    frames = [
        frame for folder, name in sets.items() for frame in load_frames(shared_dir / "video" / folder, name)
    ]
    found = summarise(frames, by_network(annotator, LEAST_REGION_PX))[0]
    assert (found.of, found.frames) == ("instrument", 10)
    assert found.dice >= 0.60
    # And without the help of dropping what is small.
    assert summarise(frames, by_network(annotator))[0].dice >= 0.60


def test_parts_are_told_apart_on_real_frames(annotator, shared_dir):
    found = summarise(load_frames(shared_dir / "video" / "endovis17", "endovis17"), by_network(annotator))
    assert {each.of: each.dice for each in found}[CLASSES[PixelClass.SHAFT]] > 0.6


def test_the_polyp_model_knows_rendered_bowel(polyp):
    frames = [labelled(render_polyp((HELD_OUT, number))) for number in range(24)]
    with_polyp = [frame for frame in frames if frame.labels.any()]
    (found,) = summarise(with_polyp, by_network(polyp), polyps=True)
    (red,) = summarise(with_polyp, red_is_polyp, polyps=True)
    assert found.dice > max(0.4, 2 * red.dice)


def test_the_polyp_model_on_real_frames_is_what_its_card_says(polyp, shared_dir):
    sets = {"kvasir_seg": "kvasir-seg", "cvc612": "cvc-612"}
    frames = [
        frame for folder, name in sets.items() for frame in load_frames(shared_dir / "video" / folder, name)
    ]
    (found,) = summarise(frames, by_network(polyp), polyps=True)
    assert (found.frames, round(found.dice, 2)) == (8, 0.34)
