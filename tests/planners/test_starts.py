from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trocar.planners.features import CHANNELS, SIDE, window_of
from trocar.planners.generator import NOISE_CHANNELS, Generator
from trocar.planners.refine import Effort, refine
from trocar.planners.starts import order_of, starts
from trocar.runtime.errors import InvalidInput
from trocar.runtime.session.base import TensorSpec
from trocar.runtime.session.fake import FakeSession

SITES = (SIDE, SIDE, SIDE)


def generator_of(function) -> Generator:
    """A generator whose network is a Python function of features and noise."""
    inputs = (
        TensorSpec("features", "float32", ("batch", len(CHANNELS), *SITES)),
        TensorSpec("noise", "float32", ("batch", NOISE_CHANNELS, *SITES)),
    )
    outputs = (TensorSpec("probability", "float32", ("batch", *SITES)),)
    session = FakeSession(
        inputs, outputs, lambda feeds: {"probability": function(feeds["features"], feeds["noise"])}
    )
    return Generator(session, "fake/1", "0" * 64, {})


def begin(kind, problem, volumes, engine, generator=None, *, seed=0, count=2):
    return starts(
        kind, problem, volumes, engine,
        strength_u=0.42, prescription_gy=145.0, seed=seed, count=count, generator=generator,
    )  # fmt: skip


def test_the_order_is_the_probabilities(small_problem):
    window = window_of(small_problem.candidates, small_problem.lattice)
    index, _ = window.sites(small_problem.candidates, small_problem.lattice.template.columns)
    probability = np.zeros(SITES, np.float32)
    for rank, candidate in enumerate((17, 3, 99)):
        probability[tuple(index[candidate])] = 0.9 - 0.2 * rank
    probability[tuple(index[50])] = 0.001  # as good as ruled out
    assert order_of(probability, window, small_problem) == [17, 3, 99]


def test_of_two_orders_the_cheaper_is_taken(small_problem):
    """With few needles allowed, whole holes come before many holes' surest seeds."""
    few = replace(small_problem, rules=replace(small_problem.rules, max_needles=6))
    window = window_of(few.candidates, few.lattice)
    index, _ = window.sites(few.candidates, few.lattice.template.columns)
    probability = np.zeros(SITES, np.float32)
    probability[tuple(index.T)] = np.random.default_rng(0).uniform(0.1, 0.9, len(index)).astype(np.float32)
    taken = few.chain(seed=0, stream=0)
    taken.add_if_better(order_of(probability, window, few))
    plain = few.chain(seed=0, stream=0)
    plain.add_if_better([int(c) for c in np.argsort(-probability[tuple(index.T)], kind="stable")])
    assert taken.cost <= plain.cost


def test_a_network_that_knows_the_plan_gives_it_back(small_problem, small_volumes, engine):
    """Probabilities that are a good plan's seeds decode to nearly its cost, before any search."""
    known = refine(small_problem, Effort(moves=60_000, chains=1), seed=0)
    window = window_of(small_problem.candidates, small_problem.lattice)
    index, _ = window.sites(small_problem.candidates, small_problem.lattice.template.columns)
    truth = np.zeros(SITES, np.float32)
    truth[tuple(index[list(known.chosen)].T)] = 0.9
    generator = generator_of(lambda features, _: np.repeat(truth[None], len(features), axis=0))
    orders = begin("gan", small_problem, small_volumes[1], engine, generator)
    assert [set(order) for order in orders] == [set(known.chosen)] * 2
    raw = refine(small_problem, Effort(moves=0, chains=1), seed=0, starts=orders)
    assert raw.moves == 0
    assert raw.cost < 1.2 * known.cost


def test_each_chain_has_noise_of_its_own_and_the_first_has_none(small_problem, small_volumes, engine):
    generator = generator_of(lambda _, noise: noise[:, 0] * 0 + 0.5)
    begin("gan", small_problem, small_volumes[1], engine, generator, seed=4, count=3)
    begin("gan", small_problem, small_volumes[1], engine, generator, seed=4, count=3)
    first, again = (call["noise"] for call in generator.session.calls)
    assert np.array_equal(first, again)
    assert not first[0].any()
    assert first[1].std() == pytest.approx(1.0, abs=0.05)
    assert not np.array_equal(first[1], first[2])


def test_greedy_begins_with_one_good_plan(small_problem, small_volumes, engine):
    (order,) = begin("greedy", small_problem, small_volumes[1], engine)
    outcome = refine(small_problem, Effort(moves=0, chains=1), seed=0, starts=(order,))
    assert sorted(outcome.chosen) == sorted(order)
    assert outcome.cost < small_problem.cost_of([])


def test_random_orders_are_of_all_candidates_and_of_the_seed(small_problem, small_volumes, engine):
    one, two = begin("random", small_problem, small_volumes[1], engine, seed=1)
    assert sorted(one) == sorted(two) == list(range(len(small_problem.matrix)))
    assert one != two
    assert begin("random", small_problem, small_volumes[1], engine, seed=1) == (one, two)
    assert begin("random", small_problem, small_volumes[1], engine, seed=2) != (one, two)


@pytest.mark.parametrize(("kind", "message"), [("warm", "expected one of gan"), ("gan", "expected a gen")])
def test_starts_that_cannot_be(kind, message, small_problem, small_volumes, engine):
    with pytest.raises(InvalidInput, match=message):
        begin(kind, small_problem, small_volumes[1], engine)


def test_a_plan_from_a_network_names_it_and_says_how_usual_the_case_is(small_case, protocol, engine):
    from trocar.planners.pipeline import PlanRequest, plan_case

    request = PlanRequest(protocol, engine.source, 0.42, 145.0, moves=2_000, chains=1)
    generator = generator_of(lambda features, _: features[:, 4] * np.float32(0.5))
    result = plan_case(small_case, request, generator=generator)
    assert result.provenance["model"] == "fake/1"
    assert result.provenance["start"] == "gan"
    (unlike,) = (f for f in result.validity.findings if f.rule == "unlike_training")
    assert unlike.severity == "note"  # this network has no statistics
    plain = plan_case(
        small_case, PlanRequest(protocol, engine.source, 0.42, 145.0, moves=2_000, start="random")
    )
    assert plain.provenance["model"] == ""
    assert not [f for f in plain.validity.findings if f.rule == "unlike_training"]
