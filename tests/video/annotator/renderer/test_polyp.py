from __future__ import annotations

import numpy as np

from trocar.video.annotator.renderer import render_polyp

SMALL = (96, 160)


def test_polyps_are_one_and_all_else_is_nought_and_there_are_no_tips():
    scenes = [render_polyp(seed, SMALL) for seed in range(40)]
    shares = np.array([(scene.labels == 1).mean() for scene in scenes])
    assert set(np.unique(np.stack([scene.labels for scene in scenes]))) == {0, 1}
    assert all(len(scene.tips_xy) == 0 and scene.image_rgb.shape == (*SMALL, 3) for scene in scenes)
    assert 0 < (shares == 0).sum() < 15  # some bowel is healthy
    assert (shares > 0.1).sum() >= 5


def test_the_same_seed_gives_the_same_frame():
    first, again = render_polyp(9, SMALL), render_polyp(9, SMALL)
    np.testing.assert_array_equal(first.image_rgb, again.image_rgb)
    np.testing.assert_array_equal(first.labels, again.labels)
