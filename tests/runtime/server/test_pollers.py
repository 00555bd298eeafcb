"""gRPC's threads: a server of the test's own, on a port of its own."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from trocar.runtime.server import pollers, reading
from trocar.runtime.server.intake import LARGE_BYTES, Intake
from trocar.runtime.server.pollers import Pollers
from trocar.runtime.server.reading import Reading

METHODS = ("/t/short", "/t/long")


class Service:
    """Answers with the name of its thread; `hold` is answered when it is told to."""

    def __init__(self) -> None:
        self.go, self.inside = threading.Event(), threading.Semaphore(0)
        self.read: Callable[[bytes], Any] = lambda data: data
        self.write: Callable[[Any], bytes] = lambda answer: answer
        self.answer: Callable[[Any, Any], bytes] | None = None

    def __call__(self, request: Any, context: grpc.ServicerContext) -> bytes:
        if self.answer is not None:
            return self.answer(request, context)
        if request == b"fail":
            raise ValueError("no such thing")
        if request == b"abort":
            context.abort(grpc.StatusCode.NOT_FOUND, "not here")
        if request == b"hold":
            self.inside.release()
            self.go.wait(20)
            return b"active" if context.is_active() else b"gone"
        return threading.current_thread().name.encode()


Start = Callable[..., tuple[Service, grpc.Channel, grpc.Server]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server."""
    ends: list[Callable[[], Any]] = []

    def run() -> tuple[Service, grpc.Channel, grpc.Server]:
        service, waiting, intake = Service(), Reading(), Intake(patience_s=20.0)
        pool = Pollers(4, short=METHODS[:1], reading=waiting, intake=intake)
        options = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1))
        server = grpc.server(pool, options=options, maximum_concurrent_rpcs=8)
        handler = grpc.unary_unary_rpc_method_handler(
            service, lambda data: service.read(data), lambda answer: service.write(answer)
        )
        methods = {"short": handler, "long": handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        pool.start(server)
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        channel.target = f"127.0.0.1:{port}"  # type: ignore[attr-defined]
        ends.extend(
            (service.go.set, channel.close, lambda: server.stop(5).wait(), waiting.close, intake.close)
        )
        return service, channel, server

    yield run
    for end in ends:
        end()


def _call(channel: grpc.Channel, request: bytes, method: str = METHODS[0]) -> Any:
    return channel.unary_unary(method).future(request, timeout=20)


def test_this_grpcio_is_known_inside() -> None:
    """Where this fails, look at what changed in `grpc._server`: until then requests take the longer way."""
    assert pollers.known()


def test_a_short_method_runs_where_it_was_taken(start: Start) -> None:
    _, channel, _ = start()
    for _ in range(20):
        assert not _call(channel, b"").result().startswith(b"rpc")
        assert _call(channel, b"", METHODS[1]).result().startswith(b"rpc")


def test_a_large_message_runs_in_the_pool(start: Start) -> None:
    _, channel, _ = start()
    for size in (LARGE_BYTES, 2 * LARGE_BYTES):
        assert _call(channel, bytes(size)).result().startswith(b"rpc")
    assert not _call(channel, bytes(LARGE_BYTES - 1)).result().startswith(b"rpc")


def test_a_message_is_gone_before_its_answer_is_sent(start: Start) -> None:
    """Else the client's next could be there beside it."""
    service, channel, _ = start()

    class Message:
        """Can be told to be gone, which bytes cannot."""

    seen: list[Any] = []

    def read(_: bytes) -> Message:
        message = Message()
        seen.append(weakref.ref(message))
        return message

    def write(_: bytes) -> bytes:
        return b"there" if seen[-1]() else b"gone"

    service.read, service.write = read, write
    for method in METHODS:
        for _ in range(3):
            assert _call(channel, b"", method).result() == b"gone"


@pytest.mark.parametrize("aborts", [False, True])
def test_a_request_that_failed_holds_nothing(
    start: Start, aborts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Not until the collector comes round: a region of shared memory would stay mapped."""
    caplog.set_level(logging.CRITICAL, "grpc._server")  # what is captured of an error holds it
    service, channel, _ = start()

    class Region:
        """Can be told to be gone."""

    seen: list[Any] = []

    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        region = Region()
        seen.append(weakref.ref(region))
        if aborts:
            context.abort(grpc.StatusCode.NOT_FOUND, "not here")
        raise ValueError(region)

    service.answer = answer
    gc.disable()
    try:
        for method in METHODS:
            with pytest.raises(grpc.RpcError):
                _call(channel, b"", method).result()
        until = time.monotonic() + 10
        while any(each() for each in seen) and time.monotonic() < until:
            time.sleep(0.01)
        assert len(seen) == 2
        assert not any(each() for each in seen)
    finally:
        gc.enable()


class Counted:
    """Counts messages that are in work at once."""

    def __init__(self) -> None:
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def __call__(self, _: bytes, __: grpc.ServicerContext) -> bytes:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.005)
        with self.lock:
            self.now -= 1
        return b""


def test_large_messages_are_let_in_a_few_at_a_time(start: Start) -> None:
    service, channel, _ = start()
    counted = Counted()
    service.answer = counted
    large = bytes(9 << 20)
    _call(channel, large).result()  # how large they are shows with the first
    for call in [_call(channel, large) for _ in range(8)]:
        assert call.result() == b""
    assert counted.most <= 2  # of four threads, and one's own


def test_events_are_taken_while_short_methods_take_long(start: Start) -> None:
    service, channel, _ = start()
    held = [_call(channel, b"hold") for _ in range(3)]
    for _ in held:
        assert service.inside.acquire(timeout=20)
    assert _call(channel, b"").result().startswith(b"rpc")
    held[0].cancel()
    service.go.set()
    assert {call.result() for call in held[1:]} == {b"active"}


def test_a_stand_in_goes_when_it_is_not_needed(start: Start) -> None:
    """One thread takes what comes, but for the time in which it runs a method."""
    service, channel, _ = start()
    leader = _call(channel, b"").result()
    for _ in range(3):
        held = _call(channel, b"hold")
        assert service.inside.acquire(timeout=20)
        assert _call(channel, b"").result().startswith(b"rpc")  # the place is taken
        service.go.set()
        assert held.result() == b"active"
        service.go.clear()
        deadline = time.monotonic() + 20
        while (took := _call(channel, b"").result()) != leader:
            assert took == b"stand-in"
            assert time.monotonic() < deadline
        assert [_call(channel, b"").result() for _ in range(20)] == 20 * [leader]


def test_statuses_and_failures(start: Start) -> None:
    _, channel, _ = start()
    for method in METHODS:
        for request, code in ((b"fail", grpc.StatusCode.UNKNOWN), (b"abort", grpc.StatusCode.NOT_FOUND)):
            for _ in range(3):  # the thread goes on
                assert _call(channel, request, method).code() is code
    missing = _call(channel, b"", "/t/none").code()
    assert missing is grpc.StatusCode.UNIMPLEMENTED
    nothing = channel.stream_unary(METHODS[0]).future(iter(()), timeout=20)
    assert (nothing.code(), "got a call without any" in nothing.details()) == (
        grpc.StatusCode.UNIMPLEMENTED,
        True,
    )


def test_no_more_calls_at_once_than_may_be(start: Start) -> None:
    service, channel, _ = start()
    held = [_call(channel, b"hold") for _ in range(5)]  # one in place, four in the pool
    for _ in held:
        assert service.inside.acquire(timeout=20)
    more = [_call(channel, b"hold") for _ in range(4)]
    refused: list[Any] = []
    deadline = time.monotonic() + 20
    while not refused and time.monotonic() < deadline:
        refused = [call for call in more if call.done()]
        time.sleep(0.05)
    assert {call.code() for call in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    service.go.set()
    answered = [call for call in (*held, *more) if call not in refused]
    assert {call.result() for call in answered} == {b"active"}


def test_calls_without_a_message_hold_no_thread_and_make_room(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST", 4)
    _, channel, _ = start()
    waiting = threading.Event()

    def never() -> Iterator[bytes]:
        waiting.wait(20)
        yield from ()

    silent = [channel.stream_unary(METHODS[0]).future(never(), timeout=20) for _ in range(6)]
    assert _call(channel, b"").result()
    assert _call(channel, b"", METHODS[1]).result().startswith(b"rpc")
    deadline = time.monotonic() + 20
    while sum(call.done() for call in silent) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    gone = [call for call in silent if call.done()]
    assert 2 <= len(gone) < len(silent)
    assert {call.code() for call in gone} == {grpc.StatusCode.CANCELLED}
    waiting.set()


def test_a_client_that_vanishes(start: Start) -> None:
    _, channel, _ = start()
    port = int(channel.target.rpartition(":")[2])  # type: ignore[attr-defined]
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port)) as wire:
            wire.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        assert _call(channel, b"").result()


def test_stopping_waits_for_what_runs(start: Start) -> None:
    service, channel, server = start()
    held = _call(channel, b"hold")
    assert service.inside.acquire(timeout=20)
    ended = server.stop(20)
    service.go.set()
    assert held.result() == b"active"
    assert ended.wait(20)


def test_another_grpcio_serves_as_it_always_did(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pollers, "known", lambda: False)
    _, channel, _ = start()
    for method in METHODS:
        assert _call(channel, b"", method).result().startswith(b"rpc")


def test_without_timers_of_the_system_grpc_serves_by_itself(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pollers.alarm, "exist", lambda: False)
    assert not pollers.known()
    _, channel, _ = start()
    assert _call(channel, b"").result().startswith(b"rpc")


@pytest.mark.parametrize("name", list(pollers._PARAMETERS))
def test_what_counts_as_another(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pollers._server, name, lambda *novelty: novelty)
    assert not pollers.known()
    monkeypatch.delattr(pollers._server, name)
    assert not pollers.known()
