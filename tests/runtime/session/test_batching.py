"""Requests that are merged: who with whom, and that nobody notices but the network."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from trocar.runtime.errors import DeviceError, InvalidInput
from trocar.runtime.session.base import Array, TensorSpec
from trocar.runtime.session.batching import BatchingSession
from trocar.runtime.session.fake import FakeSession
from trocar.runtime.session.ort import open_session

X, Y = TensorSpec("x", "float32", ("batch", None)), TensorSpec("y", "float32", ("batch", None))


class Network:
    """Doubles its rows; a row of -1 is an error of the whole batch."""

    def __init__(self) -> None:
        self.fake = FakeSession([X], [Y], self._run)

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if (feeds["x"] == -1).any():
            raise DeviceError("it broke")
        return {"y": 2 * feeds["x"]}

    @property
    def rows(self) -> list[int]:
        return [len(feeds["x"]) for feeds in self.fake.calls]


def _all_at_once(session: BatchingSession, asked: list[Array]) -> list[Array | Exception]:
    barrier = threading.Barrier(len(asked))

    def run(x: Array) -> Array | Exception:
        barrier.wait(10)
        try:
            return session.run({"x": x})["y"]
        except (DeviceError, InvalidInput) as error:
            return error

    with ThreadPoolExecutor(len(asked)) as threads:
        return list(threads.map(run, asked))


def _x(rows: int, columns: int = 3, value: float = 1.0) -> Array:
    return value + np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)


def test_requests_of_one_shape_are_one_run() -> None:
    network = Network()
    session = BatchingSession(network.fake, max_batch=6, window_s=30.0)
    asked = [_x(1, value=10), _x(2, value=20), _x(3, value=30)]
    for x, y in zip(asked, _all_at_once(session, asked), strict=True):
        np.testing.assert_array_equal(y, 2 * x)
    assert network.rows == [6]


def test_a_request_alone_goes_after_the_window() -> None:
    network = Network()
    session = BatchingSession(network.fake, max_batch=6, window_s=0.01)
    np.testing.assert_array_equal(session.run({"x": _x(2)})["y"], 2 * _x(2))
    assert network.rows == [2]


def test_other_shapes_are_other_batches_and_none_is_larger_than_may_be() -> None:
    network = Network()
    session = BatchingSession(network.fake, max_batch=4, window_s=0.05)
    asked = [_x(1, columns, 100 * columns + number) for columns in (2, 3) for number in range(11)]
    for x, y in zip(asked, _all_at_once(session, asked), strict=True):
        np.testing.assert_array_equal(y, 2 * x)
    assert sum(network.rows) == 22
    assert max(network.rows) <= 4
    session.run({"x": _x(9)})
    assert network.rows[-1] == 9  # larger than any batch: as it is


def test_one_bad_request_does_not_fail_its_neighbours() -> None:
    network = Network()
    session = BatchingSession(network.fake, max_batch=4, window_s=30.0)
    bad = np.full((1, 3), -1, np.float32)
    good = [_x(1, value=value) for value in (1, 2, 3)]
    answers = _all_at_once(session, [good[0], bad, good[1], good[2]])
    assert isinstance(answers.pop(1), DeviceError)
    for x, y in zip(good, answers, strict=True):
        np.testing.assert_array_equal(y, 2 * x)
    with pytest.raises(InvalidInput, match="input x: expected float32"):
        session.run({"x": np.ones((1, 3))})  # refused before it could join


def test_an_error_that_nobody_foresaw_leaves_nobody_waiting() -> None:
    def run(_: Mapping[str, Array]) -> dict[str, Array]:
        raise MemoryError

    session = BatchingSession(FakeSession([X], [Y], run), max_batch=2, window_s=30.0)
    raised: list[type[BaseException]] = []

    def ask() -> None:
        try:
            session.run({"x": _x(1)})
        except (MemoryError, DeviceError) as error:
            raised.append(type(error))

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(each.__name__ for each in raised) == ["DeviceError", "MemoryError"]


def test_many_clients_of_a_real_network(graphs: Path) -> None:
    session = BatchingSession(open_session(graphs / "pair.onnx"), max_batch=5, window_s=0.002)
    alone = open_session(graphs / "pair.onnx")

    def client(seed: int) -> None:
        draw = np.random.default_rng(seed)
        for _ in range(40):
            rows = int(draw.integers(1, 7))
            feeds = {name: draw.standard_normal((rows, 2, 3), np.float32) for name in ("left", "right")}
            expected, into = alone.run(feeds), {}
            for name, value in session.run(feeds).items():
                np.testing.assert_array_equal(value, expected[name])
                into[name] = np.empty_like(value)
            session.run_into(feeds, into)
            for name, value in into.items():
                np.testing.assert_array_equal(value, expected[name])

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(client, range(6)))


@pytest.mark.parametrize("axis", [1, None, "other"])
def test_a_network_without_a_batch_axis_is_refused(axis: int | str | None) -> None:
    output = TensorSpec("y", "float32", (axis, 2))
    with pytest.raises(InvalidInput, match="expected one named axis, the first of every tensor, got x "):
        BatchingSession(FakeSession([X], [output], dict), max_batch=2, window_s=0)
