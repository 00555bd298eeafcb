from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from trocar.bench.report import terminal
from trocar.bench.workloads import tpgan_arms
from trocar.planners.features import CHANNELS, SIDE
from trocar.planners.generator import NOISE_CHANNELS, Generator
from trocar.runtime.errors import InvalidInput
from trocar.runtime.session.base import TensorSpec
from trocar.runtime.session.fake import FakeSession

SITES = (SIDE, SIDE, SIDE)
QUICK = ("--cases", "1", "--seed", "4", "--expert-moves", "20000")  # phantom 4 is a small gland


def measure(*options):
    parser = argparse.ArgumentParser()
    tpgan_arms.add_arguments(parser)
    return tpgan_arms.run(parser.parse_args([*QUICK, *options]))


def probability_of_the_rim(feeds):
    """A network that wants seeds a little within the PTV's surface, on a checkerboard."""
    ptv, board = feeds["features"][:, 1], feeds["features"][:, 5]
    return {"probability": np.exp(-((ptv + 0.5) ** 2) * 4.0 + 0.2 * board - 1.0).astype(np.float32)}


@pytest.fixture
def network():
    inputs = (
        TensorSpec("features", "float32", ("batch", len(CHANNELS), *SITES)),
        TensorSpec("noise", "float32", ("batch", NOISE_CHANNELS, *SITES)),
    )
    session = FakeSession(
        inputs, (TensorSpec("probability", "float32", ("batch", *SITES)),), probability_of_the_rim
    )
    return Generator(session, "fake/1", "0" * 64, {})


@pytest.fixture(scope="module")
def found():
    return measure("--arms", "empty,random,greedy", "--moves", "0,1000", "--cpu-ms", "0.01,8")


def rows_of(found, table, arm):
    return [row for row in found["tables"][table] if row["arm"] == arm]


def test_every_arm_is_measured_at_every_effort(found):
    equal_moves, equal_cpu = found["tables"]["at equal moves"], found["tables"]["at equal CPU"]
    assert [(row["arm"], row["moves"]) for row in equal_moves] == [
        ("expert", 20000), *((arm, moves) for arm in ("empty", "random", "greedy") for moves in (0, 1000))
    ]  # fmt: skip
    assert [(row["arm"], row["budget_cpu_ms"]) for row in equal_cpu] == [
        (arm, budget) for arm in ("empty", "random", "greedy") for budget in (0.01, 8.0)
    ]
    assert len(found["case_rows"]) == len(equal_moves) + len(equal_cpu)
    assert json.loads(json.dumps(found)) == found
    terminal.render(found)


def test_costs_are_relative_to_the_expert_and_fall_with_moves(found):
    (expert,) = rows_of(found, "at equal moves", "expert")
    assert expert["mean_ratio"] == pytest.approx(1.0, abs=1e-3)
    for arm in ("empty", "random", "greedy"):
        start, searched = rows_of(found, "at equal moves", arm)
        assert start["mean_ratio"] > searched["mean_ratio"] > 1.0
    empty, random, greedy = (
        rows_of(found, "at equal moves", arm)[0]["mean_ratio"] for arm in ("empty", "random", "greedy")
    )
    assert empty > max(random, greedy)


def test_a_start_is_paid_from_the_cpu_budget(found):
    late, fed = rows_of(found, "at equal CPU", "random")
    assert (late["late"], late["median_moves"]) == (1, 0)
    assert fed["late"] == 0
    assert fed["median_moves"] > 0
    assert rows_of(found, "at equal CPU", "greedy")[1]["median_moves"] < fed["median_moves"]


def test_the_same_moves_give_the_same_plan(found):
    again = measure("--arms", "random", "--moves", "0,1000", "--cpu-ms", "5")
    for mine, other in zip(
        rows_of(found, "at equal moves", "random"), rows_of(again, "at equal moves", "random"), strict=True
    ):
        assert mine["mean_ratio"] == other["mean_ratio"]


def test_a_network_pays_for_features_and_inference(monkeypatch, network):
    monkeypatch.setattr(tpgan_arms, "_open", lambda path: network)  # noqa: ARG005
    found = measure("--arms", "gan", "--models", "gan=x", "--moves", "0", "--cpu-ms", "20")
    (start,) = found["tables"]["starts, CPU ms"]
    assert set(start) == {"arm", "features", "inference", "order", "decode", "all"}
    assert start["features"] > 0.0
    (row,) = rows_of(found, "at equal moves", "gan")
    assert row["median_cpu_ms"] >= start["features"] + start["inference"]
    assert row["mean_needles"] > 5
    assert found["networks"]["gan"]["name"] == "fake/1"
    assert "target: mean_ratio at 0 moves" in found


def test_arms_without_a_network_are_left_out_and_said():
    found = measure("--arms", "random,bce", "--moves", "0", "--cpu-ms", "1")
    assert {row["arm"] for row in found["tables"]["at equal moves"]} == {"expert", "random"}
    assert found["left_out"] == "bce: no --models bce=PATH"
    with pytest.raises(InvalidInput, match="at least one arm that can run"):
        measure("--arms", "bce")


def test_missed_targets_fail():
    table = [
        {"arm": "gan", "moves": 0.0, "mean_ratio": 1.2, "passes": 0},
        {"arm": "gan", "moves": 1000.0, "mean_ratio": 1.1, "passes": 14},
        {"arm": "random", "moves": 5000.0, "mean_ratio": 1.1, "passes": 30},
    ]
    found = tpgan_arms._targets(table, 30)
    assert {name: met for name, (met, _) in found.items()} == {
        "mean_ratio at 0 moves": True,
        "pass_share at 1000 moves": False,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--moves", "a"), "--moves: expected numbers"),
        (("--cpu-ms", "-1"), "--cpu-ms: expected numbers"),
        (("--models", "bce"), "--models: expected ARM=PATH"),
        (("--models", "random=x"), "--models: expected ARM=PATH"),
        (("--cases", "0"), "at least one case"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(InvalidInput, match=message):
        measure(*options)
