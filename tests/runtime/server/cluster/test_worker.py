"""A worker and a door without Ray."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from trocar.runtime.config import Config, ServerConfig
from trocar.runtime.errors import InvalidInput, QueueFull
from trocar.runtime.server.cluster import worker as worker_module
from trocar.runtime.server.cluster.door import HEALTH, OF_ONE_SERVER, door_class, methods
from trocar.runtime.server.cluster.run import deploy
from trocar.runtime.server.cluster.worker import Context, Worker

ECHO = "/test.Echo/Say"


class Echo:
    """Says what it was told; `wait` waits for its caller to leave."""

    def __init__(self) -> None:
        self.left = threading.Event()

    def say(self, request: bytes, context: Any) -> bytes:
        if request == b"bad":
            raise InvalidInput("expected something good, got bad")
        if request == b"full":
            raise QueueFull("no room")
        if request == b"wait":
            gone = threading.Event()
            assert context.time_remaining() is None
            assert context.add_callback(gone.set)
            assert gone.wait(30)
            self.left.set()
        return request.upper()


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Echo:
    service = Echo()

    def add(server: Any, *_: Any) -> tuple[str, ...]:
        handler = grpc.unary_unary_rpc_method_handler(service.say)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("test.Echo", {"Say": handler}),)
        )
        return ("test.Echo",)

    monkeypatch.setattr(worker_module, "add_services", lambda server, *_: add(server))
    monkeypatch.setattr(worker_module, "open_context", lambda *_, **__: None)
    monkeypatch.setattr(worker_module, "find_services", dict)
    return service


def call(worker: Worker, request: bytes, method: str = ECHO) -> tuple[str, str, bytes]:
    return asyncio.run(worker.call(method, request))


@pytest.mark.parametrize(
    ("request_bytes", "answer"),
    [
        (b"hi", ("OK", "", b"HI")),
        (b"bad", ("INVALID_ARGUMENT", "expected something good, got bad", b"")),
        (b"full", ("RESOURCE_EXHAUSTED", "no room", b"")),
    ],
)
@pytest.mark.usefixtures("echo")
def test_a_call_is_answered_as_over_grpc(request_bytes: bytes, answer: tuple[str, str, bytes]) -> None:
    assert call(Worker(Config()), request_bytes) == answer


@pytest.mark.usefixtures("echo")
def test_an_unknown_method() -> None:
    code, details, _ = call(Worker(Config()), b"", "/test.Echo/Shout")
    assert (code, details) == ("UNIMPLEMENTED", "/test.Echo/Shout is not served behind Ray")


def test_who_leaves_ends_the_work(echo: Echo) -> None:
    async def leave() -> None:
        task = asyncio.create_task(Worker(Config()).call(ECHO, b"wait"))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    assert echo.left.wait(30)


def test_a_context_whose_caller_left_takes_no_callback() -> None:
    context = Context()
    called: list[int] = []
    assert context.is_active()
    assert context.add_callback(lambda: called.append(1))
    context.leave()
    context.leave()
    assert called == [1]
    assert not context.is_active()
    assert not context.add_callback(lambda: called.append(2))


def test_what_lives_in_one_server_is_not_routed() -> None:
    routed = methods()
    assert routed["Plan"] == "/trocar.v1.PlanningService/Plan"
    assert routed["ModelInfer"] == "/inference.GRPCInferenceService/ModelInfer"
    assert routed["Check"] == HEALTH
    assert not any(name.startswith(OF_ONE_SERVER) for name in routed)
    assert "ModelStreamInfer" not in routed


class Handle:
    """Ray's handle of workers of which the first ones die."""

    def __init__(self, error: Exception, deaths: int) -> None:
        self.error, self.deaths, self.asked = error, deaths, 0
        self.call = self.names = self

    def remote(self, *_: Any) -> Any:
        async def answer() -> Any:
            self.asked += 1
            if self.asked <= self.deaths:
                raise self.error
            return ("OK", "", b"reply")

        return answer()


class Status:
    def __init__(self) -> None:
        self.code: Any = None

    def set_code(self, code: Any) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details


def test_a_call_outlives_its_workers() -> None:
    exceptions = pytest.importorskip("ray.exceptions", reason="Ray is not installed (ray extra)")
    handle = Handle(exceptions.RayActorError(), deaths=2)
    door, status = door_class()(handle), Status()
    reply = asyncio.run(door.Plan(b"request", status))  # type: ignore[attr-defined]
    assert (reply.SerializeToString(), status.code, handle.asked) == (b"reply", None, 3)
    with pytest.raises(exceptions.RayActorError):
        asyncio.run(door_class()(Handle(exceptions.RayActorError(), deaths=99)).Plan(b"", status))  # type: ignore[attr-defined]


def test_health_needs_no_worker_for_the_whole() -> None:
    pytest.importorskip("ray", reason="Ray is not installed (ray extra)")
    request = health_pb2.HealthCheckRequest().SerializeToString()
    reply = asyncio.run(door_class()(None).Check(request, Status()))  # type: ignore[attr-defined]
    answer = health_pb2.HealthCheckResponse.FromString(reply.SerializeToString())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("listen", ["127.0.0.1:8001", "unix:/tmp/s", "0.0.0.0:0"])
def test_the_proxy_cannot_listen_elsewhere(listen: str) -> None:
    with pytest.raises(InvalidInput, match=r"expected --listen 0\.0\.0\.0:PORT, got"):
        deploy(Config(ServerConfig(listen=listen)), replicas=1)


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trocar.runtime.server.cluster.run.find_spec", lambda _name: None)
    with pytest.raises(InvalidInput, match=r"pip install 'trocar\[ray\]'"):
        deploy(Config(ServerConfig(listen="0.0.0.0:8001")), replicas=1)
