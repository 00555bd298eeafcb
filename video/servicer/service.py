"""`VideoService`: frames in, annotations out, one stream a client."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import grpc

from trocar.runtime.errors import InvalidInput
from trocar.runtime.repository.store import Model, Repository
from trocar.runtime.server.scheduler import Scheduler
from trocar.runtime.server.services import ServiceContext
from trocar.runtime.telemetry import Family, Stage, Telemetry, current, end_to_end, served_models
from trocar.v1 import video_pb2, video_pb2_grpc
from trocar.video.config import VideoConfig, read_config
from trocar.video.remote import WorkerSpec
from trocar.video.segmenter import MODEL, Recipe, recipe
from trocar.video.servicer.hub import Answer, Hub, Stream
from trocar.video.servicer.messages import ACCEPTED, reply_message
from trocar.video.servicer.reader import Reader
from trocar.video.servicer.tally import STAGES, Tally

SERVICE_NAME = video_pb2.DESCRIPTOR.services_by_name["VideoService"].full_name


class VideoServicer(video_pb2_grpc.VideoServiceServicer):
    """The service. Models start with their first stream and stay."""

    def __init__(
        self,
        config: VideoConfig,
        repository: Repository,
        scheduler: Scheduler,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._config, self._repository, self._scheduler = config, repository, scheduler
        self._lock = threading.Lock()
        self._hubs: dict[str, _Served] = {}
        telemetry = telemetry or Telemetry()
        self._tally = Tally(config.latency.soft_ms)
        self._record = telemetry.stages("video", STAGES, alone=True)
        telemetry.collect(self._tally.families)
        telemetry.collect(self._families)

    def Annotate(  # noqa: N802
        self,
        requests: Iterator[video_pb2.AnnotateRequest],
        context: Any,
    ) -> Iterator[video_pb2.AnnotateReply]:
        """Annotate one stream."""
        asked = _settings(requests)
        served, stream = self._join(asked.model or MODEL)
        hub = served.hub
        # Before the first frame, so that a client knows whether it was let in.
        context.send_initial_metadata((ACCEPTED,))
        current().model = served.name
        idle_s = min(asked.keep_alive_ms / 1000 or self._config.idle_s, self._config.idle_s)
        reader = Reader(stream, requests, self._config.max_megapixels)
        try:
            yield from self._replies(stream, asked, served, idle_s)
        finally:
            hub.leave(stream)
            # The reader waits for a request that may never come; the call's end wakes it.
        reader.raise_error()

    def close(self) -> None:
        """End the models' processes."""
        with self._lock:
            for served in self._hubs.values():
                served.hub.close()
            self._hubs.clear()

    def models(self) -> tuple[str, ...]:
        """Return the models that run."""
        return tuple(self._hubs)

    def take(self, name: str) -> str | None:
        """Have new streams served by what the repository has of a model by now; the others stay as they are.

        Returns
        -------
        The version, where it is another than before.

        Raises
        ------
        TrocarError
            It does not run; new streams are served by the one before.
        """
        found = self._repository.open(name)
        before = self._hubs[name]
        if found.manifest_bytes == before.manifest_bytes:
            return None
        newest = self._start(found)
        try:
            newest.hub.remote.wait_ready()
        except BaseException:
            newest.hub.close()
            raise
        with self._lock:
            self._hubs[name] = newest
        before.hub.retire()
        return newest.name.partition("/")[2]

    def _replies(
        self, stream: Stream, asked: video_pb2.StreamSettings, served: _Served, idle_s: float
    ) -> Iterator[video_pb2.AnnotateReply]:
        first = True
        for answer in stream.answers(idle_s=idle_s):
            if answer.slot is not None:
                self._record(_stages(answer))
            try:
                reply = reply_message(answer, asked.masks)
            finally:
                answer.release()
            if first:
                reply.classes.extend(served.how.classes)
                reply.object_from, reply.device = served.how.object_from, served.hub.remote.device
                first = False
            yield reply

    def _join(self, model: str) -> tuple[_Served, Stream]:
        while True:
            served = self._served(model)
            served.hub.remote.wait_ready()
            stream = served.hub.join()
            if stream is not None:
                return served, stream

    def _served(self, model: str) -> _Served:
        with self._lock:
            if model not in self._hubs:
                self._hubs[model] = self._start(self._repository.open(model))
            return self._hubs[model]

    def _start(self, found: Model) -> _Served:
        manifest, config = found.manifest, self._config
        how = recipe(manifest)
        arguments = {
            "model": manifest.name,
            "repository": str(self._repository.root),
            "version": manifest.version,
            "threads": config.threads,
            "device": config.device,
        }
        spec = WorkerSpec("trocar.video.segmenter:open_segmenter", arguments)
        hub = Hub(spec, config.watchdog, config.tracker, config.max_streams, self._scheduler, self._tally)
        return _Served(hub, how, f"{manifest.name}/{manifest.version}", found.manifest_bytes)

    def _families(self) -> Iterator[Family]:
        running = list(self._hubs.values())
        yield served_models("video", [one.name for one in running])
        streams = Family("trocar_video_streams", "gauge", "Open streams.", ("model",))
        ready = Family(
            "trocar_video_worker_ready", "gauge", "1 while the model's process takes frames.", ("model",)
        )
        starts = Family("trocar_video_worker_starts", "counter", "Starts of the model's process.", ("model",))
        for one in running:
            model, remote = (one.name.partition("/")[0],), one.hub.remote
            streams.rows.append((model, float(one.hub.streams)))
            ready.rows.append((model, float(remote.ready)))
            starts.rows.append((model, float(remote.starts)))
        yield from (streams, ready, starts)


@dataclass(frozen=True, slots=True)
class _Served:
    """A model that runs; `name` is `model/version`."""

    hub: Hub
    how: Recipe
    name: str
    manifest_bytes: bytes


def _stages(answer: Answer) -> list[Stage]:
    """A frame's stages; the model's process says how long its own took, end to end from when it was asked."""
    at_s = answer.begun_at_s
    stages: list[Stage] = [
        ("decode", answer.frame.received_at_s, answer.frame.captured_at_s),
        ("total", answer.frame.captured_at_s, answer.answered_at_s),
        ("wait", at_s - answer.queued_ms / 1000, at_s),
    ]
    return stages + end_to_end(answer.annotation.stage_ms if answer.annotation is not None else {}, at_s)


def _settings(requests: Iterator[video_pb2.AnnotateRequest]) -> video_pb2.StreamSettings:
    first = next(requests, None)
    if first is None or first.WhichOneof("content") != "settings":
        raise InvalidInput("expected the stream's settings as its first message")
    return first.settings


def add_service(server: grpc.Server, context: ServiceContext) -> Sequence[str]:
    """Add the service; see `trocar.runtime.server.services`."""
    # Models and other streams have work for the other cores; OpenCV's threads take them to save microseconds.
    cv2.setNumThreads(1)
    servicer = VideoServicer(
        read_config(context.settings), context.repository, context.scheduler, context.telemetry
    )
    context.watch.follow("video", context.repository, servicer.models, servicer.take)
    video_pb2_grpc.add_VideoServiceServicer_to_server(servicer, server)
    return (SERVICE_NAME,)
