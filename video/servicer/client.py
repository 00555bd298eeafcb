"""`trocar annotate --server`: a server's model in the place of a process of this machine."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from dataclasses import dataclass
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
from trocar.video.remote import ENDING, SKIPPED, Answered, Task
from trocar.video.ring import Slot
from trocar.video.run import Server
from trocar.video.segmenter import INSTRUMENT_LABEL, MODEL
from trocar.video.servicer.messages import ACCEPTED, annotation_of, quality_message

# A server holds one frame of a stream in the model and one before it: two unanswered ones lose nothing, but
# where another stream has the model; a file's frame that was lost so is sent again.
_WINDOW = 2
_JPEG_QUALITY = 92
_READY_S = 30.0
# Our server says at once that it takes a stream; another need not before it has a frame.
_ACCEPT_S = 2.0
# A stream that has answered before and owes an answer for longer is dead.
_SILENT_S = 10.0
_RETRY_LEAST_S, _RETRY_MOST_S = 0.1, 2.0
_SERVICE = video_pb2.DESCRIPTOR.services_by_name["VideoService"].full_name
# The channel looks for a server that went away as often as streams are opened here.
_RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


def connect(access: Access, model: str, privacy: PrivacySettings) -> Server:
    """Return a server's model as an engine; nothing is sent before the first frame."""

    def open_engine(answered: Answered, depth: int) -> Engine:
        return RemoteServer(access, model, answered, PrivacyGuard(privacy), depth=depth)

    return Server(f"{model} at {access.address}", INSTRUMENT_LABEL if model == MODEL else model, open_engine)


@dataclass(slots=True)
class _Stream:
    """One call; `accepted` once the server has said so, `silent` once it was ended for saying nothing."""

    requests: queue.SimpleQueue[video_pb2.AnnotateRequest | None]
    call: Any
    replies: int = 0
    accepted: bool = False
    silent: bool = False


