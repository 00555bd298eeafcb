from __future__ import annotations

import numpy as np
import pytest

from trocar.planners.expert import canonical, expert_example
from trocar.planners.features import SIDE, parities, window_of
from trocar.planners.refine import Effort, refine


@pytest.fixture(scope="module")
def example(small_case, protocol, engine):
    return expert_example(small_case, protocol, engine, strength_u=0.42, moves=60_000, seed=0)


def test_the_seeds_are_a_legal_plan_in_the_canonical_style(example):
    seeds = example.seeds.astype(bool)
    assert 40 < seeds.sum() < 110
    hole, plane = parities()
    column = 1 - 2 * (np.indices((SIDE, SIDE, SIDE))[2] % 2)
    # Without a taste both are about a half.
    assert (hole[seeds] == 1).mean() > 0.75
    assert (plane[seeds] == column[seeds]).mean() > 0.75
    assert not (seeds[1:] & seeds[:-1]).any()
    assert not (seeds[:, 1:] & seeds[:, :-1]).any()
    assert not (seeds[:, :, 1:] & seeds[:, :, :-1]).any()


def test_seeds_stand_on_candidates(example):
    assert (example.features[4][example.seeds == 1] == 1.0).all()


def test_the_taste_costs_little(example, small_problem):
    """The canonical plan is judged by the plain cost: near what a plain search of the same length reaches."""
    plain = refine(small_problem, Effort(moves=60_000, chains=1), seed=0).cost
    assert example.cost < 1.3 * plain


def test_the_taste_changes_no_goal(small_problem):
    window = window_of(small_problem.candidates, small_problem.lattice)
    tasteful = canonical(small_problem, window)
    assert tasteful.goals == small_problem.goals
    assert (tasteful.seed_cost >= small_problem.seed_cost).all()
    assert tasteful.seed_cost.min() == pytest.approx(small_problem.seed_cost.min())


def test_an_example_is_repeatable(example, small_case, protocol, engine):
    again = expert_example(small_case, protocol, engine, strength_u=0.42, moves=60_000, seed=0)
    assert np.array_equal(again.seeds, example.seeds)
    assert np.array_equal(again.features, example.features)
