"""What an export of TP-GAN is measured on, with the shipped network in ONNX Runtime: no torch."""

from __future__ import annotations

import numpy as np
import pytest

from trocar.planners.generator import Generator
from trocar.planners.tpgan import measure
from trocar.planners.tpgan.data import FIRST_PHANTOM
from trocar.planners.tpgan.network import NETWORK

SOME = range(20_000_000, 20_000_003)


@pytest.fixture(scope="module")
def run():
    return Generator.open().session.run


def test_phantoms_of_each_use_are_apart():
    parity, calibration = set(measure.PARITY_PHANTOMS), set(measure.CALIBRATION_PHANTOMS)
    assert not parity & calibration
    assert max(parity | calibration) < FIRST_PHANTOM
    benchmarks = range(1_000_000)
    assert min(parity | calibration) > max(benchmarks)
    assert sum(measure.PARITY_BATCHES) == len(parity)
    assert sum(measure.CALIBRATION_BATCHES) == len(calibration)


def test_inputs_are_features_of_phantoms_with_and_without_noise():
    first, second = measure.batches(SOME, (1, 2))
    assert [len(each["features"]) for each in (first, second)] == [1, 2]
    for batch in (first, second):
        assert set(batch) == set(NETWORK.input_names)
        assert batch["features"].shape[1:] == (8, 16, 16, 16)
        assert batch["noise"].shape[1:] == (2, 16, 16, 16)
        assert {array.dtype for array in batch.values()} == {np.dtype(np.float32)}
        candidate = batch["features"][:, 4]
        assert set(np.unique(candidate)) == {0.0, 1.0}
        assert (np.abs(batch["features"][:, :4]) <= 1.5).all()
    assert not first["noise"].any(), "an even phantom has none"
    assert second["noise"][0].std() == pytest.approx(1, abs=0.05)
    assert not second["noise"][1].any()
    (again,) = measure.batches(SOME[1:2], (1,))
    np.testing.assert_array_equal(again["noise"][0], second["noise"][0])
    np.testing.assert_array_equal(again["features"][0], second["features"][0])


def test_batches_end_with_the_phantoms():
    assert [len(each["noise"]) for each in measure.batches(range(20_000_000, 20_000_001), (2, 2))] == [1]


def test_a_phantom_that_cannot_be_planned_is_left_out(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise measure.InvalidInput("too wide")

    monkeypatch.setattr(measure, "default_lattice", refuse)
    assert list(measure.samples(SOME)) == []


def test_a_worse_network_costs_more(run):
    def blind(feeds):
        candidate = feeds["features"][:, 4]
        random = np.random.default_rng(0).uniform(0.1, 1, candidate.shape).astype(np.float32)
        return {"probability": candidate * random}

    trained, guessed = measure.plan_costs(run, SOME), measure.plan_costs(blind, SOME)
    assert list(trained) == ["plan_cost", "plan_cost_1000_moves"]
    assert trained["plan_cost_1000_moves"] < trained["plan_cost"] < 0.5 * guessed["plan_cost"]
    assert trained == measure.plan_costs(run, SOME), "the same network gives the same figures"
