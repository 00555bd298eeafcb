"""Who runs, waits or is refused, as real clients of a real `trocar serve` see it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest

from trocar.inference_v2 import open_inference_pb2 as pb
from trocar.runtime.repository.store import shipped
from trocar.v1 import planning_pb2, planning_pb2_grpc, video_pb2, video_pb2_grpc

INFER = "/inference.GRPCInferenceService/ModelInfer"
STATISTICS = "/inference.GRPCInferenceService/ModelStatistics"
LONG = planning_pb2.SearchSettings(budget_ms=50_000)
# A few tenths of a second, on any machine.
FAR = 300_000
QUICK = planning_pb2.SearchSettings(moves=2_000, seed=3)


def _until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.02)


class Client:
    """Raw calls of the inference protocol."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self.infer = self._channel.unary_unary(INFER, response_deserializer=pb.ModelInferResponse.FromString)
        self._statistics = self._channel.unary_unary(
            STATISTICS,
            pb.ModelStatisticsRequest.SerializeToString,
            pb.ModelStatisticsResponse.FromString,
        )

    def statistics(self, model: str) -> Any:
        return self._statistics(pb.ModelStatisticsRequest(name=model), timeout=60).model_stats[0]

    def close(self) -> None:
        self._channel.close()


def _turns(turns: int, priority: int = 0) -> bytes:
    """Ask to count, which takes as long as it is far."""
    request = pb.ModelInferRequest(model_name="turns", raw_input_contents=[np.int64(turns).tobytes()])
    request.inputs.add(name="turns", datatype="INT64", shape=[])
    if priority:
        request.parameters["priority"].uint64_param = priority
    return request.SerializeToString()


@pytest.fixture(scope="module")
def one_at_a_time(start_server: Any, inference_repository: Path) -> Iterator[Client]:
    server = start_server(
        config=f'[server]\nservices = "inference"\nrepository = "{inference_repository}"\nmax_running = 1\n'
    )
    client = Client(server.target)
    yield client
    client.close()


def _turns_of(client: Client, seconds: float) -> int:
    """How far it counts in about this time, here and now."""
    begin_s = time.monotonic()
    client.infer(_turns(50_000), timeout=120)
    return round(50_000 * seconds / (time.monotonic() - begin_s))