class RemoteServer:
    """A server's stream, opened anew when it breaks.

    Frames travel as JPEG; what waits while two are under way is let go, and while there is no stream every
    frame is answered at once with the reason.

    Parameters
    ----------
    access : where it is, and what it takes to be let in.
    answered : told of each offered frame exactly once.
    guard : frames from outside the body are sent blurred.
    depth : frames that may wait here; the oldest is let go for one more.
    """

    inspects_first = True

    def __init__(
        self, access: Access, model: str, answered: Answered, guard: PrivacyGuard, *, depth: int
    ) -> None:
        self._address = access.address
        self._answered, self._guard, self._depth = answered, guard, depth
        self._changed = threading.Condition()
        self._waiting: deque[Task] = deque()
        # What is under way, in the order of sending, with when it was sent.
        self._sent: dict[int, tuple[Task, float]] = {}
        self._open: _Stream | None = None
        self._error: TrocarError = Unavailable(f"the server {access.address} has not been asked yet")
        self._hurry = self._closing = False
        self._object_from = 1
        self.device, self.starts = f"server {access.address}", 0
        self._channel = open_channel(access, _RECONNECT)
        settings = video_pb2.StreamSettings(model=model, masks=video_pb2.MASK_FORMAT_LABELS_PNG)
        self._settings = video_pb2.AnnotateRequest(settings=settings)
        self._connect()
        self._thread = threading.Thread(target=self._run, name="video-replies", daemon=True)
        self._thread.start()

    def wait_ready(self) -> None:
        """Wait for a connection, and for a stream if there is none.

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
            raise error_of(error.code(), error.details() or "") from error
        with self._changed:
            self._hurry = self._open is None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._refused or self._accepted, timeout=_ACCEPT_S)
            there = self._changed.wait_for(lambda: self._refused or self._open is not None, timeout=_READY_S)
            if self._refused or not there:
                raise self._error

    @property
    def _accepted(self) -> bool:
        return self._open is not None and self._open.accepted

    @property
    def _refused(self) -> bool:
        """Whether the server said no to this client: asked again, it would say the same."""
        return self._error.exit_code == InvalidInput.exit_code

    def offer(self, frame: Frame, slot: Slot) -> None:
        """Send the frame, or keep it while two are under way; see `Engine`."""
        task, lost, reason = Task(frame, slot.retain()), None, SKIPPED
        with self._changed:
            if self._open is None:
                lost, reason = task, str(self._error)
            else:
                self._waiting.append(task)
                if len(self._waiting) > self._depth:
                    lost = self._waiting.popleft()
                self._send(self._open)
                self._end_if_silent(self._open)
        if lost is not None:
            self._finish(lost, reason)

    def close(self) -> None:
        """End the stream once what was sent is answered; what waits is let go."""
        with self._changed:
            self._closing = True
            waiting = list(self._waiting)
            self._waiting.clear()
            stream = self._open
            self._changed.notify_all()
        for task in waiting:
            self._finish(task, ENDING)
        if stream is not None:
            stream.requests.put(None)
        self._thread.join(timeout=_READY_S)
        # Ends whatever call is still open, and with it the thread.
        self._channel.close()
        self._thread.join()

    def _run(self) -> None:
        """Take replies until the stream ends, then open another; the pause doubles while none helps."""
        pause_s = _RETRY_LEAST_S
        while (stream := self._open) is not None:
            ended = self._receive(stream)
            pause_s = _RETRY_LEAST_S if stream.replies else min(2 * pause_s, _RETRY_MOST_S)
            with self._changed:
                self._open, self._error = None, ended
                tasks = [*(task for task, _ in self._sent.values()), *self._waiting]
                self._sent.clear()
                self._waiting.clear()
                reason = ENDING if self._closing else str(ended)
            stream.requests.put(None)
            for task in tasks:
                self._finish(task, reason)
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._hurry, timeout=pause_s)
                if not self._closing:
                    self._connect()
                    self._changed.notify_all()

    def _connect(self) -> None:
        """Open a stream; whether anybody answers shows in its first reply."""
        requests: queue.SimpleQueue[video_pb2.AnnotateRequest | None] = queue.SimpleQueue()
        requests.put(self._settings)
        call = video_pb2_grpc.VideoServiceStub(self._channel).Annotate(iter(requests.get, None))
        self._open = _Stream(requests, call)
        self._hurry = False
        self.starts += 1

    def _end_if_silent(self, stream: _Stream) -> None:
        """A server that was cut off says nothing at all: end a stream that owes an answer for too long."""
        allowed_s = _SILENT_S if stream.replies else _READY_S
        if self._sent and time.monotonic() - next(iter(self._sent.values()))[1] > allowed_s:
            stream.silent = True
            stream.call.cancel()

    def _send(self, stream: _Stream) -> None:
        while self._waiting and len(self._sent) < _WINDOW:
            task = self._waiting.popleft()
            self._sent[task.frame.index] = task, time.monotonic()
            stream.requests.put(
                video_pb2.AnnotateRequest(
                    frame=video_pb2.VideoFrame(
                        id=task.frame.index,
                        pts_us=round(1e6 * task.frame.pts_s),
                        jpeg=self._jpeg(task),
                        quality=quality_message(task.frame.quality),
                    )
                )
            )

    def _jpeg(self, task: Task) -> bytes:
        image = task.frame.image_bgr
        if self._guard.judge(task.frame.quality):
            # Nobody in the room is sent either; the slot is the display's, and stays as it is.
            image = image.copy()
            coarsen(image)
        done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        if not done:
            raise InvalidInput("expected a frame that JPEG can hold")
        return np.asarray(encoded).tobytes()

    def _receive(self, stream: _Stream) -> TrocarError:
        """Take a stream's replies; returns why they ended."""
        try:
            stream.accepted = ACCEPTED in (tuple(pair) for pair in stream.call.initial_metadata() or ())
            with self._changed:
                self._changed.notify_all()
            for reply in stream.call:
                self._take(reply, stream)
            return Unavailable("the server ended the stream")
        except grpc.RpcError as error:
            if stream.silent:
                return Unavailable(f"the server has not answered for {_SILENT_S:g} s")
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                # gRPC's own words are a paragraph; these stand on the picture.
                return Unavailable(f"no server at {self._address}")
            return error_of(error.code(), error.details() or "")
        except Exception as error:  # whatever it is, every frame is answered
            stream.call.cancel()
            return DeviceError(f"the server's reply could not be taken: {type(error).__name__}: {error}")

    def _take(self, reply: video_pb2.AnnotateReply, stream: _Stream) -> None:
        with self._changed:
            stream.replies += 1
            task, _ = self._sent.pop(reply.id, (None, 0.0))
            # Answers come in order: a frame sent before this one was let go by the server.
            lost = [self._sent.pop(index)[0] for index in sorted(self._sent) if index < reply.id]
            self._object_from = reply.object_from or self._object_from
            if reply.device:
                self.device = f"server {self._address}, {reply.device}"
            self._send(stream)
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
