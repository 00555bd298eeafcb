from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trocar.planners.rules import forbidden_patterns
from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels.anneal import (
    PATTERN_NAMES,
    SearchGoal,
    SearchRules,
    SiteGrid,
    annealer,
    cost_reference,
    pattern_allows,
)

COLUMNS, ROWS, PLANES = 7, 6, 8
SEED_COST = np.linspace(0.0, 0.04, COLUMNS * ROWS * PLANES, dtype=np.float32)
RULES = SearchRules(2, True, frozenset(PATTERN_NAMES), max_needles=12)


def lattice_problem(seed: int = 0):
    """A small box of tissue: inverse-square sources on a full lattice, two strata, three goals."""
    random = np.random.default_rng(seed)
    hole, plane = (a.ravel().astype(np.int32) for a in np.mgrid[0 : COLUMNS * ROWS, 0:PLANES])
    centres = np.stack([hole % COLUMNS, hole // COLUMNS, plane], axis=1).astype(np.float64)
    target = random.uniform(0.5, [COLUMNS - 1.5, ROWS - 1.5, PLANES - 1.5], size=(320, 3))
    organ = random.uniform([0, ROWS, 0], [COLUMNS, ROWS + 1, PLANES], size=(64, 3))
    points = np.concatenate([target, organ])
    squared = ((centres[:, None] - points[None]) ** 2).sum(axis=2)
    matrix = (0.35 / np.maximum(squared, 0.1)).astype(np.float32)
    starts = np.array([0, 320, 384], np.int32)
    point_cc = np.array([0.1, 0.05], np.float32)
    goals = [
        SearchGoal(0b01, True, 1.0, 31.5, 4.0, 0.5),
        SearchGoal(0b01, False, 2.0, 6.0, 1.0),
        SearchGoal(0b10, False, 1.0, 0.2, 8.0, 0.1),
    ]
    return matrix, SiteGrid(COLUMNS, ROWS, PLANES, hole, plane), starts, point_cc, goals


def make(seed: int = 1, stream: int = 0, problem=None, rules: SearchRules = RULES):
    matrix, sites, starts, point_cc, goals = problem or lattice_problem()
    return annealer(
        matrix,
        sites,
        starts,
        point_cc,
        goals,
        rules,
        needle_cost=0.1,
        seed_cost=SEED_COST,
        seed=seed,
        stream=stream,
    )


def obeys(chosen: list[int], sites: SiteGrid, max_needles: int) -> bool:
    at = {(int(sites.hole[c]) % COLUMNS, int(sites.hole[c]) // COLUMNS, int(sites.plane[c])) for c in chosen}
    holes = {(c, r) for c, r, _ in at}
    near = any((c + 1, r, p) in at or (c, r + 1, p) in at or (c, r, p + 1) in at for c, r, p in at)
    return not near and len(holes) <= max_needles and not list(forbidden_patterns(holes))


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, COLUMNS * ROWS * PLANES - 1), max_size=40))
def test_cost_is_the_reference_cost(chosen):
    matrix, sites, starts, point_cc, goals = lattice_problem()
    expected = cost_reference(
        matrix, sorted(chosen), sites, starts, point_cc, goals, needle_cost=0.1, seed_cost=SEED_COST
    )
    assert make().cost_of(sorted(chosen)) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_hand_worked_cost():
    """One point, one source: 0.4 of the wanted dose, 2 cc short of 3, needle 1, seed 1."""
    matrix = np.zeros((1, 16), np.float32)
    matrix[0, :] = 0.4
    sites = SiteGrid(1, 1, 1, np.zeros(1, np.int32), np.zeros(1, np.int32))
    goals = [SearchGoal(1, True, 1.0, 3.0, 5.0, 0.5)]
    chain = annealer(
        matrix,
        sites,
        np.array([0, 16], np.int32),
        np.array([0.25], np.float32),
        goals,
        RULES,
        needle_cost=2.0,
        seed_cost=np.ones(1, np.float32),
        seed=0,
        stream=0,
    )
    # None of the 4 cc has the dose: 3 cc missing at 5, and 4 cc lacking 0.6 at 0.5; one needle, one seed.
    assert chain.cost_of([0]) == pytest.approx(3 * 5 + 4 * 0.6 * 0.5 + 2 + 1, rel=1e-6)
    assert chain.cost_of([]) == pytest.approx(3 * 5 + 4 * 1.0 * 0.5, rel=1e-6)


def test_incremental_dose_is_the_recomputed_dose():
    matrix, *_ = lattice_problem()
    chain = make()
    chain.run(50_000, 2.0, 0.5)
    expected = matrix[chain.plan()].sum(axis=0, dtype=np.float64)
    assert len(chain.plan()) > 5
    np.testing.assert_allclose(chain.dose(), expected, atol=2e-4)
    assert chain.drift() < 2e-4


def test_the_search_lowers_the_cost_and_keeps_its_best():
    chain = make()
    empty = chain.cost
    chain.run(30_000, 2.0, 0.02)
    assert chain.best_cost < 0.4 * empty
    assert chain.best_cost <= chain.cost + 1e-9
    assert chain.cost_of(sorted(chain.best())) == pytest.approx(chain.best_cost, rel=1e-3)


def test_same_seed_same_plan_other_stream_another():
    plans = []
    for stream in (0, 0, 1):
        chain = make(stream=stream)
        chain.run(20_000, 2.0, 0.05)
        plans.append(sorted(chain.best()))
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


@pytest.mark.parametrize("temperatures", [(50.0, 50.0), (2.0, 0.02)])
def test_every_state_keeps_the_rules(temperatures):
    problem = lattice_problem()
    chain = make(problem=problem)
    for _ in range(60):
        chain.run(200, *temperatures)
        assert obeys(chain.plan(), problem[1], RULES.max_needles)
        assert obeys(chain.best(), problem[1], RULES.max_needles)


def test_a_given_plan_loses_what_the_rules_forbid():
    chain = make()
    first, next_plane, next_column = 0, 1, PLANES  # hole 0 plane 0, hole 0 plane 1, hole 1 plane 0
    assert chain.set_plan([first, next_plane, next_column]) == [next_plane, next_column]
    assert chain.plan() == [first]
    assert chain.cost == pytest.approx(chain.cost_of([first]), rel=1e-6)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30),
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    st.sets(st.sampled_from(PATTERN_NAMES)),
)
def test_native_patterns_are_the_plain_ones(wishes, hole, names):
    """Grow a legal set of holes, then ask for one more: the kernel and the pattern table must agree."""
    rules = SearchRules(2, True, frozenset(names), 99)
    used: set[tuple[int, int]] = set()
    grid = np.zeros((6, 6), np.uint8)
    for wish in [*wishes, hole]:
        if wish in used:
            continue
        legal = not list(forbidden_patterns(used | {wish}, names))
        assert pattern_allows(grid, *wish, rules) == legal
        if legal:
            used.add(wish)
            grid[wish[1], wish[0]] = 1


