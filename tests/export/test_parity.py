from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from trocar.export.parity import TOLERANCES, Parity, Reference, measure_parity
from trocar.runtime.session.base import Array, TensorSpec
from trocar.runtime.session.fake import FakeSession

X = TensorSpec("x", "float32", ("batch", 4))
Y = TensorSpec("y", "float32", ("batch", 4))


def reference(scale: float = 1.0, metric: float = 2.0) -> Reference:
    """Torch's answers: the inputs, times `scale`."""
    random = np.random.default_rng(0)
    batches = [{"x": random.uniform(-1, 1, (size, 4)).astype(np.float32)} for size in (1, 2, 247)]
    batches[0]["x"][0, 0] = 1.0
    answers = [{"y": np.float32(scale) * batch["x"]} for batch in batches]

    def task_metric(run: Any) -> dict[str, float]:
        return {"least": float(run({"x": np.ones((1, 4), np.float32)})["y"].min())}

    return Reference(tuple(batches), tuple(answers), {"least": metric}, "real", "2.0", task_metric)


def measured(change: Any, precision: str = "fp32", scale: float = 1.0, metric: float = 1.0) -> Parity:
    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": change(np.float32(scale) * feeds["x"]).astype(np.float32)}

    return measure_parity(reference(scale, metric), FakeSession([X], [Y], run), precision)


def test_the_same_outputs_pass_with_no_difference() -> None:
    parity = measured(lambda y: y)
    assert parity.exceeded() == ()
    document = parity.document()
    assert (document["max_abs_difference"], document["percentile_999"]) == (0.0, 0.0)
    assert (document["samples"], document["inputs"], document["provider"]) == (250, "real", "fake")
    assert document["metric_ratios"] == {"least": 1.0}


def test_one_value_of_a_thousand_shows_in_the_maximum_alone() -> None:
    def change(y: Array) -> Array:
        y = y.copy()
        if len(y) == 247:
            y[0, 0] += 0.5
        return y

    # 1000 differences, one of 0.5: the 99.9th percentile lies 0.001 x 999 of the way up, at index 998.001.
    document = measured(change).document()
    assert document["max_abs_difference"] == pytest.approx(0.5)
    assert document["percentile_999"] == pytest.approx(0.0005)


@pytest.mark.parametrize("precision", TOLERANCES)
def test_a_difference_is_held_against_the_outputs_scale(precision: str) -> None:
    allowed = TOLERANCES[precision].percentile_999

    def shifted(share: float, scale: float) -> tuple[str, ...]:
        step = np.float32(share * allowed * scale)
        parity = measured(lambda y: y + step, precision, scale=scale, metric=scale * (1 + share * allowed))
        return parity.exceeded()

    for scale in (1.0, 50.0):
        assert shifted(0.9, scale) == ()
        assert any("99.9th percentile" in line for line in shifted(1.1, scale))


@pytest.mark.parametrize(
    ("metric", "precision", "said"),
    [
        (1.0, "fp32", None),
        (0.96, "int8", None),
        (1.05, "fp16", "least is 0.9524 of torch's, 1 +- 0.02 allowed"),
        (0.9, "int8", "least is 1.111 of torch's, 1 +- 0.05 allowed"),
        (0.0, "int8", "least is inf of torch's, 1 +- 0.05 allowed"),
        (math.nan, "int8", "least is nan of torch's, 1 +- 0.05 allowed"),
    ],
)
def test_a_figure_of_the_task_is_held_for_better_and_worse(
    metric: float, precision: str, said: str | None
) -> None:
    assert measured(lambda y: y, precision, metric=metric).exceeded() == (() if said is None else (said,))


def test_what_is_not_a_number_never_passes_and_is_null() -> None:
    parity = measured(lambda y: y * np.float32(np.nan), "int8")
    assert len(parity.exceeded()) == 3
    document = parity.document()
    assert document["max_abs_difference"] is None
    assert document["outputs"]["y"]["percentile_999"] is None
    assert document["metric_ratios"] == {"least": None}