def test_the_more_urgent_request_is_answered_first(one_at_a_time: Client) -> None:
    client = one_at_a_time
    turns = _turns_of(client, 1.5)
    ended: SimpleQueue[int] = SimpleQueue()
    running = client.infer.future(_turns(turns), timeout=120)
    time.sleep(0.2)
    calls = []
    for priority in (3, 0, 2, 1):
        call = client.infer.future(_turns(FAR // 3, priority), timeout=120)
        call.add_done_callback(lambda _, priority=priority: ended.put(priority))
        calls.append(call)
        time.sleep(0.1)
    assert not running.done()
    assert not any(call.done() for call in calls)
    for call in calls:
        assert call.result(120).raw_output_contents[0] == np.int64(FAR // 3).tobytes()
    assert [ended.get(timeout=10) for _ in calls] == [1, 0, 2, 3]


@pytest.mark.parametrize("priority", [4, 2**63])
def test_a_priority_beyond_the_classes_is_refused(one_at_a_time: Client, priority: int) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        one_at_a_time.infer(_turns(1, priority), timeout=60)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "parameter priority: expected 1 for the most urgent" in raised.value.details()


def test_a_deadline_that_cannot_be_met_is_refused_at_once_and_not_run(
    start_server: Any, inference_repository: Path
) -> None:
    server = start_server(config=f'[server]\nservices = "inference"\nrepository = "{inference_repository}"\n')
    client = Client(server.target)
    for _ in range(5):
        client.infer(_turns(FAR), timeout=120)
    before = client.statistics("turns")
    for _ in range(20):  # on a machine that is busy the client's own clock may be first
        with pytest.raises(grpc.RpcError) as raised:
            client.infer(_turns(FAR), timeout=0.1)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        if "turns: expected a deadline that can be met, got one" in raised.value.details():
            break
    else:
        pytest.fail("the server never said that it refuses")
    after = client.statistics("turns")
    assert after.inference_count == before.inference_count
    assert after.inference_stats.fail.count > before.inference_stats.fail.count
    assert client.infer(_turns(FAR), timeout=120).raw_output_contents  # with time enough it is run
    client.close()


def test_batched_requests_are_answered_as_alone(start_server: Any, inference_repository: Path) -> None:
    server = start_server(
        config=f'[server]\nservices = "inference"\nrepository = "{inference_repository}"\n'
        '[services.inference.batching]\nmodels = "pair"\nmax_batch = 4\nwindow_ms = 5.0\n'
    )
    client = Client(server.target)

    def ask(seed: int) -> None:
        draw = np.random.default_rng(seed)
        for turn in range(12):
            rows = int(draw.integers(1, 6))
            left, right = draw.standard_normal((2, rows, 2, 3), np.float32)
            request = pb.ModelInferRequest(model_name="pair", id=f"{seed}-{turn}")
            for name, array in (("left", left), ("right", right)):
                request.inputs.add(name=name, datatype="FP32", shape=array.shape)
                request.raw_input_contents.append(array.tobytes())
            bad = pb.ModelInferRequest.FromString(request.SerializeToString())
            bad.inputs[1].shape[0] += 1
            bad.raw_input_contents[1] += bytes(24)
            with pytest.raises(grpc.RpcError) as raised:
                client.infer(bad.SerializeToString(), timeout=60)
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            reply = client.infer(request.SerializeToString(), timeout=60)
            assert reply.id == f"{seed}-{turn}"
            total, difference = (
                np.frombuffer(data, np.float32).reshape(left.shape) for data in reply.raw_output_contents
            )
            np.testing.assert_array_equal(total, left + right)
            np.testing.assert_array_equal(difference, left - right)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(8)))
    client.close()


def test_a_model_that_cannot_be_batched_says_so(start_server: Any, inference_repository: Path) -> None:
    server = start_server(
        config=f'[server]\nservices = "inference"\nrepository = "{inference_repository}"\n'
        '[services.inference.batching]\nmodels = "mixed"\n'
    )
    with grpc.insecure_channel(server.target) as channel:
        index = channel.unary_unary(
            "/inference.GRPCInferenceService/RepositoryIndex",
            pb.RepositoryIndexRequest.SerializeToString,
            pb.RepositoryIndexResponse.FromString,
        )
        states = {each.name: each for each in index(pb.RepositoryIndexRequest(), timeout=60).models}
    assert states["mixed"].state == "UNAVAILABLE"
    assert "batching: expected one named axis" in states["mixed"].reason
    assert states["pair"].state == "READY"


# Planning.


def _plan(search: planning_pb2.SearchSettings = QUICK) -> planning_pb2.PlanRequest:
    return planning_pb2.PlanRequest(case=planning_pb2.CaseInput(phantom_seed=7), search=search)


def _workers(server: Any) -> list[int]:
    """The server's planning processes."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            command = (path / "cmdline").read_bytes()
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if parent == server.process.pid and b"trocar.runtime.server.worker" in command:
            found.append(int(path.name))
    return found


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def one_plan(start_server: Any) -> Iterator[tuple[Any, planning_pb2_grpc.PlanningServiceStub]]:
    server = start_server(
        config='[server]\nservices = "planning"\nmax_queued = 1\n'
        '[services.planning]\nprocesses = 1\ncpu = "normal"\n'
    )
    with grpc.insecure_channel(server.target) as channel:
        yield server, planning_pb2_grpc.PlanningServiceStub(channel)


def _begin_search(stub: Any, server: Any) -> Any:
    long = stub.Plan.future(_plan(LONG), timeout=120)
    before = [_cpu_s(pid) for pid in _workers(server)]
    assert before
    # A search is under way once the process has worked for a while.
    _until(lambda: sum(_cpu_s(pid) for pid in _workers(server)) > sum(before) + 0.5)
    assert not long.done()
    return long


def test_a_request_that_leaves_the_queue_makes_room_and_one_that_leaves_its_search_the_slot(
    one_plan: tuple[Any, Any],
) -> None:
    server, stub = one_plan
    long = _begin_search(stub, server)
    waiting = stub.Plan.future(_plan(), timeout=120)
    time.sleep(0.5)

    def refused() -> bool:
        probe = stub.Plan.future(_plan(), timeout=120)
        try:
            error = probe.exception(timeout=1.0)
        except grpc.FutureTimeoutError:
            probe.cancel()
            return False
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "planning: expected at most 1 waiting requests" in error.details()
        return True

    assert refused()
    waiting.cancel()
    _until(lambda: not refused())
    assert not long.done()
    long.cancel()
    worker = _workers(server)
    replies = []

    def planned() -> bool:
        # The last probe was cancelled, and may hold its place in the queue a moment longer.
        with contextlib.suppress(grpc.RpcError):
            replies.append(stub.Plan(_plan(), timeout=60))
        return bool(replies)

    _until(planned)
    assert replies[0].seeds > 20
    assert _workers(server) == worker  # it stopped, and was not ended


def test_a_deadline_behind_a_long_plan_is_refused_at_once(one_plan: tuple[Any, Any]) -> None:
    server, stub = one_plan
    long = _begin_search(stub, server)
    begin_s = time.monotonic()
    with pytest.raises(grpc.RpcError) as raised:
        stub.Plan(_plan(), timeout=20)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "ms are work before it" in raised.value.details()
    assert time.monotonic() - begin_s < 15
    assert not long.done()
    long.cancel()


def test_planning_claims_no_core_that_others_want(start_server: Any) -> None:
    server = start_server(config='[server]\nservices = "planning"\n[services.planning]\n')
    (worker,) = _workers(server)
    tasks = [int(task.name) for task in Path(f"/proc/{worker}/task").iterdir()]
    assert {os.sched_getscheduler(task) for task in tasks} == {os.SCHED_IDLE}
    assert os.sched_getscheduler(server.process.pid) == os.SCHED_OTHER


def test_a_killed_planning_process_costs_one_request(start_server: Any) -> None:
    server = start_server(
        config='[server]\nservices = "planning"\n[services.planning]\nprocesses = 2\ncpu = "normal"\n'
    )
    with grpc.insecure_channel(server.target) as channel:
        stub = planning_pb2_grpc.PlanningServiceStub(channel)
        needles = stub.Plan(_plan(), timeout=60).plan.needles
        doomed = _begin_search(stub, server)
        (first,) = _workers(server)
        other = stub.Plan.future(_plan(planning_pb2.SearchSettings(budget_ms=2_500)), timeout=120)
        _until(lambda: len(_workers(server)) == 2)
        os.kill(first, signal.SIGKILL)
        error = doomed.exception(timeout=60)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert error.details() == "the process that worked on the request ended; it may be sent again"
        assert other.result(timeout=120).seeds > 20
        assert stub.Plan(_plan(), timeout=60).plan.needles == needles
    assert "its process ended by signal 9" in server.log.read_text()
    assert "Traceback" not in server.log.read_text()
    assert server.stop() == 0


def test_a_killed_server_leaves_no_planning_process(start_server: Any) -> None:
    server = start_server(config='[server]\nservices = "planning"\n')
    with grpc.insecure_channel(server.target) as channel:
        long = _begin_search(planning_pb2_grpc.PlanningServiceStub(channel), server)
        workers = _workers(server)
        server.process.kill()
        server.process.wait(30)
        assert isinstance(long.exception(timeout=60), grpc.RpcError)
    _until(lambda: not any(_is_alive(pid) for pid in workers))


def _is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False


def test_a_plan_in_flight_is_finished_by_a_drain_with_its_process(start_server: Any) -> None:
    server = start_server(config='[server]\nservices = "planning"\n')
    with grpc.insecure_channel(server.target) as channel:
        stub = planning_pb2_grpc.PlanningServiceStub(channel)
        flying = stub.Plan.future(_plan(planning_pb2.SearchSettings(budget_ms=2_500)), timeout=120)
        _until(lambda: sum(map(_cpu_s, _workers(server))) > 1.0)
        for pid in (*_workers(server), server.process.pid):
            os.kill(pid, signal.SIGTERM)  # as a service manager does to all of a group
        assert flying.result(timeout=60).seeds > 20
    assert server.process.wait(60) == 0


def test_streams_of_frames_and_requests_share_the_machine(start_server: Any) -> None:
    """Frames count against the slots while they run, and hold nothing back for good."""
    server = start_server(config='[server]\nservices = "inference, video"\nmax_running = 1\n')
    picture = video_pb2.RawPicture(height=64, width=64, data=bytes(64 * 64 * 3))
    ending = threading.Event()

    def requests() -> Iterator[video_pb2.AnnotateRequest]:
        yield video_pb2.AnnotateRequest(settings=video_pb2.StreamSettings())
        number = 0
        while not ending.is_set() and number < 1000:
            yield video_pb2.AnnotateRequest(frame=video_pb2.VideoFrame(id=number, raw=picture))
            number += 1
            time.sleep(0.02)

    with grpc.insecure_channel(server.target) as channel, ThreadPoolExecutor(1) as threads:
        stub = video_pb2_grpc.VideoServiceStub(channel)
        frames = threads.submit(lambda: [reply.error for reply in stub.Annotate(requests(), timeout=120)])
        infer = channel.unary_unary(INFER, response_deserializer=pb.ModelInferResponse.FromString)
        shape = [1, *shipped().open("polyp").manifest.inputs[0].shape[1:]]
        request = pb.ModelInferRequest(model_name="polyp")
        request.inputs.add(name="image", datatype="FP32", shape=shape)
        request.raw_input_contents.append(np.zeros(shape, np.float32).tobytes())
        for _ in range(5):
            assert infer(request.SerializeToString(), timeout=60).raw_output_contents
        ending.set()
        assert frames.result(120).count("") > 0
