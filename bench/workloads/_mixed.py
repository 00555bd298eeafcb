"""What clients ask of a server all day: each kind of request by a client of its own, each answer checked.

An answer is right where it equals the one of this process, or, for plans and frames, the first one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from trocar.runtime.errors import DeviceError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float32]

Call = Callable[[], object]

MODEL, RELOADED = "tpgan", "polyp"
# Requests a second of each kind, where it keeps up.
RATES = {
    "small": 10.0,
    "shared memory": 2.0,
    "volume": 0.2,
    "plan": 0.2,
    "evaluate": 0.2,
    "live frame": 5.0,
    "health": 2.0,
    "load and unload": 0.3,
    "connect": 2.0,
}
_SMALL, _SHARED, _VOLUME = 1, 4, 24
_TIMEOUT_S, _END_S, _ERRORS = 60.0, 70.0, 20


@dataclass(slots=True)
class Asked:
    """What came of one kind of request: when each was answered and how long it took, ms."""

    at_s: list[float] = field(default_factory=list)
    took_ms: list[float] = field(default_factory=list)


class Mixed:
    """The load, for the body of a `with`. Each kind waits for its answer, then for its next turn.

    Parameters
    ----------
    target : the server's address.
    """

    def __init__(self, target: str) -> None:
        self.asked = {kind: Asked() for kind in RATES}
        self.errors: list[str] = []
        self.failed = 0
        self._ending, self._lock = threading.Event(), threading.Lock()
        self._stack = ExitStack()
        try:
            calls = _calls(target, self._stack)
        except BaseException:
            self._stack.close()
            raise
        self._threads = [threading.Thread(target=self._ask, args=row) for row in calls.items()]

    def __enter__(self) -> Mixed:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End after the answers that are under way."""
        self._ending.set()
        for thread in self._threads:
            thread.join(_END_S)
        self._stack.close()

    def _ask(self, kind: str, call: Call) -> None:
        asked, due_s = self.asked[kind], time.monotonic()
        while not self._ending.wait(max(0.0, due_s - time.monotonic())):
            begin_s = time.perf_counter()
            try:
                call()
            except Exception as error:
                with self._lock:
                    self.failed += 1
                    if len(self.errors) < _ERRORS:
                        self.errors.append(f"{kind}: {' '.join(str(error).split())[:300]}")
            else:
                asked.took_ms.append(1e3 * (time.perf_counter() - begin_s))
                asked.at_s.append(time.monotonic())
            due_s = max(due_s + 1 / RATES[kind], time.monotonic())


def _calls(target: str, stack: ExitStack) -> dict[str, Call]:
    """One request of each kind, on connections that the stack closes."""
    from trocar.bench.workloads._open_inference import Client

    def client() -> Client:
        made = Client(target)
        stack.callback(made.close)
        return made

    session = _session()
    plan, evaluate = _planning(target, stack)
    loader = client()

    def reload() -> None:
        loader.reload(RELOADED)
        _require(loader.is_ready(RELOADED), "a model that was loaded is ready")

    once = _inference(client(), session, _SMALL)

    def connect() -> None:
        made = Client(target)
        try:
            made.empty()
        finally:
            made.close()

    return {
        "small": once,
        "shared memory": _shared(client(), session, stack),
        "volume": _inference(client(), session, _VOLUME),
        "plan": plan,
        "evaluate": evaluate,
        "live frame": _frames(target, stack),
        "health": _health(target, stack),
        "load and unload": reload,
        "connect": connect,
    }


def _session() -> Any:
    from trocar.runtime.repository.load import open_model
    from trocar.runtime.repository.store import shipped

    return open_model(shipped().open(MODEL), threads=1, device="cpu")


def _feeds(session: Any, batch: int) -> dict[str, Array]:
    import numpy as np

    random = np.random.default_rng(batch)
    return {spec.name: random.random((batch, *spec.shape[1:]), dtype=np.float32) for spec in session.inputs}


def answer_of(client: Any) -> Call:
    """A small request, whose answer is held against this process's own."""
    return _inference(client, _session(), _SMALL)


def _inference(client: Any, session: Any, batch: int) -> Call:
    import numpy as np

    from trocar.bench.workloads._open_inference import output_of, request

    feeds = _feeds(session, batch)
    message = request(MODEL, feeds)
    (right,) = session.run(feeds).values()

    def call() -> None:
        found = output_of(client.infer(message), np.float32)
        _require(np.array_equal(found, right.ravel()), "the network's answer")

    return call


