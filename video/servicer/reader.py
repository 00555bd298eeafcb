"""A client's frames: read in a thread, decoded into slots, measured, handed over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from trocar.runtime.errors import InvalidInput
from trocar.v1 import video_pb2
from trocar.video.frames import Frame, Quality, UInt8Array
from trocar.video.pipeline import Rings
from trocar.video.quality import Inspector
from trocar.video.ring import Slot
from trocar.video.servicer.hub import Stream
from trocar.video.servicer.messages import quality_of
from trocar.video.servicer.pictures import DamagedPicture, Decoded, PictureReader

# One waits for the model, one is in it, eight answers wait for a slow reader, one is sent, one is decoded.
_SLOTS = 12
_NO_IMAGE: UInt8Array = np.empty((0, 0, 3), np.uint8)


class Reader:
    """Reads a stream's frames in a thread: gRPC hands requests out by blocking."""

    def __init__(
        self,
        stream: Stream,
        requests: Iterator[video_pb2.AnnotateRequest],
        max_megapixels: float,
    ) -> None:
        self._stream, self._requests, self._max_megapixels = stream, requests, max_megapixels
        self._rings, self._inspect, self._index = Rings(_SLOTS), Inspector(), 0
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="video-reader", daemon=True)
        self._thread.start()

    def raise_error(self) -> None:
        """Raise what ended the reading, if it was not the client's leaving."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:  # raised again by the thread that answers
            self._error = error
        finally:
            self._stream.finish()

    def _received(self) -> Iterator[video_pb2.AnnotateRequest]:
        while True:
            try:
                yield next(self._requests)
            except StopIteration:
                return
            except Exception:  # gRPC's way to say that the call is over
                return

    def _read(self) -> None:
        pictures = PictureReader()
        for request in self._received():
            if request.WhichOneof("content") != "frame":
                raise InvalidInput("expected a frame after the settings, got something else")
            sent = request.frame
            self._stream.form = sent.WhichOneof("picture") or ""
            received_s = time.monotonic()
            try:
                found = pictures.read(sent)
            except DamagedPicture as error:
                self._refuse(sent.id, sent.pts_us, received_s, error)
                continue
            for one in found:
                received_s = self._offer(sent, one, received_s)

    def _offer(self, sent: video_pb2.VideoFrame, picture: Decoded, received_s: float) -> float:
        """Decode a picture and hand it over; returns when that was done."""
        number, pts_us, (height, width), write = picture
        if height * width > 1e6 * self._max_megapixels:
            raise InvalidInput(
                f"expected frames of at most {self._max_megapixels:g} megapixels "
                f"(max_megapixels), got {width} x {height}"
            )
        slot = self._rings.slot(height, width, timeout_s=1.0)
        if slot is None:
            self._stream.lose()
            return received_s
        try:
            write(slot.image_bgr)
            now_s = time.monotonic()
            frame = Frame(self._index, pts_us / 1e6, now_s, slot.image_bgr, received_at_s=received_s)
            frame = replace(frame, quality=_quality(sent, number, slot, self._inspect))
            self._index += 1
            self._stream.offer(number, frame, slot)
            return now_s
        except DamagedPicture as error:
            self._refuse(number, pts_us, received_s, error)
            return time.monotonic()
        finally:
            slot.release()

    def _refuse(self, number: int, pts_us: int, received_s: float, error: DamagedPicture) -> None:
        frame = Frame(self._index, pts_us / 1e6, time.monotonic(), _NO_IMAGE, received_at_s=received_s)
        self._index += 1
        self._stream.refuse(number, frame, str(error))


def _quality(sent: video_pb2.VideoFrame, number: int, slot: Slot, inspect: Inspector) -> Quality:
    """The client's own measure where it came with this very picture: H.264 may give another one first."""
    if sent.HasField("quality") and number == sent.id:
        return quality_of(sent.quality)
    return inspect(slot.image_bgr)
