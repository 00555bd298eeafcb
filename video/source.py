"""Where frames come from: files, cameras and streams through PyAV, and rendered scenes.

INPUT is a file, `rtsp://...` or another address that FFmpeg opens, a camera such as `/dev/video0`, `test:`
(an endless test pattern), or `rendered:SEED[:SECONDS]`, a scripted clip of the renderer at 25 frames a
second.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

# Before PyAV: each brings a libxcb of its own, and with PyAV's first OpenCV's window hangs as it opens.
import cv2  # noqa: F401

# isort: split
import av
import av.error
import av.logging
import numpy as np
from av.video.reformatter import VideoReformatter

from trocar.runtime.address import shown
from trocar.runtime.errors import InvalidInput
from trocar.video.frames import UInt8Array

_T = TypeVar("_T")
RENDERED = "rendered:"
RENDERED_FPS = 25
RENDERED_SECONDS = 6
RENDERED_HEIGHT, RENDERED_WIDTH = 432, 768
MAX_PIXELS = 8192 * 4320
_CAMERA = "/dev/video"
PATTERN = "test:"
# FFmpeg's own pattern, which moves and counts; played at its pace as a camera would be.
_PATTERN_GRAPH = "testsrc2=size=1280x720:rate=25,realtime"
# An address answers within the first; a socket of it is never silent for longer than the second.
_OPEN_S, _SILENT_S = 10.0, 6.0
_CLOSE_S = 0.5
_SAME_S = 0.001
# Protocols whose servers say how long a recording is; without that it is a camera's, and has no end.
_ENDLESS = ("rtsp://", "rtsps://")
# A stream with more than this many frames in a row that cannot be decoded is not a stream any more.
_MAX_CORRUPT = 250


class Picture(Protocol):
    """A decoded picture that can be written where the caller wants it."""

    pts_s: float
    height: int
    width: int

    def write(self, image_bgr: UInt8Array) -> None:
        """Write (height, width, 3) uint8 BGR."""


class Source(Protocol):
    """An open input. `pictures` may be taken once.

    Parameters
    ----------
    name : as the caller gave it, without secrets.
    live : whether it sets its own pace and cannot wait.
    fps : frames a second as the container says; None where it does not.
    frames : how many there are as the container says; None where it does not.
    corrupt : frames that could not be decoded so far.
    broke_off : why the stream ended before its end; empty where it did not.
    """

    name: str
    live: bool
    fps: float | None
    frames: int | None
    corrupt: int
    broke_off: str

    def pictures(self) -> Iterator[Picture]:
        """Yield the pictures in order of showing; times never go back."""

    def close(self) -> None:
        """Let the input go."""


def open_source(name: str) -> Source:
    """Open an input.

    Raises
    ------
    InvalidInput
        It cannot be read, has no video, or has frames larger than this program takes.
    """
    if name.startswith(RENDERED):
        return _RenderedSource(name)
    return _AvSource(name)


class _AvPicture:
    __slots__ = ("_frame", "_reformatter", "height", "pts_s", "width")

    def __init__(self, frame: av.VideoFrame, pts_s: float, reformatter: VideoReformatter) -> None:
        self.pts_s = pts_s
        self.height, self.width = frame.height, frame.width
        self._frame, self._reformatter = frame, reformatter

    def write(self, image_bgr: UInt8Array) -> None:
        plane = self._reformatter.reformat(self._frame, format="bgr24").planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        np.copyto(image_bgr.reshape(self.height, -1), rows[: self.height, : 3 * self.width])


class _AvSource:
    def __init__(self, name: str) -> None:
        self.name, self._address = shown(name), name
        self.live = "://" in name or name.startswith(_CAMERA) or name == PATTERN
        self.corrupt, self.broke_off = 0, ""
        # What was read of the file, shown or not: an edit list leaves frames out that are there.
        self._packets = 0
        # FFmpeg's own lines on stderr say less than the one error that comes of them.
        av.logging.set_level(av.logging.PANIC)
        if not self.live and not Path(name).is_file():
            raise InvalidInput(f"expected a video file, a camera or an address, got {name}: no such file")
        begun_s = time.monotonic()
        try:
            self._container = _opened(name)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            why = _text(error)
            # FFmpeg has as many words for this as it has protocols.
            if self.live and (waited_s := time.monotonic() - begun_s) >= _SILENT_S:
                why = f"no picture within {waited_s:.0f} s"
            raise InvalidInput(
                f"{self.name}: expected a video, got something that cannot be read: {why}"
            ) from None  # PyAV's error holds the whole address
        try:
            self._stream = self._video_stream()
        except InvalidInput:
            self._container.close()
            raise
        # Held by whoever reads: what is being read cannot be closed.
        self._reading, self._closed = threading.Lock(), False
        rate = self._stream.average_rate
        self.fps = float(rate) if rate else None
        self.frames = self._frame_count()

    def pictures(self) -> Iterator[Picture]:
        reformatter = VideoReformatter()
        first_s: float | None = None
        last_s = -math.inf
        for frame in self._frames():
            pts_s = math.nan if frame.time is None else frame.time
            if first_s is None and not math.isnan(pts_s):
                # RTSP tells the time of its first pictures after them.
                first_s = pts_s if last_s == -math.inf else pts_s - last_s - self._step_s(math.nan)
            pts_s -= first_s or 0.0
            if not pts_s > last_s:
                pts_s = 0.0 if last_s == -math.inf else last_s + self._step_s(pts_s - last_s)
            last_s = pts_s
            if frame.width * frame.height > MAX_PIXELS:
                raise InvalidInput(
                    f"{self.name}: expected frames of at most {MAX_PIXELS} pixels, "
                    f"got {frame.width} x {frame.height}"
                )
            yield _AvPicture(frame, pts_s, reformatter)
        if not self.broke_off and self._cut_short(last_s):
            self.broke_off = "the other side ended it"
        promised = self._stream.frames
        if not self.broke_off and not self._closed and self._packets < promised:
            self.broke_off = f"expected {promised} frames as the file says, got {self._packets}"

    def close(self) -> None:
        self._closed = True
        if self._reading.acquire(timeout=_CLOSE_S):
            self._let_go()
            self._reading.release()
        # Else a thread waits for a camera that is silent, and lets it go when that has come to an end.

    def _let_go(self) -> None:
        with contextlib.suppress(av.error.FFmpegError):
            self._container.close()

    def _step_s(self, back_s: float) -> float:
        """How far to go on from the last time where the stream has none, or goes back by so much."""
        frame_s = 1.0 / (self.fps or 25.0)
        # A picture that came twice, as parts of one do, must not push on all that follow.
        return _SAME_S if -frame_s < back_s <= 0 else frame_s

    def _cut_short(self, last_s: float) -> bool:
        """Whether the end of a stream was none: FFmpeg takes a server that dies for one that has finished."""
        if self._closed or not self._address.startswith(_ENDLESS):
            return False
        length = self._container.duration
        return length is None or last_s < length / av.time_base - 1.0

    def _video_stream(self) -> Any:
        if not self._container.streams.video:
            raise InvalidInput(f"{self.name}: expected a video stream, found none")
        stream = self._container.streams.video[0]
        if stream.codec_context is None:
            raise InvalidInput(
                f"{self.name}: expected a codec that can be decoded, got one that is not known"
            )
        if stream.codec_context.name == "mjpeg":
            # A damaged picture is shown as it comes otherwise, and nobody is told.
            stream.codec_context.options = {"err_detect": "explode"}
        # Frame threads would each hold a picture back; slices do not.
        stream.thread_type = "SLICE" if self.live else "AUTO"
        return stream

    def _frame_count(self) -> int | None:
        if self._stream.frames:
            return int(self._stream.frames)
        if self._stream.duration and self._stream.time_base and self.fps:
            return round(float(self._stream.duration * self._stream.time_base) * self.fps)
        return None

    def _frames(self) -> Iterator[av.VideoFrame]:
        """Decode; a damaged packet costs its own frame only."""
        packets = self._container.demux(self._stream)
        in_a_row = 0
        while True:
            with self._reading:
                frames, error = self._next(packets)
                if self._closed:
                    self._let_go()
                    return
            if frames is None:
                if error is not None:
                    silent = isinstance(error, (av.error.ExitError, TimeoutError))
                    self.broke_off = f"nothing came for {_SILENT_S:g} s" if silent else _text(error)
                return
            for frame in frames:
                if frame.is_corrupt:  # painted over from others where its bits were lost
                    self.corrupt += 1
                else:
                    yield frame
            if error is None:
                in_a_row = 0
                continue
            self.corrupt += 1
            in_a_row += 1
            if in_a_row > _MAX_CORRUPT:
                self.broke_off = f"{in_a_row} frames in a row could not be decoded: {_text(error)}"
                return

    def _next(self, packets: Iterator[Any]) -> tuple[list[av.VideoFrame] | None, Exception | None]:
        """Read a packet: its frames, none and why where it is damaged; None, and why it broke, at the end."""
        if self._closed:
            return None, None
        try:
            packet = next(packets)
        except (StopIteration, av.error.EOFError):
            return None, None
        except (av.error.FFmpegError, OSError) as error:
            return None, error
        self._packets += packet.size > 0
        try:
            return packet.decode(), None
        except av.error.EOFError:
            return None, None
        except av.error.FFmpegError as error:
            return [], error


def _opened(name: str) -> av.container.InputContainer:
    if name == PATTERN:
        return av.open(_PATTERN_GRAPH, format="lavfi")
    if name.startswith(_CAMERA):
        # FFmpeg waits for a camera's first picture without a time-out.
        return _within(_OPEN_S, lambda: av.open(name, format="v4l2"))
    if "://" not in name:
        return av.open(name)
    # Nothing is read ahead to measure the rate of frames: it would be a second that comes too late.
    options = {"fpsprobesize": "0"}
    if name.startswith(_ENDLESS):
        # Of the socket, in microseconds. After it FFmpeg asks for TCP where no UDP has come through.
        options["timeout"] = str(round(1e6 * _SILENT_S))
    return av.open(name, options=options, timeout=(_OPEN_S, _SILENT_S))


def _within(seconds: float, call: Callable[[], _T]) -> _T:
    """Call what may hang for ever; its thread is then left behind."""
    found: Future[_T] = Future()

    def run() -> None:
        try:
            found.set_result(call())
        except Exception as error:
            found.set_exception(error)

    threading.Thread(target=run, name="video-open", daemon=True).start()
    return found.result(seconds)


@dataclass(slots=True)
class _RenderedPicture:
    pts_s: float
    height: int
    width: int
    image_rgb: UInt8Array

    def write(self, image_bgr: UInt8Array) -> None:
        np.copyto(image_bgr, self.image_rgb[..., ::-1])


class _RenderedSource:
    """The renderer as a camera, for demonstrations and tests."""

    def __init__(self, name: str) -> None:
        seed, _, seconds = name.removeprefix(RENDERED).partition(":")
        try:
            self._seed, length_s = int(seed), float(seconds or RENDERED_SECONDS)
            if self._seed < 0 or not 0 < length_s <= 3600:
                raise ValueError
        except ValueError as error:
            raise InvalidInput(f"expected {RENDERED}SEED or {RENDERED}SEED:SECONDS, got {name}") from error
        self.name, self.live, self.corrupt, self.broke_off = name, False, 0, ""
        self.fps: float | None = float(RENDERED_FPS)
        self.frames: int | None = max(1, round(length_s * RENDERED_FPS))

    def pictures(self) -> Iterator[Picture]:
        from trocar.video.annotator.renderer import render_clip

        assert self.frames is not None
        shape = (RENDERED_HEIGHT, RENDERED_WIDTH)
        frames = render_clip(self._seed, self.frames, RENDERED_FPS, shape)
        for index, frame in enumerate(frames):
            yield _RenderedPicture(index / RENDERED_FPS, *shape, frame.scene.image_rgb)

    def close(self) -> None:
        pass


def _text(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).partition("\n")[0]
