import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trocar.runtime.kernels.geometry import (
    Blend,
    PlaneGrid,
    blend_planes,
    blend_planes_reference,
    cover_polygons,
    distance_transform,
    distance_transform_reference,
    signed_slice_reference,
    signed_slices,
)

SPACINGS = st.tuples(*[st.sampled_from([0.3, 0.78125, 1.0, 2.5, 5.0])] * 3)


@settings(max_examples=60, deadline=None)
@given(
    mask=hnp.arrays(bool, st.tuples(*[st.integers(1, 7)] * 3)),
    spacing=SPACINGS,
    per_slice=st.booleans(),
)
def test_distance_equals_brute_force(mask, spacing, per_slice):
    fast = distance_transform(mask, spacing, per_slice=per_slice)
    slow = distance_transform_reference(mask, spacing, per_slice=per_slice)
    np.testing.assert_allclose(fast, slow, rtol=1e-6)


def test_distance_by_hand():
    mask = np.zeros((2, 3, 4), dtype=bool)
    mask[0, 0, 0] = True
    away = distance_transform(mask, (5.0, 2.0, 1.0))
    assert away[0, 0].tolist() == [0, 1, 2, 3]
    assert away[1, 2, 3] == pytest.approx(np.sqrt(25 + 16 + 9))
    flat = distance_transform(mask, (5.0, 2.0, 1.0), per_slice=True)
    assert np.isinf(flat[1]).all()
    assert flat[0, 2, 3] == pytest.approx(5.0)


def test_distance_of_nothing_and_of_strided_views():
    assert np.isinf(distance_transform(np.zeros((2, 2, 2), bool), (1, 1, 1))).all()
    assert distance_transform(np.zeros((0, 3, 3), bool), (1, 1, 1)).shape == (0, 3, 3)
    mask = np.zeros((3, 4, 6), bool)
    mask[:, 1, 2] = True
    view = mask.transpose(2, 1, 0)[::-1]
    assert not view.flags.c_contiguous
    np.testing.assert_allclose(
        distance_transform(view, (1, 2, 3)), distance_transform_reference(view, (1, 2, 3)), rtol=1e-6
    )


@settings(max_examples=60, deadline=None)
@given(
    inner=hnp.arrays(np.float32, (4, 5), elements=st.sampled_from([0.0, 0.25, 0.6, 1.0])),
    spacing=st.sampled_from([(1.0, 1.0), (0.78125, 1.015625), (2.0, 0.5)]),
)
def test_signed_slice_is_the_reference_moved_by_one_level(inner, spacing):
    slice_yx = np.pad(inner, 1)
    native = signed_slices(slice_yx[None], spacing)[0].astype(np.float64)
    reference = signed_slice_reference(slice_yx, spacing)
    if not (slice_yx >= 0.5).any():
        assert np.isinf(native).all()
        return
    moved = reference - native
    assert np.ptp(moved) < 1e-4
    assert abs(moved.mean()) <= 0.5 * min(spacing) + 1e-4


def test_a_straight_edge_is_where_its_partial_pixels_say():
    # Four whole columns and one of 0.75: the edge lies 4.75 pixels from the left rim of the first. The
    # level between centres holding 0.75 and 0 is 0.08 pixel farther; keeping the area undoes that.
    slice_yx = np.zeros((40, 9), np.float32)
    slice_yx[1:-1, 1:5] = 1.0
    slice_yx[1:-1, 5] = 0.75
    middle = signed_slices(slice_yx[None], (1.0, 1.0))[0, 20]
    right = np.interp(0.0, middle[4:8], np.arange(4, 8))
    assert right == pytest.approx(5.25, abs=0.06)
    assert middle[7] - middle[6] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_blend_equals_its_reference(split):
    random = np.random.default_rng(4)
    distance = random.normal(0.0, 3.0, (4, 9, 11)).astype(np.float32)
    blend = Blend(
        plane=np.array([0, 0, 1, 2], np.int32),
        slices=np.array([[0, 1], [1, 2], [2, 3], [3, 3]], np.int32),
        t=np.array([0.25, 0.5, 0.9, 0.0]),
        weight=np.array([0.5, 0.5, 1.0, 0.3]),
        shift_xy_mm=random.normal(0.0, 1.0, (4, 2, 2)),
        grow_mm=np.array([0.0, 0.4, 0.1, 0.0]),
    )
    source, target = PlaneGrid((-3.0, 2.0), (0.8, 1.1)), PlaneGrid((-6.0, 0.5), (1.0, 1.25))
    fast = blend_planes(distance, source, blend, target, (4, 10, 13), split=split)
    slow = blend_planes_reference(distance, source, blend, target, (4, 10, 13), split=split)
    np.testing.assert_allclose(fast, slow, atol=2e-5)
    assert not fast[3].any()


