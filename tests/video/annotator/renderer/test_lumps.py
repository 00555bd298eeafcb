from __future__ import annotations

import numpy as np

from trocar.video.annotator.renderer.bowel import View, draw_tube, draw_view, march, normals_of
from trocar.video.annotator.renderer.lumps import POLYP, STOOL, SWELLING, Growth, draw_growths
from trocar.video.annotator.renderer.mucosa import Surface, draw_mucosa, lit


def grown(seed: int) -> tuple[np.random.Generator, View, list[Growth]]:
    random = np.random.default_rng(seed)
    tube = draw_tube(random)
    view = draw_view(random, tube, (42, 60))
    march(tube, view, [])
    growths = draw_growths(random, view, normals_of(view))
    march(tube, view, [growth.lump for growth in growths])
    return random, view, growths


def test_some_frames_have_none_most_have_a_polyp_and_some_what_only_looks_like_one() -> None:
    kinds = [[growth.kind for growth in grown(seed)[2]] for seed in range(40)]
    polyps = [each.count(POLYP) for each in kinds]
    assert 1 <= polyps.count(0) <= 14
    assert polyps.count(1) >= 20
    assert sum(STOOL in each for each in kinds) >= 2
    assert sum(SWELLING in each for each in kinds) >= 2


def test_nothing_that_grows_touches_the_lens() -> None:
    for seed in range(15):
        _, view, growths = grown(seed)
        for growth in growths:
            if growth.kind == POLYP:
                assert growth.lump.field(view.start.reshape(3, 1, 1))[0, 0] > 0


def test_what_is_near_is_lighter_than_what_is_far() -> None:
    near, far = [], []
    for seed in range(12):
        random, view, growths = grown(seed)
        ones = np.zeros(view.depth.shape, np.float32)
        surface = Surface(view, normals_of(view), ones, ones)
        colour = draw_mucosa(random, surface, growths, 42 / 256)
        light = lit(random, surface, colour, 42 / 256).mean(axis=0)
        assert np.isfinite(light).all()
        assert light.min() >= 0
        near.append(light[view.depth <= np.quantile(view.depth, 0.3)].mean())
        far.append(light[view.depth >= np.quantile(view.depth, 0.9)].mean())
    assert np.mean(near) > 1.3 * np.mean(far)
