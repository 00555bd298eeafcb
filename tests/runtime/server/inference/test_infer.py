"""Requests on a session of the test's own: waiting, leaving, failing, statistics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from trocar.inference_v2 import open_inference_pb2 as pb
from trocar.runtime.errors import Cancelled, DeadlineExceeded, DeviceError, InvalidInput, QueueFull
from trocar.runtime.server.inference import infer
from trocar.runtime.server.inference.infer import Inference
from trocar.runtime.server.inference.models import Loaded
from trocar.runtime.server.inference.overseer import Overseer
from trocar.runtime.server.inference.regions import Regions
from trocar.runtime.server.scheduler import Scheduler
from trocar.runtime.session.base import TensorSpec
from trocar.runtime.session.fake import FakeSession

OVERSEER = Overseer(limit_s=30.0)

SPEC = TensorSpec("x", "float32", ("batch", 2))


class Slow:
    """A network that answers when it is told to, and counts how many it answers at once."""

    def __init__(self) -> None:
        self.go, self.inside = threading.Event(), threading.Semaphore(0)
        self.running = self.most = 0

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        self.running += 1
        self.most = max(self.most, self.running)
        self.inside.release()
        self.go.wait(10)
        self.running -= 1
        return {"y": feeds["x"] * 2}


class Alone:
    """Stands for `Models` with one model."""

    def __init__(self, function: Callable[..., Any], max_queued: int = 0, max_running: int = 1) -> None:
        output = TensorSpec("y", "float32", ("batch", 2))
        queue = Scheduler(max_running).queue("m", max_queued=max_queued)
        self.loaded = Loaded("m", "1", FakeSession([SPEC], [output], function), queue)

    def get(self, name: str, version: str = "") -> Loaded:
        assert (name, version) == ("m", "")
        return self.loaded


def _request(timeout_us: int = 0, **changes: Any) -> bytes:
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[np.ones((1, 2), np.float32).tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    if timeout_us:
        request.parameters["timeout"].int64_param = timeout_us
    for key, value in changes.items():
        setattr(request, key, value)
    return request.SerializeToString()


def _answer(inference: Inference, message: bytes, **changes: Any) -> pb.ModelInferResponse:
    patience = {"remaining_s": None, "abandoned": lambda: False, **changes}
    return pb.ModelInferResponse.FromString(inference.answer(message, **patience))


@pytest.fixture
def slow() -> Iterator[Slow]:
    slow = Slow()
    yield slow
    slow.go.set()


@pytest.fixture
def busy(slow: Slow) -> Iterator[tuple[Inference, Alone]]:
    """One request runs, and one may wait."""
    models = Alone(slow, max_queued=1)
    inference = Inference(models, Regions(), OVERSEER)  # type: ignore[arg-type]
    first = threading.Thread(target=_answer, args=(inference, _request()))
    first.start()
    assert slow.inside.acquire(timeout=10)
    yield inference, models
    slow.go.set()
    first.join(10)


def test_a_timeout_and_a_deadline_end_the_wait(busy: tuple[Inference, Alone]) -> None:
    inference, models = busy
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        _answer(inference, _request(timeout_us=100_000))
    with pytest.raises(DeadlineExceeded):
        _answer(inference, _request(), remaining_s=0.1)
    with pytest.raises(DeadlineExceeded):
        _answer(inference, _request(timeout_us=60_000_000), remaining_s=0.1)
    assert 0.3 <= time.monotonic() - start < 5
    with pytest.raises(Cancelled):
        _answer(inference, _request(), abandoned=lambda: True)
    assert models.loaded.statistics.fail.count == 4
    assert len(models.loaded.session.calls) == 1  # none of them was run


def test_no_more_run_or_wait_than_may(busy: tuple[Inference, Alone], slow: Slow) -> None:
    inference, _ = busy
    waiting = threading.Thread(target=_answer, args=(inference, _request()))
    waiting.start()
    time.sleep(0.2)
    with pytest.raises(QueueFull):
        _answer(inference, _request())
    slow.go.set()
    waiting.join(10)
    assert slow.most == 1


def test_a_failure_is_the_requests_and_the_next_is_answered() -> None:
    def fail(feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        if feeds["x"][0, 0] < 0:
            raise DeviceError("it broke")
        return {"y": feeds["x"]}

    models = Alone(fail)
    inference = Inference(models, Regions(), OVERSEER)  # type: ignore[arg-type]
    bad = pb.ModelInferRequest.FromString(_request())
    bad.raw_input_contents[0] = np.full((1, 2), -1, np.float32).tobytes()
    for _ in range(3):
        with pytest.raises(DeviceError, match="it broke"):
            _answer(inference, bad.SerializeToString())
        assert _answer(inference, _request()).raw_output_contents[0] == np.ones(2, np.float32).tobytes()
    statistics = models.loaded.statistics
    assert (statistics.success.count, statistics.fail.count, statistics.inferences) == (3, 3, 3)


@pytest.mark.parametrize("pad", range(8))
def test_tensors_that_lie_at_any_address(pad: int) -> None:
    """The id moves the tensor by a byte at a time; the network sees aligned memory all the same."""
    models = Alone(lambda feeds: {"y": feeds["x"]})
    inference = Inference(models, Regions(), OVERSEER)  # type: ignore[arg-type]
    reply = _answer(inference, _request(id="x" * pad))
    assert reply.id == "x" * pad
    assert models.loaded.session.calls[0]["x"].flags.aligned
    assert np.frombuffer(reply.raw_output_contents[0], np.float32).tolist() == [1, 1]


def test_a_model_that_was_replaced_answers_no_more() -> None:
    models = Alone(lambda feeds: {"y": feeds["x"]})
    inference = Inference(models, Regions(), OVERSEER)  # type: ignore[arg-type]
    _answer(inference, _request())
    old, models.loaded = models.loaded, Alone(lambda feeds: {"y": feeds["x"] * 3}).loaded
    assert np.frombuffer(_answer(inference, _request()).raw_output_contents[0], np.float32)[0] == 3
    assert len(old.session.calls) == 1


@pytest.mark.parametrize("count", [0, 2, 5])
def test_as_many_raw_tensors_as_inputs(count: int) -> None:
    inference = Inference(Alone(dict), Regions(), OVERSEER)  # type: ignore[arg-type]
    request = pb.ModelInferRequest.FromString(_request())
    del request.raw_input_contents[:]
    request.raw_input_contents.extend([bytes(8)] * count)
    with pytest.raises(InvalidInput, match=f"expected 1 raw_input_contents.*, got {count}"):
        _answer(inference, request.SerializeToString())


def _raw(values: list[float], **changes: Any) -> bytes:
    request = pb.ModelInferRequest.FromString(_request(**changes))
    request.raw_input_contents[0] = np.array(values, np.float32).tobytes()
    return request.SerializeToString()


def _values(reply: pb.ModelInferResponse) -> list[float]:
    return np.frombuffer(reply.raw_output_contents[0], np.float32).tolist()


def test_a_request_that_comes_again_is_bound_and_answers_itself() -> None:
    models = Alone(lambda feeds: {"y": feeds["x"] * 2})
    inference = Inference(models, Regions(), OVERSEER)  # type: ignore[arg-type]
    for number in range(4):
        reply = _answer(inference, _raw([number, 1], id="" if number % 2 else f"n{number}"))
        assert (_values(reply), reply.id) == ([2 * number, 2], "" if number % 2 else f"n{number}")
    calls = models.loaded.session.calls
    assert len({call["x"].ctypes.data for call in calls[1:]}) == 1
    inference.forget()
    assert _values(_answer(inference, _raw([5, 5]))) == [10, 10]
    # A raw tensor of another length, behind a head that is known.
    longer = pb.ModelInferRequest.FromString(_request())
    longer.raw_input_contents[0] += bytes(4)
    with pytest.raises(InvalidInput, match="expected 8 bytes in raw_input_contents"):
        _answer(inference, longer.SerializeToString())


def test_bindings_of_requests_at_once_are_their_own(slow: Slow) -> None:
    models = Alone(slow, max_running=4)
    inference = Inference(models, Regions(), OVERSEER)  # type: ignore[arg-type]
    slow.go.set()
    _answer(inference, _raw([0, 0]))
    slow.go.clear()
    found: dict[int, list[float]] = {}

    def ask(number: int) -> None:
        found[number] = _values(_answer(inference, _raw([number, number])))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        assert slow.inside.acquire(timeout=10)
    slow.go.set()
    for thread in threads:
        thread.join(10)
    assert found == {number: [2 * number, 2 * number] for number in range(1, 5)}


def test_an_output_that_is_not_as_declared_is_answered_as_it_came() -> None:
    """`y` says that its batch is that of `x`; a graph may say so and do otherwise."""

    class Lying(FakeSession):
        def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"y": np.concatenate([feeds["x"], feeds["x"]])}

    models = Alone(dict)
    session = models.loaded.session
    models.loaded = Loaded("m", "1", Lying(session.inputs, session.outputs, dict), models.loaded.queue)
    inference = Inference(models, Regions(), OVERSEER)  # type: ignore[arg-type]
    for number in range(3):
        reply = _answer(inference, _raw([number, 1]))
        assert (list(reply.outputs[0].shape), _values(reply)) == ([2, 2], [number, 1] * 2)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer, "MAX_BOUND_BYTES", 100)
    monkeypatch.setattr(infer, "MAX_PLANS", 5)
    inference = Inference(Alone(lambda feeds: {"y": feeds["x"]}), Regions(), OVERSEER)  # type: ignore[arg-type]
    for number in range(1, 60):
        request = _raw([number, 1], timeout_us=number % 12 + 1_000_000)
        assert _values(_answer(inference, request)) == [number, 1]
        plans = inference._kept.plans.values()
        assert len(plans) <= 5
        assert sum(bound.own_bytes for plan in plans for bound in plan.idle) <= 100
