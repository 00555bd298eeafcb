from __future__ import annotations

import numpy as np
import pytest

from trocar.video.annotator.renderer.residue import add_bubbles, add_liquid, add_mucus


@pytest.mark.parametrize("add", [add_liquid, add_mucus, add_bubbles])
def test_it_covers_a_part_of_the_picture_in_most_frames_and_never_all(add) -> None:
    changed = []
    for seed in range(20):
        planes = np.full((3, 96, 128), 0.5, np.float32)
        add(np.random.default_rng(seed), planes, 96 / 256)
        assert np.isfinite(planes).all()
        assert planes.min() >= 0
        changed.append((np.abs(planes - 0.5).max(axis=0) > 0.02).mean())
    assert np.mean([0 < share < 1 for share in changed]) > 0.5
