from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from trocar.runtime.errors import InvalidInput
from trocar.video.annotator.renderer import OUT_OF_BODY, SCRIPT, Phase, phase_spans, render_clip
from trocar.video.types import PixelClass

SMALL = (96, 160)


@pytest.fixture(scope="module")
def clip():
    return list(render_clip(1, 50, 10.0, SMALL))


def test_a_clip_has_its_frames_in_order_with_their_times_and_phases(clip):
    assert [frame.number for frame in clip] == list(range(50))
    assert [frame.time_s for frame in clip] == pytest.approx([number / 10 for number in range(50)])
    names = [frame.phase for frame in clip]
    assert list(dict.fromkeys(names)) == [phase.name for phase in SCRIPT]
    # 8, 14, 34, 20, 16 and 8 % of 50 frames.
    assert [names.count(phase.name) for phase in SCRIPT] == [4, 7, 17, 10, 8, 4]


def test_phases_share_out_any_number_of_frames():
    for frames in (1, 2, 7, 250):
        spans = phase_spans(frames)
        assert spans[0][0] == 0
        assert spans[-1][1] == frames
        assert all(a[1] == b[0] for a, b in pairwise(spans))


def test_instruments_work_in_their_phases_and_not_outside_the_body(clip):
    for frame in clip:
        tool = np.isin(frame.scene.labels, (2, 3, 4)).any()
        if frame.phase in (OUT_OF_BODY, "closing"):
            assert not tool
    working = [frame for frame in clip if frame.phase == "dissection"]
    assert np.mean([np.isin(frame.scene.labels, (2, 3, 4)).any() for frame in working]) > 0.8


def test_pictures_move_smoothly_and_cut_at_the_body_wall(clip):
    grey = [frame.scene.image_rgb.mean(axis=2) for frame in clip]
    steps = np.array([np.abs(a - b).mean() for a, b in pairwise(grey)])
    entering = next(frame.number for frame in clip if frame.phase != OUT_OF_BODY) - 1
    assert steps.argmax() == entering
    inside = np.delete(steps, entering)
    assert 0 < np.median(inside) < 0.5 * steps[entering]


def test_the_room_is_not_red(clip):
    def redness(frame):
        seen = frame.scene.labels != PixelClass.BACKGROUND
        red, green, blue = (frame.scene.image_rgb[..., c][seen].mean() for c in range(3))
        return red / (red + green + blue)

    assert redness(clip[0]) < 0.36 < redness(clip[10])


def test_the_same_arguments_give_the_same_clip():
    script = (Phase("one", 0.5, ("scissors",)), Phase("two", 0.5, ("scissors", "stapler"), smoke=0.5))
    first, again = (list(render_clip(4, 6, 5.0, SMALL, script)) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.scene.image_rgb, b.scene.image_rgb)
        np.testing.assert_array_equal(a.scene.labels, b.scene.labels)
    assert [frame.phase for frame in first] == ["one"] * 3 + ["two"] * 3


@pytest.mark.parametrize(
    ("frames", "fps", "shape"),
    [(0, 25.0, SMALL), (5, 0.0, SMALL), (5, float("nan"), SMALL), (5, 25.0, (8, 8))],
)
def test_a_clip_of_nothing_is_refused(frames, fps, shape):
    with pytest.raises(InvalidInput, match="clip: expected frames, a rate and 32 px or more"):
        render_clip(1, frames, fps, shape)
