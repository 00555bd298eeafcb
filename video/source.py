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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import av
import av.error
import av.logging
import numpy as np
from av.video.reformatter import VideoReformatter

from trocar.runtime.errors import InvalidInput
from trocar.video.frames import UInt8Array

RENDERED = "rendered:"
RENDERED_FPS = 25
RENDERED_SECONDS = 6
RENDERED_HEIGHT, RENDERED_WIDTH = 432, 768
MAX_PIXELS = 8192 * 4320
_CAMERA = "/dev/video"
PATTERN = "test:"
# FFmpeg's own pattern, which moves and counts; played at its pace as a camera would be.
_PATTERN_GRAPH = "testsrc2=size=1280x720:rate=25,realtime"
_TIMEOUT_S = 10.0
_LONGEST_REST_S = 0.02
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
    name : as the caller gave it.
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
        self.name = name
        self.live = "://" in name or name.startswith(_CAMERA) or name == PATTERN
        self.corrupt, self.broke_off = 0, ""
        # FFmpeg's own lines on stderr say less than the one error that comes of them.
        av.logging.set_level(av.logging.PANIC)
        if not self.live and not Path(name).is_file():
            raise InvalidInput(f"expected a video file, a camera or an address, got {name}: no such file")
        try:
            self._container = _opened(name)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise InvalidInput(
                f"{name}: expected a video, got something that cannot be read: {_text(error)}"
            ) from error
        try:
            self._stream = self._video_stream()
        except InvalidInput:
            self._container.close()
            raise
        rate = self._stream.average_rate
        self.fps = float(rate) if rate else None
        self.frames = self._frame_count()

    def pictures(self) -> Iterator[Picture]:
        reformatter = VideoReformatter()
        first_s: float | None = None
        last_s = -math.inf
        for frame in self._frames():
            pts_s = frame.time if frame.time is not None else math.nan
            if first_s is None and not math.isnan(pts_s):
                first_s = pts_s
            pts_s = pts_s - (first_s or 0.0)
            # Times that are missing or go back would break every consumer's order: one frame time instead.
            if not pts_s > last_s:
                pts_s = 0.0 if last_s == -math.inf else last_s + 1.0 / (self.fps or 25.0)
            last_s = pts_s
            if frame.width * frame.height > MAX_PIXELS:
                raise InvalidInput(
                    f"{self.name}: expected frames of at most {MAX_PIXELS} pixels, "
                    f"got {frame.width} x {frame.height}"
                )
            yield _AvPicture(frame, pts_s, reformatter)

    def close(self) -> None:
        with contextlib.suppress(av.error.FFmpegError):
            self._container.close()

    def _video_stream(self) -> Any:
        if not self._container.streams.video:
            raise InvalidInput(f"{self.name}: expected a video stream, found none")
        stream = self._container.streams.video[0]
        if stream.codec_context is None:
            raise InvalidInput(
                f"{self.name}: expected a codec that can be decoded, got one that is not known"
            )
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
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError) as error:
                if isinstance(error, av.error.EOFError):
                    return
                self.broke_off = _text(error)
                return
            try:
                yield from packet.decode()
                in_a_row = 0
            except av.error.EOFError:
                return
            except av.error.FFmpegError as error:
                self.corrupt += 1
                in_a_row += 1
                if in_a_row > _MAX_CORRUPT:
                    self.broke_off = f"{in_a_row} frames in a row could not be decoded: {_text(error)}"
                    return


def _opened(name: str) -> av.container.InputContainer:
    if name == PATTERN:
        return av.open(_PATTERN_GRAPH, format="lavfi")
    return av.open(name, format="v4l2" if name.startswith(_CAMERA) else None, timeout=_TIMEOUT_S)


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


def paced(pictures: Iterator[Picture], stop: threading.Event, fps: float | None = None) -> Iterator[Picture]:
    """Yield each picture when its time has come: a file played as a camera would deliver it.

    With `fps` the next one is decoded half a frame's time before it is due, and not while the last one is
    in work. `stop` ends a wait, however long a gap the file has.
    """
    # Where a file's frames come unevenly, half of the usual time may be long.
    rest_s = min(0.5 / fps, _LONGEST_REST_S) if fps else 0.0
    begun_s: float | None = None
    for picture in pictures:
        if begun_s is None:
            begun_s = time.monotonic() - picture.pts_s
        if (left_s := begun_s + picture.pts_s - time.monotonic()) > 0:
            stop.wait(left_s)
        yield picture
        if (left_s := begun_s + picture.pts_s + rest_s - time.monotonic()) > 0:
            stop.wait(left_s)


def _text(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).partition("\n")[0]
