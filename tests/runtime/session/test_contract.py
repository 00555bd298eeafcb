"""What every session must do, whatever runs the graph."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from trocar.runtime.errors import InvalidInput
from trocar.runtime.session.base import Array, Session, TensorSpec
from trocar.runtime.session.fake import FakeSession
from trocar.runtime.session.ort import open_session

AXES = ("batch", 2, 3)


def pair(feeds: Mapping[str, Array]) -> dict[str, Array]:
    left, right = feeds["left"], feeds["right"]
    return {"total": left + right, "difference": left - right}


@pytest.fixture(params=["fake", "ort", "ort-2-threads"])
def session(request: pytest.FixtureRequest, graphs: Path) -> Session:
    if request.param == "fake":
        return FakeSession(
            [TensorSpec("left", "float32", AXES), TensorSpec("right", "float32", AXES)],
            [TensorSpec("total", "float32", AXES), TensorSpec("difference", "float32", AXES)],
            pair,
        )
    return open_session(graphs / "pair.onnx", threads=2 if request.param == "ort-2-threads" else 1)


def arrays(batch: int = 2) -> tuple[Array, Array]:
    left = np.arange(batch * 6, dtype=np.float32).reshape(batch, 2, 3)
    return left, np.full_like(left, 0.25)


def test_it_says_its_tensors(session: Session) -> None:
    assert [(spec.name, spec.dtype, spec.shape) for spec in session.inputs] == [
        ("left", "float32", AXES),
        ("right", "float32", AXES),
    ]
    assert [spec.name for spec in session.outputs] == ["total", "difference"]


def test_it_says_what_runs_it_and_why(session: Session) -> None:
    assert session.provider in ("fake", "CPUExecutionProvider", "CUDAExecutionProvider")
    assert session.device.kind in ("cpu", "cuda")
    assert "\n" not in str(session.device)
    assert session.device.why


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_it_runs_any_batch(session: Session, batch: int) -> None:
    left, right = arrays(batch)
    answer = session.run({"left": left, "right": right})
    assert list(answer) == ["total", "difference"]
    assert answer["total"].dtype == np.float32
    np.testing.assert_array_equal(answer["total"], left + right)
    np.testing.assert_array_equal(answer["difference"], left - right)


def test_order_of_feeds_does_not_matter(session: Session) -> None:
    left, right = arrays()
    np.testing.assert_array_equal(session.run({"right": right, "left": left})["difference"], left - right)


def test_strided_and_read_only_feeds(session: Session) -> None:
    wide = np.arange(48, dtype=np.float32).reshape(4, 4, 3)
    left, right = wide[::-2, 1:3], np.asfortranarray(wide[:2, :2])
    right.flags.writeable = False
    kept = left.copy()
    np.testing.assert_array_equal(session.run({"left": left, "right": right})["total"], kept + right)
    np.testing.assert_array_equal(left, kept)


def test_an_answer_outlives_the_next_run(session: Session) -> None:
    left, right = arrays()
    first = session.run({"left": left, "right": right})["total"]
    kept = first.copy()
    session.run({"left": left * 5, "right": right})
    np.testing.assert_array_equal(first, kept)


def test_threads_share_a_session(session: Session) -> None:
    def one(number: int) -> bool:
        left = np.full((1 + number % 3, 2, 3), number, np.float32)
        return bool(np.all(session.run({"left": left, "right": left})["total"] == 2 * number))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(one, range(64)))


LEFT, RIGHT = arrays()


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"left": LEFT}, "expected inputs left, right, got left"),
        ({}, "expected inputs left, right, got none"),
        ({"left": LEFT, "right": RIGHT, "more": RIGHT}, "expected inputs left, right, got left, more, right"),
        ({"left": LEFT, "rihgt": RIGHT}, "expected inputs left, right, got left, rihgt"),
        ({"left": LEFT, "right": RIGHT.tolist()}, "input right: expected an array, got list"),
        (
            {"left": LEFT.astype(np.float64), "right": RIGHT},
            "input left: expected float32 [batch, 2, 3], got float64 [2, 2, 3]",
        ),
        (
            {"left": LEFT, "right": RIGHT.astype(">f4")},
            "input right: expected float32 [batch, 2, 3], got float32 [2, 2, 3] in foreign byte order",
        ),
        (
            {"left": LEFT[:, :, :2], "right": RIGHT},
            "input left: expected float32 [batch, 2, 3], got float32 [2, 2, 2]",
        ),
        ({"left": LEFT[0], "right": RIGHT}, "input left: expected float32 [batch, 2, 3], got float32 [2, 3]"),
        (
            {"left": LEFT[:0], "right": RIGHT[:0]},
            "input left: expected float32 [batch, 2, 3], got float32 [0, 2, 3]",
        ),
        # ONNX Runtime by itself broadcasts this one.
        (
            {"left": LEFT, "right": RIGHT[:1]},
            "input right: expected batch = 2 as in left, got float32 [1, 2, 3]",
        ),
    ],
)
def test_wrong_feeds_are_refused_with_both_sides(session: Session, feeds: dict, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        session.run(feeds)
    assert str(refused.value) == message
