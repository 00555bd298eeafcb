"""A real server in this process, with a service of raw bytes."""

import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from trocar.runtime.config import ClientsConfig, Config, ServerConfig
from trocar.runtime.errors import InvalidInput
from trocar.runtime.server.app import Server
from trocar.runtime.server.health import MAX_WATCHERS
from trocar.runtime.server.services import ServiceContext

NAME = "test.v1.Echo"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def _strict(data: bytes) -> bytes:
    if data == b"malformed":
        raise ValueError("no such message")
    return data


class Echo:
    """Answers with what came; `fail` raises, `wait` holds until released, `abort` aborts by itself."""

    def __init__(self) -> None:
        self.started, self.release, self.cut = threading.Event(), threading.Event(), threading.Event()

    def answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if request == b"fail":
            raise ValueError("/secret/path")
        if request == b"refuse":
            raise InvalidInput("expected this,\ngot that")
        if request == b"abort":
            context.abort(grpc.StatusCode.DATA_LOSS, "own words")
        if request == b"wait":
            context.add_callback(self.cut.set)
            self.started.set()
            while not (self.release.wait(0.01) or self.cut.is_set()):
                pass
        return request

    def stream(self, request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"one"
        if request == b"refuse":
            raise InvalidInput("enough")
        yield b"two"

    def add(self, server: grpc.Server, _: ServiceContext) -> Sequence[str]:
        handlers = {
            "Answer": grpc.unary_unary_rpc_method_handler(self.answer, request_deserializer=_strict),
            "Stream": grpc.unary_stream_rpc_method_handler(self.stream),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))
        return (NAME,)


Start = Callable[..., tuple[Server, Echo, grpc.Channel]]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[tuple[Server, Echo, grpc.Channel]] = []

    def begin(**limits: Any) -> tuple[Server, Echo, grpc.Channel]:
        echo = Echo()
        config = Config(ServerConfig(**{"listen": "127.0.0.1:0", "drain_grace_s": 5.0, **limits}))
        server = Server(config, {"echo": echo.add})
        server.start()
        channel = grpc.insecure_channel(server.address.target)
        grpc.channel_ready_future(channel).result(timeout=10)
        running.append((server, echo, channel))
        return running[-1]

    yield begin
    for server, echo, channel in running:
        echo.release.set()
        channel.close()
        server.hurry()
        server.drain()


def _answer(channel: grpc.Channel) -> Callable[..., Any]:
    return channel.unary_unary(f"/{NAME}/Answer")


def _health(channel: grpc.Channel, name: str = "") -> Any:
    return (
        health_pb2_grpc.HealthStub(channel)
        .Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
        .status
    )