def _shared(client: Any, session: Any, stack: ExitStack) -> Call:
    import numpy as np

    from trocar.bench.workloads._open_inference import DATATYPES, Region
    from trocar.inference_v2 import open_inference_pb2 as pb

    feeds = _feeds(session, _SHARED)
    (name, right), *_ = session.run(feeds).items()
    region = stack.enter_context(Region(sum(array.nbytes for array in feeds.values()) + right.nbytes))
    client.register(region)
    message, at = pb.ModelInferRequest(model_name=MODEL), 0
    places: list[tuple[Any, Array]] = []
    for key, array in feeds.items():
        tensor = message.inputs.add(name=key, datatype=DATATYPES[array.dtype.name], shape=array.shape)
        places.append((tensor, array))
    places.append((message.outputs.add(name=name), right))
    for tensor, array in places:
        tensor.parameters["shared_memory_region"].string_param = region.name
        tensor.parameters["shared_memory_byte_size"].int64_param = array.nbytes
        tensor.parameters["shared_memory_offset"].int64_param = at
        if array is not right:
            region.memory[at : at + array.nbytes] = array.tobytes()
        at += array.nbytes

    def call() -> None:
        region.memory[at - right.nbytes : at] = bytes(right.nbytes)
        client.infer(message)
        # A copy: a view would keep the memory from being closed.
        found = np.frombuffer(region.memory[at - right.nbytes : at], np.float32)
        _require(np.array_equal(found, right.ravel()), "the network's answer in shared memory")

    return call


def _planning(target: str, stack: ExitStack) -> tuple[Call, Call]:
    from trocar.bench.serving import connection
    from trocar.v1 import planning_pb2, planning_pb2_grpc

    channels = [stack.enter_context(connection(target)) for _ in range(2)]
    stubs = [planning_pb2_grpc.PlanningServiceStub(channel) for channel in channels]
    case = planning_pb2.CaseInput(phantom_seed=7)
    search = planning_pb2.SearchSettings(moves=20_000, chains=1, seed=3)
    asked = planning_pb2.PlanRequest(case=case, search=search)
    first = stubs[0].Plan(asked, timeout=_TIMEOUT_S)
    proved = planning_pb2.EvaluateRequest(case=case, plan=first.plan)
    metrics = _figures(stubs[1].Evaluate(proved, timeout=_TIMEOUT_S))

    def plan() -> None:
        found = stubs[0].Plan(asked, timeout=_TIMEOUT_S)
        same = found.plan.needles == first.plan.needles and _figures(found) == _figures(first)
        _require(same, "the plan of the first time")

    def evaluate() -> None:
        found = _figures(stubs[1].Evaluate(proved, timeout=_TIMEOUT_S))
        _require(found == metrics, "the figures of the first time")

    return plan, evaluate


def _figures(reply: Any) -> dict[str, bytes]:
    metrics: Mapping[str, Any] = reply.metrics
    return {role: figures.SerializeToString(deterministic=True) for role, figures in metrics.items()}


def _frames(target: str, stack: ExitStack) -> Call:
    """One stream, for as long as the load lasts."""
    import itertools

    from trocar.bench.serving import connection
    from trocar.bench.stream import frames_of
    from trocar.v1 import video_pb2, video_pb2_grpc

    pictures = frames_of("rendered:7:0.4")
    seen: dict[int, bytes] = {}
    waiting: SimpleQueue[Any] = SimpleQueue()
    settings = video_pb2.StreamSettings(masks=video_pb2.MASK_FORMAT_LABELS_PNG)
    waiting.put(video_pb2.AnnotateRequest(settings=settings))
    channel = stack.enter_context(connection(target))
    replies: Iterator[Any] = video_pb2_grpc.VideoServiceStub(channel).Annotate(iter(waiting.get, None))
    stack.callback(waiting.put, None)
    numbers = itertools.count()

    def call() -> None:
        number = next(numbers)
        at = number % len(pictures)
        waiting.put(video_pb2.AnnotateRequest(frame=video_pb2.VideoFrame(id=number, jpeg=pictures[at])))
        reply = next(replies)
        _require(reply.id == number and not reply.error, f"an answer to the frame, not {reply.error!r}")
        _require(seen.setdefault(at, reply.labels_png) == reply.labels_png, "the mask of the first time")

    return call


def _health(target: str, stack: ExitStack) -> Call:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from trocar.bench.serving import connection

    stub: Any = health_pb2_grpc.HealthStub(stack.enter_context(connection(target)))

    def call() -> None:
        status = stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S).status
        _require(status == health_pb2.HealthCheckResponse.SERVING, "a server that serves")

    return call


def _require(right: bool, what: str) -> None:
    if not right:
        raise DeviceError(f"expected {what}, got another")
