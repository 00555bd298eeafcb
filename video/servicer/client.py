"""`trocar annotate --server`: a server's model in the place of a process of this machine."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import cv2
import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from trocar.runtime.channel import Access, open_channel
from trocar.runtime.errors import DeviceError, InvalidInput, TrocarError, Unavailable
from trocar.runtime.server.interceptors import error_of
from trocar.v1 import video_pb2, video_pb2_grpc
from trocar.video.frames import Frame
from trocar.video.pipeline import Engine
from trocar.video.privacy import PrivacyGuard, PrivacySettings, coarsen
from trocar.video.quality import inspect
from trocar.video.remote import ENDING, SKIPPED, Answered, Task
from trocar.video.ring import Slot
from trocar.video.run import Server
from trocar.video.segmenter import INSTRUMENT_LABEL, MODEL
from trocar.video.servicer.messages import annotation_of

# A server holds one frame of a stream in the model and one before it: two unanswered ones lose nothing.
_WINDOW = 2
_JPEG_QUALITY = 92
_READY_S = 30.0
_SERVICE = video_pb2.DESCRIPTOR.services_by_name["VideoService"].full_name


def connect(access: Access, model: str, privacy: PrivacySettings) -> Server:
    """Return a server's model as an engine; nothing is sent before the first frame."""

    def open_engine(answered: Answered, depth: int) -> Engine:
        return RemoteServer(access, model, answered, PrivacyGuard(privacy), depth=depth)

    return Server(f"{model} at {access.address}", INSTRUMENT_LABEL if model == MODEL else model, open_engine)


class RemoteServer:
    """One stream of a server. Frames travel as JPEG; what waits while two are under way is let go.

    Parameters
    ----------
    access : where it is, and what it takes to be let in.
    answered : told of each offered frame exactly once.
    guard : frames from outside the body are sent blurred.
    depth : frames that may wait here; the oldest is let go for one more.
    """

    def __init__(
        self, access: Access, model: str, answered: Answered, guard: PrivacyGuard, *, depth: int
    ) -> None:
        self._answered, self._guard, self._depth = answered, guard, depth
        self._changed = threading.Condition()
        self._waiting: deque[Task] = deque()
        self._sent: dict[int, Task] = {}
        self._requests: queue.SimpleQueue[video_pb2.AnnotateRequest | None] = queue.SimpleQueue()
        self._error: TrocarError | None = None
        self._closing = False
        self._object_from = 1
        self.device, self.starts = f"server {access.address}", 1
        self._channel = open_channel(access)
        settings = video_pb2.StreamSettings(model=model, masks=video_pb2.MASK_FORMAT_LABELS_PNG)
        self._requests.put(video_pb2.AnnotateRequest(settings=settings))
        self._call = video_pb2_grpc.VideoServiceStub(self._channel).Annotate(self._stream())
        self._thread = threading.Thread(target=self._receive, name="video-replies", daemon=True)
        self._thread.start()

    def wait_ready(self) -> None:
        """Wait for a connection.

        Raises
        ------
        TrocarError
            What the server said, or that there is none.
        """
        # Not `channel_ready_future`: its thread fails aloud when the channel is closed soon after.
        asked = health_pb2.HealthCheckRequest(service=_SERVICE)
        try:
            health: Any = health_pb2_grpc.HealthStub(self._channel)
            health.Check(asked, timeout=_READY_S)
        except grpc.RpcError as error:
            raise (self._error or error_of(error.code(), error.details() or "")) from error

    def offer(self, frame: Frame, slot: Slot) -> None:
        """Send the frame, or keep it while two are under way; see `Engine`."""
        lost: Task | None = None
        with self._changed:
            if self._error is None:
                self._waiting.append(Task(frame, slot.retain()))
                if len(self._waiting) > self._depth:
                    lost = self._waiting.popleft()
                self._send()
                error = None
            else:
                error = self._error
        if error is not None:
            self._answered(Task(frame, slot), None, str(error))
        if lost is not None:
            self._finish(lost, SKIPPED)

    def close(self) -> None:
        """End the stream once what was sent is answered; what waits is let go."""
        with self._changed:
            self._closing = True
            waiting = list(self._waiting)
            self._waiting.clear()
        for task in waiting:
            self._finish(task, ENDING)
        self._requests.put(None)
        self._thread.join(timeout=_READY_S)
        self._call.cancel()
        self._channel.close()

    def _send(self) -> None:
        while self._waiting and len(self._sent) < _WINDOW:
            task = self._waiting.popleft()
            self._sent[task.frame.index] = task
            self._requests.put(
                video_pb2.AnnotateRequest(
                    frame=video_pb2.VideoFrame(
                        id=task.frame.index,
                        pts_us=round(1e6 * task.frame.pts_s),
                        jpeg=self._jpeg(task),
                    )
                )
            )

    def _jpeg(self, task: Task) -> bytes:
        image = task.frame.image_bgr
        if self._guard.judge(inspect(image)):
            # Nobody in the room is sent either; the slot is the display's, and stays as it is.
            image = image.copy()
            coarsen(image)
        done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        if not done:
            raise InvalidInput("expected a frame that JPEG can hold")
        return np.asarray(encoded).tobytes()

    def _stream(self) -> Iterator[video_pb2.AnnotateRequest]:
        while (request := self._requests.get()) is not None:
            yield request

    def _receive(self) -> None:
        try:
            for reply in self._call:
                self._take(reply)
            ended: TrocarError = Unavailable("the server ended the stream")
        except grpc.RpcError as error:
            ended = error_of(error.code(), error.details() or "")
        except Exception as error:  # whatever it is, every frame is answered
            ended = DeviceError(f"the server's reply could not be taken: {type(error).__name__}: {error}")
        with self._changed:
            self._error = ended
            tasks = [*self._sent.values(), *self._waiting]
            self._sent.clear()
            self._waiting.clear()
        for task in tasks:
            self._finish(task, str(ended))

    def _take(self, reply: video_pb2.AnnotateReply) -> None:
        with self._changed:
            task = self._sent.pop(reply.id, None)
            # Answers come in order: a frame sent before this one was let go by the server.
            lost = [self._sent.pop(index) for index in sorted(self._sent) if index < reply.id]
            self._object_from = reply.object_from or self._object_from
            if reply.device:
                self.device = f"{self.device}, {reply.device}"
            self._send()
        for one in lost:
            self._finish(one, SKIPPED)
        if task is None:
            return
        if reply.error:
            self._finish(task, reply.error)
            return
        try:
            annotation = annotation_of(
                reply,
                frame_index=task.frame.index,
                object_from=self._object_from,
                labels=task.slot.labels,
            )
        except DeviceError as error:
            self._finish(task, str(error))
            return
        try:
            self._answered(task, annotation, "")
        finally:
            task.slot.release()

    def _finish(self, task: Task, reason: str) -> None:
        try:
            self._answered(task, None, reason)
        finally:
            task.slot.release()