def _code(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code(), raised.value.details()


def test_answers_and_maps_errors(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    _, _, channel = start()
    answer = _answer(channel)
    caplog.set_level(logging.INFO, "trocar.server")
    assert answer(b"hello", timeout=5) == b"hello"
    assert _code(lambda: answer(b"refuse", timeout=5)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "expected this, got that",
    )
    code, details = _code(lambda: answer(b"fail", timeout=5))
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in details
    assert "\n" not in details
    assert _code(lambda: answer(b"abort", timeout=5)) == (grpc.StatusCode.DATA_LOSS, "own words")
    assert _code(lambda: answer(b"malformed", timeout=5))[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert (
        _code(lambda: channel.unary_unary(f"/{NAME}/None")(b"", timeout=5))[0]
        is grpc.StatusCode.UNIMPLEMENTED
    )

    lines = [
        record.getMessage().split(" ")[:2] for record in caplog.records if record.levelno == logging.INFO
    ]
    codes = ["OK", "INVALID_ARGUMENT", "INTERNAL", "DATA_LOSS", "INVALID_ARGUMENT"]
    assert lines == [[f"/{NAME}/Answer", code] for code in codes]
    assert "ValueError: /secret/path" in caplog.text  # the log, and only the log, has the traceback


def test_a_stream_keeps_what_it_sent_and_ends_with_the_code(start: Start) -> None:
    _, _, channel = start()
    stream = channel.unary_stream(f"/{NAME}/Stream")
    assert list(stream(b"", timeout=5)) == [b"one", b"two"]
    call = stream(b"refuse", timeout=5)
    assert next(call) == b"one"
    assert _code(lambda: next(call)) == (grpc.StatusCode.INVALID_ARGUMENT, "enough")


def test_a_message_over_the_limit(start: Start) -> None:
    _, _, channel = start(max_message_mib=1)
    answer = _answer(channel)
    assert len(answer(b"x" * 1_000_000, timeout=5)) == 1_000_000
    code, _ = _code(lambda: answer(b"x" * 1_100_000, timeout=5))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert answer(b"still here", timeout=5) == b"still here"


def test_a_small_message_that_inflates_over_the_limit(start: Start) -> None:
    server, _, _ = start(max_message_mib=1)
    with grpc.insecure_channel(server.address.target, compression=grpc.Compression.Gzip) as channel:
        code, _ = _code(lambda: _answer(channel)(bytes(50_000_000), timeout=20))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert _answer(channel)(b"still here", timeout=5) == b"still here"


def test_health_and_reflection(start: Start) -> None:
    _, _, channel = start(reflection=True)
    assert _health(channel) == SERVING
    assert _health(channel, NAME) == SERVING
    assert _code(lambda: _health(channel, "no.such"))[0] is grpc.StatusCode.NOT_FOUND
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    listed = next(stub.ServerReflectionInfo(iter([ask]), timeout=5)).list_services_response.service
    assert {service.name for service in listed} >= {NAME, "grpc.health.v1.Health"}


def test_reflection_is_off_unless_turned_on(start: Start) -> None:
    _, _, channel = start()
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    assert (
        _code(lambda: next(stub.ServerReflectionInfo(iter([ask]), timeout=5)))[0]
        is grpc.StatusCode.UNIMPLEMENTED
    )


def test_a_drain_finishes_what_is_in_flight_and_takes_nothing_new(start: Start) -> None:
    server, echo, channel = start()
    with ThreadPoolExecutor(2) as pool:
        flying = pool.submit(_answer(channel), b"wait")
        assert echo.started.wait(5)
        drained = pool.submit(server.drain)
        until = time.monotonic() + 5
        while _health(channel) != NOT_SERVING and time.monotonic() < until:
            time.sleep(0.01)
        # The connection that exists and a new one hear the same.
        with grpc.insecure_channel(server.address.target) as fresh:
            for each in (channel, fresh):
                assert _health(each, NAME) == NOT_SERVING
                assert (
                    _code(lambda each=each: _answer(each)(b"x", timeout=5))[0] is grpc.StatusCode.UNAVAILABLE
                )
        assert not drained.done()
        echo.release.set()
        assert flying.result(timeout=5) == b"wait"
        assert drained.result(timeout=10) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.address.port)) != 0


def test_a_health_watcher_does_not_hold_the_drain_up(start: Start) -> None:
    server, _, channel = start(drain_grace_s=60.0)
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
    assert next(watch).status == SERVING
    began = time.monotonic()
    assert server.drain() == 0
    assert time.monotonic() - began < 5
    assert next(watch).status == NOT_SERVING


def test_the_grace_ends(start: Start) -> None:
    server, echo, channel = start(drain_grace_s=0.2)
    with ThreadPoolExecutor(1) as pool:
        flying = pool.submit(_answer(channel), b"wait")
        assert echo.started.wait(5)
        assert server.drain() == 1
        assert echo.cut.wait(5)
        assert _code(lambda: flying.result(timeout=5))[0] in (
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.UNAVAILABLE,
        )


def test_hurry_ends_the_grace(start: Start) -> None:
    server, echo, channel = start(drain_grace_s=60.0)
    with ThreadPoolExecutor(2) as pool:
        flying = pool.submit(_answer(channel), b"wait")
        assert echo.started.wait(5)
        drained = pool.submit(server.drain)
        time.sleep(0.1)
        server.hurry()
        assert drained.result(timeout=10) == 1
        assert isinstance(flying.exception(timeout=5), grpc.RpcError)


def test_a_unix_socket_is_its_owners_alone_and_leaves_with_the_server(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "t.sock"
    server, _, channel = start(listen=f"unix:{path}")
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert _answer(channel)(b"hello", timeout=5) == b"hello"
    with pytest.raises(InvalidInput, match="another server answers there"):
        Server(Config(ServerConfig(listen=f"unix:{path}")), {})
    assert server.drain() == 0
    assert not path.exists()
    assert os.listdir(tmp_path) == []


def test_a_port_is_not_shared(start: Start) -> None:
    server, _, _ = start()
    with pytest.raises(InvalidInput, match="Address already in use"):
        Server(Config(ServerConfig(listen=server.address.target)), {})


def test_a_table_for_a_service_that_is_not_there() -> None:
    with pytest.raises(InvalidInput, match=r"\[services\]: unknown key 'plannning'; known are echo"):
        Server(Config(ServerConfig(listen="127.0.0.1:0"), {"plannning": {}}), {"echo": Echo().add})


def test_a_public_address_needs_tls_or_an_explicit_word() -> None:
    """192.0.2.1 is nobody's (RFC 5737): what may be listened on fails one step later."""
    public = {"listen": "192.0.2.1:8001"}
    with pytest.raises(
        InvalidInput, match=r"without TLS, where other machines can reach it: .* or --insecure"
    ):
        Server(Config(ServerConfig(**public)), {})
    with pytest.raises(InvalidInput, match=r"cannot listen on 192\.0\.2\.1:8001: Cannot assign"):
        Server(Config(ServerConfig(insecure=True, **public)), {})


def test_too_often(start: Start) -> None:
    _, _, channel = start(clients=ClientsConfig(requests_per_s=0.01, burst=3))
    answer = _answer(channel)
    for _ in range(3):
        answer(b"x", timeout=5)
    code, details = _code(lambda: answer(b"x", timeout=5))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "try again in" in details
    assert _code(lambda: list(channel.unary_stream(f"/{NAME}/Stream")(b"", timeout=5)))[0] is code
    assert _health(channel) == SERVING


def test_calls_that_send_nothing_make_room(start: Start) -> None:
    """Of more half-sent calls than there are threads, the oldest end and whole requests are answered."""
    _, _, channel = start(max_running=1, max_queued=0)
    waits = threading.Event()

    def nothing() -> Iterator[bytes]:
        waits.wait()
        return
        yield

    try:
        late = channel.stream_unary(f"/{NAME}/Answer")
        held = [late.future(nothing(), timeout=60) for _ in range(80)]
        assert _answer(channel)(b"hello", timeout=10) == b"hello"
        assert _health(channel) == SERVING
        until = time.monotonic() + 10
        while sum(call.done() for call in held) < 48 and time.monotonic() < until:
            time.sleep(0.02)
        ended = [call.code() for call in held if call.done()]
        assert 48 <= len(ended) <= 50  # the two that were answered were on their way for a moment themselves
        assert set(ended) == {grpc.StatusCode.CANCELLED}
    finally:
        waits.set()


def test_a_call_without_its_request(start: Start) -> None:
    _, _, channel = start()
    empty = channel.stream_unary(f"/{NAME}/Answer")
    assert _code(lambda: empty(iter(()), timeout=5)) == (
        grpc.StatusCode.UNIMPLEMENTED,
        f"expected one request of /{NAME}/Answer, got a call without any",
    )


def test_watchers_of_health_are_bounded_and_told(start: Start) -> None:
    server, _, channel = start()
    stub = health_pb2_grpc.HealthStub(channel)
    ask = health_pb2.HealthCheckRequest(service=NAME)
    watches = [stub.Watch(ask, timeout=60) for _ in range(MAX_WATCHERS)]
    assert [next(watch).status for watch in watches] == [SERVING] * MAX_WATCHERS
    code, details = _code(lambda: next(stub.Watch(ask, timeout=10)))
    assert (code, "at most 8 watchers" in details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
    assert _health(channel) == SERVING
    watches.pop().cancel()
    until = time.monotonic() + 10
    while time.monotonic() < until:  # the place is free once the server noticed
        try:
            fresh = stub.Watch(health_pb2.HealthCheckRequest(service="no.such"), timeout=60)
            assert next(fresh).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            break
        except grpc.RpcError:
            time.sleep(0.1)
    else:
        pytest.fail("no place for another watcher")
    fresh.cancel()
    assert server.drain() == 0
    assert next(watches[0]).status == NOT_SERVING
