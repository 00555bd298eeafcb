"""A tube whose walls are where arithmetic says, and what stands on them."""

from __future__ import annotations

import numpy as np
import pytest

from trocar.video.annotator.renderer.bowel import (
    COLUMNS,
    PERIOD,
    ROWS,
    Lump,
    Tube,
    View,
    draw_tube,
    draw_view,
    march,
    normals_of,
    refine,
)

STRAIGHT = Tube(np.ones((ROWS, COLUMNS), np.float32), (0.5, 0.0, 0.0, 0.0))
MIDDLE = np.array([0, 0, PERIOD / 2], np.float32)


def looking(*directions: tuple[float, float, float]) -> View:
    rays = np.array(directions, np.float32).T.reshape(3, 1, -1)
    rays /= np.linalg.norm(rays, axis=0)
    return View(rays, MIDDLE, np.zeros(rays.shape[1:], np.float32))


def ball(centre: tuple[float, float, float], radius: float) -> Lump:
    shape = np.eye(3, dtype=np.float32) / np.float32(radius)
    return Lump(np.array(centre, np.float32), shape, radius, np.zeros((1, 5), np.float32), 1e-3)


def test_rays_end_on_the_wall_of_a_straight_tube() -> None:
    view = looking((1, 0, 0), (0, 1, 0), (1, 0, 1), (-1, 0, 2))
    march(STRAIGHT, view, [])
    expected = [1, 1, np.sqrt(2), np.sqrt(5)]
    np.testing.assert_allclose(view.depth[0], expected, atol=0.01)


def test_normals_point_into_the_room() -> None:
    rows, columns = np.mgrid[-0.1:0.1:9j, -0.1:0.1:9j]
    view = looking(*zip(np.ones(81), columns.ravel(), rows.ravel(), strict=True))
    view = View(view.rays.reshape(3, 9, 9), MIDDLE, np.zeros((9, 9), np.float32))
    march(STRAIGHT, view, [])
    refine(STRAIGHT, view, [], 0.05 * view.depth)
    # Handed as pictures are: columns run along y, rows along z.
    np.testing.assert_allclose(normals_of(view)[:, 4, 4], (-1, 0, 0), atol=0.02)


def test_a_lump_hides_the_wall_behind_it_and_owns_what_is_seen_of_it() -> None:
    view = looking((1, 0, 0), (0, 1, 0))
    lump = ball((0.7, 0, PERIOD / 2), 0.2)
    march(STRAIGHT, view, [lump])
    np.testing.assert_allclose(view.depth[0], (0.5, 1.0), atol=0.01)
    assert view.owner[0, 0, 0] > 0.2
    assert view.owner[0, 0, 1] < -0.2


def test_a_stalk_is_a_rod_with_round_ends() -> None:
    lump = ball((0.5, 0, 0), 0.1)
    lump = Lump(lump.centre, lump.shape, 0.1, lump.waves, 1e-3, (np.array([1, 0, 0], np.float32), 0.05))
    points = np.array([(0.75, 0.25, 0), (0.75, 0, 0), (1.25, 0, 0)], np.float32).T
    np.testing.assert_allclose(lump.stalk_field(points), (0.2, -0.05, 0.2), atol=1e-6)
    np.testing.assert_allclose(lump.field(points), (np.hypot(0.25, 0.25) - 0.1, 0.15, 0.65), atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_the_lens_is_inside_whatever_is_drawn(seed: int) -> None:
    random = np.random.default_rng(seed)
    tube = draw_tube(random)
    view = draw_view(random, tube, (24, 32))
    march(tube, view, [])
    assert float(tube.field(view.start.reshape(3, 1, 1))[0, 0]) > 0
    np.testing.assert_allclose(np.linalg.norm(view.rays, axis=0), 1, atol=1e-4)
    assert np.isfinite(view.depth).all()
    assert view.depth.min() > 0


def test_a_smaller_view_looks_the_same_way() -> None:
    view = draw_view(np.random.default_rng(3), STRAIGHT, (48, 60))
    small = view.smaller(6)
    assert small.depth.shape == (8, 10)
    middle = view.rays[:, 24 - 3 : 24 + 3, 30 - 3 : 30 + 3].mean(axis=(1, 2))
    beside = small.rays[:, 3:5, 4:6].mean(axis=(1, 2))
    assert middle @ beside > 0.99
