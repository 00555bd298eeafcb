"""Clients that flood: during each and after it another client is answered, within 200 MB of memory.

The floods are bounded in time and count, and kept to a few connections each.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import floods
import grpc
import numpy as np
import pytest
from certificates import authority
from floods import INFER, WATCH, Raw, message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hyperframe.frame import DataFrame, PingFrame

from trocar.inference_v2 import open_inference_pb2 as pb
from trocar.runtime.channel import Access, open_channel

MAX_GROWTH_MIB = 200
# A flood that is done, or is not let through any further, by then.
FLOOD_S = 15.0
BASE_MIB: dict[int, float] = {}
LEFT = np.arange(6, dtype=np.float32).reshape(1, 2, 3)


def _resident_mib(process: Any) -> float:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _require_answer(access: Access) -> None:
    """A connection of its own each time: the server has to take new ones, and to add up."""
    request = pb.ModelInferRequest(model_name="pair")
    for name, array in (("left", LEFT), ("right", LEFT + 1)):
        request.inputs.add(name=name, datatype="FP32", shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    with open_channel(access) as channel:
        infer = channel.unary_unary(
            INFER,
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        reply = infer(request, timeout=30, wait_for_ready=True)
        total = np.frombuffer(reply.raw_output_contents[0], np.float32).reshape(LEFT.shape)
        assert np.array_equal(total, 2 * LEFT + 1)
        check = health_pb2.HealthCheckRequest()
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert health.Check(check, timeout=30).status == health_pb2.HealthCheckResponse.SERVING


@contextmanager
def _survived(
    server: Any, access: Access, most_mib: float = MAX_GROWTH_MIB
) -> Iterator[Callable[[Callable[[], None], int], None]]:
    """Take attacks to run at once; the server answers during and after them, and stays within its memory."""
    _require_answer(access)
    # Of the first flood: they may not add up either.
    base = BASE_MIB.setdefault(server.process.pid, _resident_mib(server.process))
    peak, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            peak[0] = max(peak[0], _resident_mib(server.process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    attackers: list[threading.Thread] = []

    def attack(flood: Callable[[], None], connections: int) -> None:
        attackers.extend(threading.Thread(target=flood, daemon=True) for _ in range(connections))
        for each in attackers:
            each.start()

    try:
        yield attack
        until = time.monotonic() + FLOOD_S
        _require_answer(access)
        while any(each.is_alive() for each in attackers) and time.monotonic() < until:
            time.sleep(0.2)
            _require_answer(access)
        assert not any(each.is_alive() for each in attackers)
        _require_answer(access)
    finally:
        over.set()
        watcher.join()
    assert server.process.poll() is None
    assert peak[0] - base < most_mib


@pytest.fixture(scope="module")
def config(inference_repository: Path) -> str:
    served = f'services = "inference, video"\nrepository = "{inference_repository}"'
    return f'[server]\n{served}\nlog_level = "warning"\n'


@pytest.fixture(scope="module")
def victim(start_server: Any, config: str) -> Any:
    return start_server(config=config)


@pytest.fixture
def held() -> Iterator[list[Raw]]:
    """Connections that stay until the test is over."""
    connections: list[Raw] = []
    yield connections
    for each in connections:
        each.close()


# Flood, how much of it a connection sends, how many connections.
FRAMES = {
    "rapid reset": (floods.rapid_reset, 3000, 4),
    "headers without end": (floods.endless_headers, 2500, 10),
    "headers without end, by one who agreed to their limit": (floods.endless_headers_agreed, 2500, 10),
    "small headers that grow": (floods.header_bombs, 150, 4),
    "control frames": (floods.controls, 100_000, 4),
    "empty data": (floods.empty_data, 100_000, 4),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames(victim: Any, held: list[Raw], name: str) -> None:
    flood, count, connections = FRAMES[name]

    def run() -> None:
        held.append(Raw(victim.target))
        flood(held[-1], count)

    with _survived(victim, Access(victim.target)) as attack:
        attack(run, connections)


def test_as_many_connections_as_may_be_send_headers_without_end(start_server: Any, config: str) -> None:
    """Each may take 16 MB until it is refused (SECURITY.md); all of it is given back."""
    server = start_server(config=config)
    raws: list[Raw] = []

    def run() -> None:
        raws.append(Raw(server.target))
        floods.endless_headers(raws[-1], 2500)

    with _survived(server, Access(server.target), most_mib=20 * 64) as attack:
        attack(run, 60)
    for raw in raws:
        raw.close()
    until = time.monotonic() + 10
    while _resident_mib(server.process) - BASE_MIB[server.process.pid] > 100 and time.monotonic() < until:
        time.sleep(0.1)
    assert _resident_mib(server.process) - BASE_MIB[server.process.pid] <= 100


def _calls(victim: Any, held: list[Raw], path: str, each: Callable[[Raw, int], None]) -> Callable[[], None]:
    def run() -> None:
        raw = Raw(victim.target)
        held.append(raw)
        for number in range(90):
            raw.say(raw.call(2 * number + 1, path))
            each(raw, 2 * number + 1)
            raw.drain()

    return run


@pytest.mark.parametrize(
    "path",
    [
        INFER,
        "/inference.GRPCInferenceService/ModelStreamInfer",
        "/trocar.v1.VideoService/Annotate",
        "/grpc.health.v1.Health/Check",
        WATCH,
    ],
)
def test_calls_whose_request_never_comes(victim: Any, held: list[Raw], path: str) -> None:
    """More of them than there are threads: 360, and the server has 50."""
    with _survived(victim, Access(victim.target)) as attack:
        attack(_calls(victim, held, path, lambda *_: None), 4)


def test_requests_that_come_in_drops(victim: Any, held: list[Raw]) -> None:
    """Each claims 60 MB, and a few bytes come."""

    def drop(raw: Raw, stream: int) -> None:
        raw.say(DataFrame(stream, message(bytes(500), claims=60 << 20)))

    with _survived(victim, Access(victim.target)) as attack:
        attack(_calls(victim, held, INFER, drop), 4)


def test_watchers_of_health(victim: Any, held: list[Raw]) -> None:
    def watch(raw: Raw, stream: int) -> None:
        raw.say(DataFrame(stream, message(b""), flags=["END_STREAM"]))

    with _survived(victim, Access(victim.target)) as attack:
        attack(_calls(victim, held, WATCH, watch), 4)


def test_watchers_that_come_and_go(victim: Any, held: list[Raw]) -> None:
    def run() -> None:
        for _ in range(5):
            raw = Raw(victim.target)
            held.append(raw)
            for number in range(40):
                raw.say(raw.call(2 * number + 1, WATCH))
                raw.say(DataFrame(2 * number + 1, message(b""), flags=["END_STREAM"]))
            raw.close()

    with _survived(victim, Access(victim.target)) as attack:
        attack(run, 4)


def test_connections_that_say_little(victim: Any, held: list[Raw]) -> None:
    """Nothing, half a preface, a greeting and then silence."""

    def run() -> None:
        for number in range(40):
            raw = Raw(victim.target, greet=number % 3 == 0)
            held.append(raw)
            if number % 3 == 1:
                raw.say(floods.PREFACE[:10])

    with _survived(victim, Access(victim.target)) as attack:
        attack(run, 4)


def test_one_who_agrees_to_nothing_is_let_go(victim: Any, held: list[Raw]) -> None:
    """Until then only HTTP/2's own limits hold."""
    silent, agreed = Raw(victim.target), Raw(victim.target)
    held.extend((silent, agreed))
    floods.agree(agreed)
    begin = time.monotonic()
    silent.socket.settimeout(30.0)
    with suppress(ConnectionError):
        while silent.socket.recv(1 << 16):
            pass
    assert time.monotonic() - begin < 25.0
    agreed.say(PingFrame(0, b"and again"[:8]))
    assert b"and agai" in agreed.socket.recv(1 << 16)