@pytest.mark.parametrize(
    "change",
    [
        {"matrix": lambda m: m[:, :380]},
        {"matrix": lambda m: m.astype(np.float64)},
        {"matrix": lambda m: np.where(m > 1, np.float32(np.nan), m)},
        {"starts": lambda _: np.array([0, 330, 384], np.int32)},
        {"starts": lambda _: np.array([0, 320, 1600], np.int32)},
        {"point_cc": lambda p: p[:1]},
        {"sites": lambda s: SiteGrid(2, 2, PLANES, s.hole, s.plane)},
    ],
)
def test_what_does_not_fit_is_refused(change):
    names = ("matrix", "sites", "starts", "point_cc", "goals")
    problem = [
        change.get(name, lambda same: same)(part) for name, part in zip(names, lattice_problem(), strict=True)
    ]
    with pytest.raises(InvalidInput):
        make(problem=problem)


def test_adding_in_order_takes_only_what_helps():
    problem = lattice_problem()
    chain = make(problem=problem)
    order = list(np.random.default_rng(3).permutation(len(problem[0])))
    added = chain.add_if_better([int(c) for c in order])
    chosen = chain.plan()
    assert added == len(chosen) > 5
    assert obeys(chosen, problem[1], RULES.max_needles)
    # Taken one by one, each lowered the cost.
    costs = [chain.cost_of(chosen[:n]) for n in range(len(chosen) + 1)]
    assert all(after < before + 1e-6 for before, after in pairwise(costs))
    assert chain.cost == pytest.approx(costs[-1], rel=1e-4)
    assert chain.add_if_better(chosen) == 0


def test_greedy_takes_the_best_each_time():
    problem = lattice_problem()
    chain = make(problem=problem)
    costs = [chain.cost_of([c]) for c in range(len(problem[0]))]
    assert chain.add_greedily() == len(chain.plan()) > 5
    assert chain.plan()[0] == int(np.argmin(costs))
    assert chain.best_cost == pytest.approx(chain.cost_of(chain.plan()), rel=1e-4)
    assert chain.add_greedily() == 0
