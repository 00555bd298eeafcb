from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trocar.video.annotator.renderer import render_frame
from trocar.video.annotator.renderer.instruments import KINDS, Pose, draw_instrument
from trocar.video.annotator.renderer.noise import tiles
from trocar.video.annotator.renderer.poses import to_edge
from trocar.video.annotator.renderer.scene import lay, motion_kernel, visible
from trocar.video.annotator.renderer.strokes import Layer, draw_layer
from trocar.video.types import HEIGHT, WIDTH, PixelClass

SMALL = (96, 160)
tiles()  # made once, outside any test's deadline


@pytest.fixture(scope="module")
def scenes():
    return [render_frame(seed, SMALL) for seed in range(60)]


def test_the_same_seed_gives_the_same_frame_and_another_seed_another():
    first, again, other = render_frame(5), render_frame(5), render_frame(6)
    assert first.image_rgb.shape == (HEIGHT, WIDTH, 3)
    assert first.image_rgb.dtype == first.labels.dtype == np.uint8
    np.testing.assert_array_equal(first.image_rgb, again.image_rgb)
    np.testing.assert_array_equal(first.labels, again.labels)
    np.testing.assert_array_equal(first.tips_xy, again.tips_xy)
    assert not np.array_equal(first.image_rgb, other.image_rgb)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1))
def test_every_pixel_has_a_class_and_every_tip_lies_in_a_clasper(seed):
    scene = render_frame(seed, SMALL)
    assert scene.labels.shape == SMALL == scene.image_rgb.shape[:2]
    assert set(np.unique(scene.labels)) <= set(PixelClass)
    for x, y in scene.tips_xy:
        assert scene.labels[int(y), int(x)] == PixelClass.CLASPER


def test_frames_hold_every_class_and_some_hold_no_instrument(scenes):
    present = [set(np.unique(scene.labels)) for scene in scenes]
    for each in PixelClass:
        assert sum(each in labels for labels in present) >= 10
    assert sum(not labels & {2, 3, 4} for labels in present) >= 3
    assert sum(len(scene.tips_xy) > 0 for scene in scenes) >= 15


def test_the_surround_is_dark_and_even(scenes):
    for scene in scenes:
        outside = scene.labels == PixelClass.BACKGROUND
        if outside.mean() > 0.05:
            # Words over it and blur from the picture's edge touch little of it.
            assert np.median(scene.image_rgb[outside]) <= 40


def test_instruments_differ_from_tissue_in_brightness_both_ways(scenes):
    """Neither dark nor bright must mean instrument, or a network would learn just that."""
    brighter = []
    for scene in scenes:
        tool = np.isin(scene.labels, (2, 3, 4))
        if tool.mean() > 0.02:
            grey = scene.image_rgb.mean(axis=2)
            brighter.append(grey[tool].mean() > grey[scene.labels == PixelClass.TISSUE].mean())
    assert 0.15 < np.mean(brighter) < 0.85


@pytest.mark.parametrize("kind", KINDS)
def test_an_instrument_has_its_parts_from_the_border_to_its_tips(kind):
    instrument = draw_instrument(np.random.default_rng(2), kind)
    # Its shaft lies on a row, from the left border to the middle.
    layer = draw_layer(instrument, Pose((200.0, 128.0), 0.0, 12.0, 260.0, 0.0, 0.2), (256, 448))
    columns = {part: np.nonzero((layer.labels == part).any(axis=0))[0] for part in (2, 3, 4)}
    assert columns[2].min() == 0
    assert columns[2].max() <= 201
    assert columns[4].mean() > columns[2].mean()
    assert len(layer.tips_xy) in (1, 2)
    for x, y in layer.tips_xy:
        assert layer.labels[int(y), int(x)] == PixelClass.CLASPER
        assert x > 200
    # Twice the radius, twice as thick.
    assert (layer.labels[:, 150] == PixelClass.SHAFT).sum() == pytest.approx(
        24 * (1 + (instrument.taper - 1) * 50 / 260), abs=3
    )


def test_a_bent_wrist_turns_the_claspers_and_not_the_shaft():
    instrument = next(
        made
        for made in (draw_instrument(np.random.default_rng(seed), "needle-driver") for seed in range(50))
        if made.wrists[0].turn == 1.0
    )
    straight, bent = (
        draw_layer(instrument, Pose((200.0, 128.0), 0.0, 10.0, 260.0, wrist), (256, 448))
        for wrist in (0.0, 0.8)
    )
    np.testing.assert_array_equal(straight.labels[:, :150], bent.labels[:, :150])
    assert bent.tips_xy[:, 1].mean() > straight.tips_xy[:, 1].mean() + 10  # y points down, angles turn so too


def test_what_lies_over_a_tip_hides_it():
    labels = np.full((4, 4), PixelClass.TISSUE, dtype=np.uint8)
    labels[1, 2] = PixelClass.CLASPER
    tips = np.array([[2.5, 1.5], [0.5, 0.5], [9.0, 1.0], [-0.5, 1.0]])
    assert visible(tips, labels).tolist() == [[2.5, 1.5]]
    over = Layer(
        np.zeros((3, 4, 4), np.float32),
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((0, 2)),
    )
    over.labels[1, 2] = PixelClass.SHAFT
    assert len(lay(np.zeros((3, 4, 4), np.float32), labels, tips[:1], over)) == 0
    assert labels[1, 2] == PixelClass.SHAFT


def test_a_motion_kernel_keeps_brightness_and_has_its_direction():
    kernel = motion_kernel(9.0, 0.0)
    assert kernel.sum() == pytest.approx(1.0, abs=1e-6)
    assert kernel.sum(axis=1).argmax() == kernel.shape[0] // 2
    assert (kernel.sum(axis=0) > 0.05).sum() >= 8


@pytest.mark.parametrize(
    ("joint", "angle", "far"),
    [((30.0, 50.0), 0.0, 30.0), ((30.0, 50.0), np.pi, 70.0), ((30.0, 50.0), np.pi / 2, 50.0)],
)
def test_the_shaft_reaches_the_edge_behind_it(joint, angle, far):
    assert to_edge(joint, angle, (80, 100)) == pytest.approx(far)
