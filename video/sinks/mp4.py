"""The picture as shown, in H.264: plays everywhere, times as in the source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import av.error
import cv2
import numpy as np

from trocar.runtime.errors import InvalidInput
from trocar.video.frames import Shown
from trocar.video.sinks.base import Stream, Whole, writing

# Fine enough for every frame rate there is, and what MP4 players expect.
_TIME_BASE = Fraction(1, 90_000)
_OPTIONS = {"preset": "veryfast", "crf": "20"}


class Mp4Sink:
    """Overlay video. A picture of another size than the first is fitted into the first one's."""

    def __init__(self, path: Path, stream: Stream) -> None:
        self._file = Whole(path)
        # yuv420p has a colour a square of four pixels: sides must be even.
        self._height, self._width = stream.height & ~1, stream.width & ~1
        if not self._height or not self._width:
            raise InvalidInput(f"{path.name}: expected frames of 2 x 2 pixels at least for H.264")
        self._last = -1
        with self._saying():
            self._container = av.open(str(self._file.partial), "w", format="mp4")
            rate = Fraction(stream.fps).limit_denominator(1001)
            self._video = self._container.add_stream("libx264", rate=rate, options=_OPTIONS)
            self._video.height, self._video.width = self._height, self._width
            self._video.pix_fmt = "yuv420p"
            self._video.time_base = _TIME_BASE
            self._video.codec_context.time_base = _TIME_BASE

    def write(self, shown: Shown) -> None:
        """Encode a frame."""
        image = shown.image_bgr
        if image.shape[0] & ~1 != self._height or image.shape[1] & ~1 != self._width:
            image = np.asarray(cv2.resize(image, (self._width, self._height)), np.uint8)
        image = np.ascontiguousarray(image[: self._height, : self._width])
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        # Two frames of one time cannot be in a file.
        self._last = max(self._last + 1, round(shown.frame.pts_s / float(_TIME_BASE)))
        frame.pts, frame.time_base = self._last, _TIME_BASE
        with self._saying():
            self._container.mux(self._video.encode(frame))

    def close(self) -> tuple[Path, ...]:
        """Flush, write the index, publish."""
        with self._saying():
            self._container.mux(self._video.encode(None))
            self._container.close()
        return self._file.publish()

    def abandon(self) -> None:
        """Remove the partial file."""
        with suppress(av.error.FFmpegError, OSError):
            self._container.close()
        self._file.remove()

    @contextmanager
    def _saying(self) -> Iterator[None]:
        try:
            with writing(self._file.path):
                yield
        except av.error.FFmpegError as error:  # not all of them are the system's
            raise InvalidInput(
                f"cannot write {self._file.path}: {error.strerror}; nothing was kept of it"
            ) from error
