from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trocar.video.annotator.scores import score, surface_dice


def box(top, left, height, width, shape=(40, 60)):
    mask = np.zeros(shape, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_two_squares_that_share_a_half():
    found = score(box(10, 10, 10, 10), box(10, 15, 10, 10), tolerance_px=0.0)
    assert found.dice == pytest.approx(2 * 50 / 200)
    assert found.iou == pytest.approx(50 / 150)
    # Of 36 outline pixels each, 10 lie on the other's: 5 of the top row and 5 of the bottom, both ways.
    assert found.nsd == pytest.approx(20 / 72)


def test_surfaces_within_the_tolerance_are_the_same():
    first, moved = box(10, 10, 10, 10), box(10, 13, 10, 10)
    assert surface_dice(first, moved, 3.0) == 1.0
    assert surface_dice(first, moved, 2.0) < 1.0


def test_the_default_tolerance_is_that_of_robust_mis():
    wide = (20, 960)
    assert score(box(2, 100, 10, 100, wide), box(2, 113, 10, 100, wide)).nsd == 1.0
    assert score(box(2, 100, 10, 100, wide), box(2, 120, 10, 100, wide)).nsd < 1.0


def test_nothing_in_both_is_right_and_in_one_is_wrong():
    none, some = np.zeros((8, 8), dtype=bool), box(2, 2, 3, 3, (8, 8))
    assert score(none, none) == score(some, some)
    assert (score(none, some).dice, score(some, none).iou, score(some, none).nsd) == (0.0, 0.0, 0.0)


def test_what_nobody_labelled_does_not_count():
    truth, found = box(0, 0, 4, 4, (8, 8)), box(0, 0, 8, 4, (8, 8))
    known = np.zeros((8, 8), dtype=bool)
    known[:4] = True
    assert score(found, truth).dice == pytest.approx(2 * 16 / 48)
    assert score(found, truth, known).dice == 1.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_scores_are_symmetric_and_from_nought_to_one(seed):
    random = np.random.default_rng(seed)
    a, b = (random.random((12, 15)) < random.random() for _ in range(2))
    first, second = score(a, b), score(b, a)
    assert first == second
    assert all(0.0 <= value <= 1.0 for value in (first.dice, first.iou, first.nsd))
    assert first.iou <= first.dice