def test_more_connections_than_may_be(start_server: Any, config: str, held: list[Raw]) -> None:
    """The surplus is closed, a client that was there first is served, a place that is left is given again."""
    server = start_server(config=f"{config}[server.clients]\nmax_connections = 8\n")
    with open_channel(Access(server.target)) as first:
        live = first.unary_unary("/inference.GRPCInferenceService/ServerLive")
        live(b"", timeout=30)
        held.extend(Raw(server.target) for _ in range(7))
        live(b"", timeout=30)
        surplus = [Raw(server.target) for _ in range(20)]
        held.extend(surplus)
        assert all(raw.closed() for raw in surplus)
        live(b"", timeout=30)
    for raw in held:
        raw.close()
    _require_answer(Access(server.target))


def test_lengths_that_are_claimed(victim: Any, held: list[Raw]) -> None:
    """A message of 4 GB is refused by its prefix."""

    def claim(raw: Raw, stream: int) -> None:
        raw.say(DataFrame(stream, message(bytes(500), claims=0xFFFFFFFF)))

    with _survived(victim, Access(victim.target)) as attack:
        attack(_calls(victim, held, INFER, claim), 4)


def test_zip_bombs(victim: Any, held: list[Raw]) -> None:
    """4 GB in 4 MB, twice at once: each may become `max_message_mib` and no more."""
    bomb = message(floods.zip_bomb(4 << 30), compressed=True)
    answers = []

    def run() -> None:
        raw = Raw(victim.target)
        held.append(raw)
        answers.append(floods.post(raw, INFER, bomb, (("grpc-encoding", "gzip"),)))

    with _survived(victim, Access(victim.target)) as attack:
        attack(run, 2)
    assert answers == ["8"] * 2  # RESOURCE_EXHAUSTED