def shoelace(polygon):
    x, y = polygon.T
    return 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def star(count, radii, phase):
    """A polygon that never crosses itself: points by ascending angle around a centre."""
    angle = phase + 2 * np.pi * np.arange(count) / count
    return np.stack([16 + radii * np.cos(angle), 15 + radii * np.sin(angle)], axis=1)


@settings(max_examples=80, deadline=None)
@given(
    radii=st.lists(st.floats(4.0, 13.0), min_size=3, max_size=24),
    phase=st.floats(0.0, 6.28),
    backwards=st.booleans(),
)
def test_covered_area_is_the_shoelace_area(radii, phase, backwards):
    polygon = star(len(radii), np.array(radii), phase)
    cover = cover_polygons([[polygon[::-1] if backwards else polygon]], (31, 33))
    assert cover.min() >= 0.0
    assert cover.max() <= 1.0
    # The midpoint rule on 16 lines a row errs by at most half a line times the variation of the chords.
    variation = np.abs(np.diff(polygon[:, 0], append=polygon[0, 0])).sum()
    assert cover.sum(dtype=np.float64) == pytest.approx(shoelace(polygon), abs=variation / 32 + 1e-3)


def test_coverage_by_hand():
    # A rectangle from (0.5, 1.25) to (2.25, 3): exact in x, and 16 lines a row hit quarters exactly.
    box = np.array([[0.5, 1.25], [2.25, 1.25], [2.25, 3.0], [0.5, 3.0]])
    cover = cover_polygons([[box]], (4, 4))[0]
    np.testing.assert_allclose(cover[1], [0.375, 0.75, 0.1875, 0.0])
    np.testing.assert_allclose(cover[2], [0.5, 1.0, 0.25, 0.0])
    assert not cover[[0, 3]].any()


@pytest.mark.parametrize("inner_step", [1, -1])
def test_a_hole_is_even_odd_whichever_way_it_turns(inner_step):
    outer = np.array([[1, 1], [9, 1], [9, 9], [1, 9]], float)
    inner = np.array([[3, 3], [6, 3], [6, 6], [3, 6]], float)[::inner_step]
    cover = cover_polygons([[outer, inner], [], [inner]], (10, 10))
    assert cover[0].sum() == pytest.approx(64 - 9)
    assert cover[0, 4, 4] == 0.0
    assert not cover[1].any()
    assert cover[2].sum() == pytest.approx(9)


def test_a_key_hole_contour_is_a_hole():
    ring = np.array(
        [[1, 1], [9, 1], [9, 9], [1, 9], [1, 5], [3, 5], [3, 6], [6, 6], [6, 3], [3, 3], [3, 5], [1, 5]],
        float,
    )
    cover = cover_polygons([[ring]], (10, 10))[0]
    assert cover.sum() == pytest.approx(64 - 9, abs=1e-4)
    assert cover[4, 4] == 0.0


def test_polygons_past_the_rim_are_cut_there():
    huge = np.array([[-100, -100], [100, -100], [100, 100], [-100, 100]], float)
    assert cover_polygons([[huge]], (3, 5)).tolist() == np.ones((1, 3, 5)).tolist()
    outside = huge + 1000
    assert not cover_polygons([[outside]], (3, 5)).any()
