"""`VideoService`: frames in, annotations out, one stream a client."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import grpc

from trocar.runtime.errors import InvalidInput
from trocar.runtime.repository.store import Repository
from trocar.runtime.server.services import ServiceContext
from trocar.v1 import video_pb2, video_pb2_grpc
from trocar.video.config import VideoConfig, read_config
from trocar.video.frames import Frame, Quality
from trocar.video.pipeline import Rings
from trocar.video.quality import Inspector
from trocar.video.remote import WorkerSpec
from trocar.video.ring import Slot
from trocar.video.segmenter import MODEL, Recipe, recipe
from trocar.video.servicer.hub import Hub, Stream
from trocar.video.servicer.messages import quality_of, reply_message
from trocar.video.servicer.pictures import PictureReader

SERVICE_NAME = video_pb2.DESCRIPTOR.services_by_name["VideoService"].full_name
# One waits for the model, one is in it, eight answers wait for a slow reader, one is sent, one is decoded.
_SLOTS = 12


class VideoServicer(video_pb2_grpc.VideoServiceServicer):
    """The service. Models start with their first stream and stay."""

    def __init__(self, config: VideoConfig, repository: Repository) -> None:
        self._config, self._repository = config, repository
        self._lock = threading.Lock()
        self._hubs: dict[str, tuple[Hub, Recipe]] = {}

    def Annotate(  # noqa: N802
        self,
        requests: Iterator[video_pb2.AnnotateRequest],
        context: Any,  # noqa: ARG002 (what gRPC calls)
    ) -> Iterator[video_pb2.AnnotateReply]:
        """Annotate one stream."""
        asked = _settings(requests)
        hub, how = self._hub(asked.model or MODEL)
        hub.remote.wait_ready()
        stream = hub.join()
        idle_s = min(asked.keep_alive_ms / 1000 or self._config.idle_s, self._config.idle_s)
        reader = _Reader(stream, requests, self._config.max_megapixels)
        try:
            yield from self._replies(stream, asked, hub, how, idle_s)
        finally:
            hub.leave(stream)
            # The reader waits for a request that may never come; the call's end wakes it.
        reader.raise_error()

    def close(self) -> None:
        """End the models' processes."""
        with self._lock:
            for hub, _ in self._hubs.values():
                hub.close()
            self._hubs.clear()

    def _replies(
        self, stream: Stream, asked: video_pb2.StreamSettings, hub: Hub, how: Recipe, idle_s: float
    ) -> Iterator[video_pb2.AnnotateReply]:
        first = True
        for answer in stream.answers(idle_s=idle_s):
            try:
                reply = reply_message(answer, asked.masks)
            finally:
                answer.slot.release()
            if first:
                reply.classes.extend(how.classes)
                reply.object_from, reply.device = how.object_from, hub.remote.device
                first = False
            yield reply

    def _hub(self, model: str) -> tuple[Hub, Recipe]:
        with self._lock:
            if model not in self._hubs:
                found = self._repository.open(model)
                how = recipe(found.manifest)
                config = self._config
                arguments = {
                    "model": model,
                    "repository": str(self._repository.root),
                    "version": found.manifest.version,
                    "threads": config.threads,
                    "device": config.device,
                }
                spec = WorkerSpec("trocar.video.segmenter:open_segmenter", arguments)
                hub = Hub(spec, config.watchdog, config.tracker, config.max_streams)
                self._hubs[model] = hub, how
            return self._hubs[model]


class _Reader:
    """Reads a stream's frames in a thread: gRPC hands requests out by blocking."""

    def __init__(
        self, stream: Stream, requests: Iterator[video_pb2.AnnotateRequest], max_megapixels: float
    ) -> None:
        self._stream, self._requests, self._max_megapixels = stream, requests, max_megapixels
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
        rings, pictures, inspect = Rings(_SLOTS), PictureReader(), Inspector()
        index = 0
        for request in self._received():
            if request.WhichOneof("content") != "frame":
                raise InvalidInput("expected a frame after the settings, got something else")
            for number, pts_us, (height, width), write in pictures.read(request.frame):
                if height * width > 1e6 * self._max_megapixels:
                    raise InvalidInput(
                        f"expected frames of at most {self._max_megapixels:g} megapixels "
                        f"(max_megapixels), got {width} x {height}"
                    )
                slot = rings.slot(height, width, timeout_s=1.0)
                if slot is None:
                    self._stream.lose()
                    continue
                write(slot.image_bgr)
                frame = Frame(index, pts_us / 1e6, time.monotonic(), slot.image_bgr)
                frame = replace(frame, quality=_quality(request.frame, number, slot, inspect))
                self._stream.offer(number, frame, slot)
                slot.release()
                index += 1


def _quality(sent: video_pb2.VideoFrame, number: int, slot: Slot, inspect: Inspector) -> Quality:
    """The client's own measure where it came with this very picture: H.264 may give another one first."""
    if sent.HasField("quality") and number == sent.id:
        return quality_of(sent.quality)
    return inspect(slot.image_bgr)


def _settings(requests: Iterator[video_pb2.AnnotateRequest]) -> video_pb2.StreamSettings:
    first = next(requests, None)
    if first is None or first.WhichOneof("content") != "settings":
        raise InvalidInput("expected the stream's settings as its first message")
    return first.settings


def add_service(server: grpc.Server, context: ServiceContext) -> Sequence[str]:
    """Add the service; see `trocar.runtime.server.services`."""
    servicer = VideoServicer(read_config(context.settings), context.repository)
    video_pb2_grpc.add_VideoServiceServicer_to_server(servicer, server)
    return (SERVICE_NAME,)