def test_readers_that_do_not_read(victim: Any, held: list[Raw]) -> None:
    """Answers wait in the server only as far as the client's window goes."""
    request = pb.ModelMetadataRequest(name="pair").SerializeToString()

    def ask(raw: Raw, stream: int) -> None:
        raw.say(DataFrame(stream, message(request), flags=["END_STREAM"]))

    def run() -> None:
        raw = Raw(victim.target, receive_bytes=4096)
        held.append(raw)
        for number in range(90):
            path = "/inference.GRPCInferenceService/ModelMetadata"
            raw.say(raw.call(2 * number + 1, path))
            ask(raw, 2 * number + 1)

    with _survived(victim, Access(victim.target)) as attack:
        attack(run, 4)


def test_garbage_and_floods_before_tls(
    start_server: Any, config: str, tmp_path: Path, held: list[Raw]
) -> None:
    """Half handshakes, plain HTTP/2 and noise on a TLS port."""
    ours = authority()
    certificate, key = ours.sign("server")
    for name, content in (("server.pem", certificate), ("server.key", key)):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_bytes(content)
    tls = f'[server.tls]\ncertificate = "{tmp_path}/server.pem"\nkey = "{tmp_path}/server.key"\n'
    server = start_server(config=config + tls)
    hello = bytes.fromhex("160301020001000001fc0303")
    said = [
        hello + bytes(500),
        hello,
        b"\x16\x03\x01\xff\xff" + os.urandom(60_000),
        os.urandom(4096),
        b"\x15\x03\x01",
    ]

    def run() -> None:
        for number in range(40):
            raw = Raw(server.target, greet=number % 6 == 0)
            held.append(raw)
            raw.say(said[number % len(said)])

    with _survived(server, Access(server.target, ours.pem)) as attack:
        attack(run, 4)
    with open_channel(Access(server.target)) as plain, pytest.raises(grpc.RpcError):
        plain.unary_unary(INFER)(b"", timeout=10)


def test_none_of_it_was_an_internal_error(victim: Any) -> None:
    assert "Traceback" not in victim.log.read_text()


def test_the_peer_itself_speaks_http2(victim: Any) -> None:
    """Or none of the above would have been more than noise: a call made with it is answered."""
    raw = Raw(victim.target)
    assert floods.post(raw, "/inference.GRPCInferenceService/ServerLive", message(b"")) == "0"
    raw.close()
    assert isinstance(raw.socket, socket.socket)
