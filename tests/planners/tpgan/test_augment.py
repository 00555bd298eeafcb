from __future__ import annotations

import numpy as np
import pytest

from trocar.planners.features import DISTANCE_REACH, SIDE, parities
from trocar.planners.tpgan.augment import CANDIDATE, SHIFTS, augmented, mirrored, shifted


def on_board(seeds):
    plane, row, column = np.nonzero(seeds)
    return ((row + column) % 2 == 0) & ((plane + column) % 2 == 0)


def test_a_mirror_exchanges_left_and_right_about_a_column(example):
    one = example(3)
    features, seeds = mirrored(one.features, one.seeds)
    assert seeds.sum() == one.seeds.sum()
    for column in range(1, SIDE):
        np.testing.assert_array_equal(seeds[..., column], one.seeds[..., 16 - column])
        np.testing.assert_array_equal(features[:5, ..., column], one.features[:5, ..., 16 - column])


def test_a_mirror_keeps_the_canonical_board_where_a_plain_flip_leaves_it(example):
    one = example(3)
    _, seeds = mirrored(one.features, one.seeds)
    assert on_board(seeds).all()
    assert not on_board(one.seeds[..., ::-1]).any()


def test_parity_channels_stay_what_they_are_in_every_window(example):
    one = example(0)
    for made in (mirrored(one.features, one.seeds), shifted(one.features, one.seeds, (1, -1, 1))):
        hole, plane = parities()
        np.testing.assert_array_equal(made[0][5], hole)
        np.testing.assert_array_equal(made[0][6], plane)


def test_a_mirror_twice_is_the_case_again_but_for_the_rim(example):
    one = example(5)
    features, seeds = mirrored(*mirrored(one.features, one.seeds))
    np.testing.assert_array_equal(seeds, one.seeds)
    np.testing.assert_array_equal(features[..., 1:], one.features[..., 1:])


def test_the_column_that_enters_carries_on_the_distances_and_holds_no_candidate(example):
    one = example(1)
    features, _ = mirrored(one.features, one.seeds)
    expected = np.clip(2 * features[:4, ..., 1] - features[:4, ..., 2], -DISTANCE_REACH, DISTANCE_REACH)
    np.testing.assert_array_equal(features[:4, ..., 0], expected)
    assert not features[CANDIDATE, ..., 0].any()


def test_a_mirror_goes_about_the_other_column_where_the_first_is_in_use(example):
    one = example(1)
    features = one.features.copy()
    features[CANDIDATE, 8, 8, 0] = 1.0  # 16 - 0 is off the window, 14 - 0 is not
    made, seeds = mirrored(features, one.seeds)
    assert made[CANDIDATE, 8, 8, 14] == 1.0
    assert on_board(seeds).all()


def test_a_case_that_fills_the_window_is_not_moved(example):
    one = example(1)
    features = one.features.copy()
    features[CANDIDATE] = 1.0
    assert mirrored(features, one.seeds) is None
    assert all(shifted(features, one.seeds, step) is None for step in SHIFTS)
    again, seeds = augmented(features, one.seeds, np.random.default_rng(0))
    np.testing.assert_array_equal(again, features)
    np.testing.assert_array_equal(seeds, one.seeds)


@pytest.mark.parametrize("step", SHIFTS)
def test_a_shift_moves_seeds_with_their_distances_and_keeps_the_board(example, step):
    one = example(2)
    features, seeds = shifted(one.features, one.seeds, step)
    at = np.argwhere(one.seeds)
    assert seeds[tuple((at + step).T)].all()
    assert seeds.sum() == one.seeds.sum()
    assert on_board(seeds).all()
    np.testing.assert_array_equal(features[:5][:, *(at + step).T], one.features[:5][:, *at.T])


def test_the_original_is_left_alone(example):
    one = example(4)
    before = one.features.copy(), one.seeds.copy()
    for number in range(20):
        augmented(one.features, one.seeds, np.random.default_rng(number))
    np.testing.assert_array_equal(one.features, before[0])
    np.testing.assert_array_equal(one.seeds, before[1])


def test_without_mirrors_left_stays_left(example):
    one = example(4)
    features = one.features.copy()
    features[CANDIDATE] = 0.0
    features[CANDIDATE, 8, 8, 2] = 1.0
    for number in range(20):
        made, _ = augmented(features, np.zeros_like(one.seeds), np.random.default_rng(number), mirror=False)
        assert np.argwhere(made[CANDIDATE])[0, 2] <= 3
