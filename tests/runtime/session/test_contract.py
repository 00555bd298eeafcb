"""What every session must do, whatever runs the graph."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from trocar.runtime.errors import InvalidInput
from trocar.runtime.session.base import Array, Session, TensorSpec
from trocar.runtime.session.batching import BatchingSession
from trocar.runtime.session.fake import FakeSession
from trocar.runtime.session.ort import open_session

AXES = ("batch", 2, 3)


def pair(feeds: Mapping[str, Array]) -> dict[str, Array]:
    left, right = feeds["left"], feeds["right"]
    return {"total": left + right, "difference": left - right}


@pytest.fixture(params=["fake", "ort", "ort-2-threads", "batching", "tensorrt"])
def session(request: pytest.FixtureRequest, graphs: Path) -> Session:
    if request.param == "tensorrt":
        # Its library and driver are stand-ins: no engine runs without a GPU.
        return request.getfixturevalue("open_pair_engine")()
    if request.param == "fake":
        return FakeSession(
            [TensorSpec("left", "float32", AXES), TensorSpec("right", "float32", AXES)],
            [TensorSpec("total", "float32", AXES), TensorSpec("difference", "float32", AXES)],
            pair,
        )
    if request.param == "batching":
        return BatchingSession(open_session(graphs / "pair.onnx"), max_batch=4, window_s=0.001)
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
    assert session.provider in ("fake", "CPUExecutionProvider", "CUDAExecutionProvider", "tensorrt")
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


def targets(batch: int = 2) -> dict[str, Array]:
    return {name: np.full((batch, 2, 3), np.nan, np.float32) for name in ("total", "difference")}


def test_it_runs_into_the_callers_buffers(session: Session) -> None:
    left, right = arrays()
    found = targets()
    addresses = {name: array.ctypes.data for name, array in found.items()}
    session.run_into({"left": left, "right": right}, found)
    np.testing.assert_array_equal(found["total"], left + right)
    np.testing.assert_array_equal(found["difference"], left - right)
    assert {name: array.ctypes.data for name, array in found.items()} == addresses


def test_a_binding_reads_what_its_buffers_hold_when_it_runs(session: Session) -> None:
    left, right = arrays()
    found = targets()
    binding = session.bind({"left": left, "right": right}, found)
    assert np.isnan(found["total"]).all(), "binding runs nothing"
    for number in range(3):
        left[...] = number
        binding.run()
        np.testing.assert_array_equal(found["total"], left + right)
        np.testing.assert_array_equal(found["difference"], left - right)


def test_a_binding_writes_its_buffers_and_nothing_beside_them(session: Session) -> None:
    left, right = arrays(1)
    around = np.full((2, 3, 2, 3), 7, np.float32)
    session.run_into({"left": left, "right": right}, {"total": around[0, 1:2], "difference": around[1, 1:2]})
    np.testing.assert_array_equal(around[:, [0, 2]], 7)
    np.testing.assert_array_equal(around[0, 1], (left + right)[0])


def test_a_binding_keeps_its_buffers_alive(session: Session) -> None:
    left, right = arrays()
    found = targets()
    binding = session.bind({"left": left.copy(), "right": right.copy()}, found)
    rubbish = [np.full_like(left, -1) for _ in range(64)]
    binding.run()
    np.testing.assert_array_equal(found["total"], left + right)
    assert len(rubbish) == 64


def test_two_bindings_and_a_run_do_not_disturb_each_other(session: Session) -> None:
    buffers = [(*arrays(batch), targets(batch)) for batch in (1, 3)]
    bindings = [session.bind({"left": left, "right": right}, found) for left, right, found in buffers]
    for _ in range(2):
        for binding in bindings:
            binding.run()
        left, right = arrays(2)
        session.run({"left": left, "right": right})
    for left, right, found in buffers:
        np.testing.assert_array_equal(found["total"], left + right)


def test_threads_run_into_buffers_of_their_own(session: Session) -> None:
    def one(number: int) -> bool:
        left = np.full((1 + number % 3, 2, 3), number, np.float32)
        found = targets(len(left))
        session.run_into({"left": left, "right": left}, found)
        return bool(np.all(found["total"] == 2 * number) and np.all(found["difference"] == 0))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(one, range(64)))


LEFT, RIGHT = arrays()
OUT = targets()
FROZEN = targets()["total"]
FROZEN.flags.writeable = False
BOUND = {"left": LEFT, "right": RIGHT}


@pytest.mark.parametrize(
    ("feeds", "outputs", "message"),
    [
        (BOUND, {"total": OUT["total"]}, "expected outputs total, difference, got total"),
        ({"left": LEFT}, OUT, "expected inputs left, right, got left"),
        (
            BOUND,
            {**OUT, "total": OUT["total"].tolist()},
            "output total: expected an array, got list",
        ),
        (
            BOUND,
            {**OUT, "total": OUT["total"].astype(np.float16)},
            "output total: expected float32 [batch, 2, 3], got float16 [2, 2, 3]",
        ),
        (
            BOUND,
            {**OUT, "difference": targets(3)["total"]},
            "output difference: expected batch = 2 as in left, got float32 [3, 2, 3]",
        ),
        (
            {"left": LEFT[::-1], "right": RIGHT},
            OUT,
            "input left: expected a C-contiguous array, got strides in it",
        ),
        (
            BOUND,
            {**OUT, "total": np.asfortranarray(OUT["total"])},
            "output total: expected a C-contiguous array, got strides in it",
        ),
        (
            BOUND,
            {**OUT, "total": FROZEN},
            "output total: expected an array that can be written, got a read-only one",
        ),
        (BOUND, {**OUT, "total": LEFT}, "output total: expected memory of its own, got some of input left"),
        (
            BOUND,
            {"total": OUT["total"], "difference": OUT["total"]},
            "output difference: expected memory of its own, got some of output total",
        ),
    ],
)
def test_wrong_buffers_are_refused_with_both_sides(
    session: Session, feeds: dict, outputs: dict, message: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        session.bind(feeds, outputs)
    assert str(refused.value) == message
    with pytest.raises(InvalidInput) as refused:
        session.run_into(feeds, outputs)
    assert str(refused.value) == message


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
