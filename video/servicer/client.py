"""`trocar annotate --server`: a server's model in the place of a process of this machine."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import cv2
import grpc
import numpy as np

from trocar.runtime.errors import InvalidInput, TrocarError, Unavailable
from trocar.runtime.server.interceptors import error_of
from trocar.v1 import video_pb2, video_pb2_grpc
from trocar.video.frames import Frame
from trocar.video.pipeline import Engine
from trocar.video.remote import SKIPPED, Answered, Task
from trocar.video.ring import Slot
from trocar.video.run import Server
from trocar.video.segmenter import INSTRUMENT_LABEL, MODEL
from trocar.video.servicer.messages import annotation_of

# A server holds one frame of a stream in the model and one before it: two unanswered ones lose nothing.
_WINDOW = 2
_JPEG_QUALITY = 92
_READY_S = 30.0
CHANNEL_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


def connect(address: str, model: str) -> Server:
    """Return a server's model as an engine; nothing is sent before the first frame."""

    def open_engine(answered: Answered, depth: int) -> Engine:
        return RemoteServer(address, model, answered, depth=depth)

    return Server(f"{model} at {address}", INSTRUMENT_LABEL if model == MODEL else model, open_engine)


class RemoteServer:
    """One stream of a server. Frames travel as JPEG; what waits while two are under way is let go.

    Parameters
    ----------
    address : `host:port` or `unix:/path`.
    answered : told of each offered frame exactly once.
    depth : frames that may wait here; the oldest is let go for one more.
    """

    def __init__(self, address: str, model: str, answered: Answered, *, depth: int) -> None:
        self._answered, self._depth = answered, depth
        self._changed = threading.Condition()
        self._waiting: deque[Task] = deque()
        self._sent: dict[int, Task] = {}
        self._requests: queue.SimpleQueue[video_pb2.AnnotateRequest | None] = queue.SimpleQueue()
        self._error: TrocarError | None = None
        self._closing = False
        self._object_from = 1
        self.device, self.starts = f"server {address}", 1
        self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
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
        ready = grpc.channel_ready_future(self._channel)
        deadline_s = time.monotonic() + _READY_S
        try:
            while time.monotonic() < deadline_s:
                if self._error is not None:
                    raise self._error
                with suppress(grpc.FutureTimeoutError):
                    ready.result(timeout=0.05)
                    return
            raise Unavailable(f"expected a server that answers within {_READY_S:g} s")
        finally:
            ready.cancel()

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
            self._finish(task, "the pipeline is ending")
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
                        jpeg=_jpeg(task.slot),
                    )
                )
            )

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
            self._object_from = reply.object_from or self._object_from
            if reply.device:
                self.device = f"{self.device}, {reply.device}"
            self._send()
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
            self._answered(task, annotation, "")
        finally:
            task.slot.release()

    def _finish(self, task: Task, reason: str) -> None:
        try:
            self._answered(task, None, reason)
        finally:
            task.slot.release()


def _jpeg(slot: Slot) -> bytes:
    done, encoded = cv2.imencode(".jpg", slot.image_bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise InvalidInput("expected a frame that JPEG can hold")
    return np.asarray(encoded).tobytes()
