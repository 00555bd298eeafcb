"""A client of `VideoService` with a camera's clock: each frame leaves when it is due, answered or not."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import grpc
import numpy as np

from trocar.bench.timing import Timing
from trocar.runtime.errors import InvalidInput
from trocar.v1 import video_pb2, video_pb2_grpc
from trocar.video.source import open_source

_JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True)
class Streamed:
    """What came back of one stream.

    Parameters
    ----------
    latencies_ms : from when a frame was due to when its answer was here, of the frames that were annotated.
    sent, failed, dropped : frames sent; answered with an error; let go by the server for newer ones.
    """

    latencies_ms: tuple[float, ...]
    sent: int
    failed: int
    dropped: int

    def row(self) -> dict[str, Any]:
        """One line of a table."""
        timing = Timing(self.latencies_ms)
        return {
            "sent": self.sent,
            "annotated": len(self.latencies_ms),
            "failed": self.failed,
            "dropped": self.dropped,
            "p50 ms": round(timing.percentile_ms(50), 1),
            "p99 ms": round(timing.percentile_ms(99), 1),
        }


def frames_of(clip: str) -> list[bytes]:
    """Return a clip's frames as JPEG, encoded beforehand so that the client does little while it measures."""
    source = open_source(clip)
    try:
        pictures = []
        for picture in source.pictures():
            image = np.empty((picture.height, picture.width, 3), np.uint8)
            picture.write(image)
            ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
            if not ok:
                raise InvalidInput(f"{clip}: a frame cannot be written as JPEG")
            pictures.append(data.tobytes())
    finally:
        source.close()
    return pictures


def stream(target: str, pictures: Sequence[bytes], *, fps: float, frames: int) -> Streamed:
    """Stream frames at a fixed rate and take their answers.

    Parameters
    ----------
    target : the server's address.
    pictures : JPEG, sent in turn.
    """
    due_s: list[float] = []

    def requests() -> Iterator[video_pb2.AnnotateRequest]:
        yield video_pb2.AnnotateRequest(settings=video_pb2.StreamSettings())
        start_s = time.perf_counter() + 0.1
        for index in range(frames):
            due_s.append(start_s + index / fps)
            time.sleep(max(0.0, due_s[index] - time.perf_counter()))
            frame = video_pb2.VideoFrame(id=index, jpeg=pictures[index % len(pictures)])
            yield video_pb2.AnnotateRequest(frame=frame)

    latencies_ms: list[float] = []
    failed = dropped = 0
    with grpc.insecure_channel(target) as channel:
        for reply in video_pb2_grpc.VideoServiceStub(channel).Annotate(requests()):
            took_ms = 1000 * (time.perf_counter() - due_s[reply.id])
            dropped = reply.dropped
            if reply.error:
                failed += 1
            else:
                latencies_ms.append(took_ms)
    return Streamed(tuple(latencies_ms), frames, failed, dropped)
