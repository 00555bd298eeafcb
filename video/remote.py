"""The watchdog: keeps a worker process annotating the newest frame, and replaces it when it stops doing so.

It owns no picture. What it cannot annotate in time it lets go; the presenter shows the clean frame meanwhile.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trocar.runtime import process
from trocar.runtime.config import limits
from trocar.runtime.errors import DeviceError, InvalidInput
from trocar.video.frames import Annotation, Frame
from trocar.video.messages import Inbox, decode, encode, read_annotation
from trocar.video.ring import Ring, Slot


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker runs: `module:function` and its arguments, plain JSON values."""

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WatchdogSettings:
    """When a worker counts as stuck, and how soon it is replaced.

    Parameters
    ----------
    stuck_ms : a frame that takes longer ends the worker.
    start_s : a worker that is not ready by then is ended.
    retry_least_s, retry_most_s : the pause before the next start; it doubles while workers end without having
        annotated a frame.
    """

    stuck_ms: float = field(default=1000.0, metadata=limits(10, 60_000))
    start_s: float = field(default=30.0, metadata=limits(0.1, 600))
    retry_least_s: float = field(default=0.05, metadata=limits(0.001, 60))
    retry_most_s: float = field(default=5.0, metadata=limits(0.001, 600))


@dataclass(frozen=True, slots=True)
class Task:
    """A frame for the worker; the task holds the slot until it is answered or let go."""

    frame: Frame
    slot: Slot


# Called with a frame and what came of it: an annotation, or None and why not.
Answered = Callable[[Task, Annotation | None, str], None]
SKIPPED = "a newer frame came first"
ENDING = "the pipeline is ending"


class _WorkerLost(Exception):
    """The worker ended, hung or spoke nonsense."""


class Remote:
    """A worker process and the thread that watches it.

    Parameters
    ----------
    spec : what it runs.
    settings : the watchdog's.
    answered : told of each offered frame exactly once, from the watching thread or the offering one.
    depth : frames that may wait; the oldest of them is let go for one more. With 1 the newest wins.
    """

    inspects_first = False

    def __init__(
        self, spec: WorkerSpec, settings: WatchdogSettings, answered: Answered, *, depth: int = 1
    ) -> None:
        self._spec, self._settings, self._answered = spec, settings, answered
        self._lock = threading.Lock()
        self._depth = depth
        self._pending: deque[Task] = deque()
        self._running: Task | None = None
        self._inbox = Inbox()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self.device = ""
        self.state = "the model is starting"
        self.starts = 0
        self._annotated = 0
        self._failed: str | None = None
        self._thread = threading.Thread(target=self._watch, name="video-watchdog", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether a worker is waiting for frames or busy with one."""
        return self._ready.is_set()

    def wait_ready(self) -> None:
        """Wait for the first worker.

        Raises
        ------
        InvalidInput
            It says that it cannot run the model: another start would say the same.
        DeviceError
            It did not become ready in time.
        """
        deadline = time.monotonic() + self._settings.start_s
        while not self._ready.wait(0.01):
            if self._failed is not None:
                raise InvalidInput(self._failed)
            if time.monotonic() > deadline:
                raise DeviceError(
                    f"expected the model to be ready in {self._settings.start_s:g} s: {self.state}"
                )

    def offer(self, frame: Frame, slot: Slot) -> None:
        """Hand over the newest frame; an older one that still waits is let go. The slot gains a holder."""
        task = Task(frame, slot.retain())
        with self._lock:
            # Under the lock: once closed, the descriptor's number may be another file's.
            closed = self._stopping.is_set()
            displaced: Task | None = None
            if not closed:
                self._pending.append(task)
                displaced = self._pending.popleft() if len(self._pending) > self._depth else None
                os.eventfd_write(self._wake, 1)
        if closed:
            self._answer(task, None, ENDING)
        if displaced is not None:
            self._answer(displaced, None, SKIPPED)

    def close(self) -> None:
        """End the worker; what was offered is let go."""
        with self._lock:
            if self._stopping.is_set():
                return
            self._stopping.set()
            os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)

    def _watch(self) -> None:
        pause_s = self._settings.retry_least_s
        while not self._stopping.is_set():
            answered_before = self._annotated
            try:
                self._attend()
            except _WorkerLost as lost:
                self.state = str(lost)
            except Exception as error:  # whatever it is, frames go on being answered
                self.state = f"the model cannot be run: {type(error).__name__}: {error}"
            self._let_go(ENDING if self._stopping.is_set() else self.state)
            useful = self._annotated > answered_before
            pause_s = (
                self._settings.retry_least_s if useful else min(2 * pause_s, self._settings.retry_most_s)
            )
            self._idle(pause_s)
        self._let_go(ENDING)

    def _attend(self) -> None:
        """Start a worker and keep it busy until it is lost or this side ends."""
        worker, link = self._start()
        try:
            self._converse(link)
        finally:
            self._ready.clear()
            worker.kill()
            worker.wait()
            link.close()

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        started = process.start("trocar.video.worker", socket.SOCK_SEQPACKET)
        self.starts += 1
        return started

    def _converse(self, link: socket.socket) -> None:
        link.send(encode({"factory": self._spec.factory, "arguments": dict(self._spec.arguments)}))
        self._await_ready(link)
        ring: Ring | None = None
        while not self._stopping.is_set():
            if (starting := self._next()) is not None:
                if starting.slot.ring is not ring:
                    ring = starting.slot.ring
                    _send_ring(link, ring)
                link.send(encode(_request(starting)))
                sent_at_s = time.monotonic()
            timeout_s = None if self._running is None else self._left_s(sent_at_s)
            if self._readable(link, timeout_s):
                self._take_reply(link)

    def _next(self) -> Task | None:
        with self._lock:
            if self._running is not None or not self._pending:
                return None
            self._running = self._pending.popleft()
            return self._running

    def _await_ready(self, link: socket.socket) -> None:
        deadline = time.monotonic() + self._settings.start_s
        while not self._readable(link, max(0.0, deadline - time.monotonic())):
            if self._stopping.is_set():
                raise _WorkerLost(ENDING)
            # A frame that waits for a worker is late before it begins; the newest stays pending.
        reply = self._receive(link)
        if "failed" in reply:
            self._failed = str(reply["failed"])
            raise _WorkerLost(self._failed)
        self.device = str(reply.get("ready", ""))
        self.state = ""
        self._ready.set()

    def _left_s(self, sent_at_s: float) -> float:
        left_s = sent_at_s + self._settings.stuck_ms / 1000 - time.monotonic()
        if left_s <= 0:
            raise _WorkerLost(f"the model did not answer within {self._settings.stuck_ms:g} ms")
        return left_s

    def _readable(self, link: socket.socket, timeout_s: float | None) -> bool:
        """Wait for the worker or for news from this side; whether the worker has something."""
        if timeout_s is not None and timeout_s <= 0:
            raise _WorkerLost(f"the model was not ready within {self._settings.start_s:g} s")
        poll = select.poll()
        poll.register(link, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        events = poll.poll(None if timeout_s is None else max(1.0, timeout_s * 1000))
        if any(descriptor == self._wake for descriptor, _ in events):
            os.eventfd_read(self._wake)
        return any(descriptor == link.fileno() for descriptor, _ in events)

    def _receive(self, link: socket.socket) -> dict[str, Any]:
        data, _ = self._inbox.receive(link)
        if not data:
            raise _WorkerLost("the model's process ended")
        try:
            return decode(data)
        except DeviceError as error:
            raise _WorkerLost(str(error)) from error

    def _take_reply(self, link: socket.socket) -> None:
        reply = self._receive(link)
        task = self._running
        if task is None or reply.get("frame") != task.frame.index:
            raise _WorkerLost(f"expected an answer for the frame in work, got one for {reply.get('frame')}")
        if "error" in reply:
            self._finish(task, None, str(reply["error"]))
            return
        try:
            annotation = read_annotation(
                reply, frame_index=task.frame.index, pts_s=task.frame.pts_s, labels=task.slot.labels
            )
        except DeviceError as error:
            raise _WorkerLost(str(error)) from error
        self._finish(task, annotation, "")

    def _finish(self, task: Task, annotation: Annotation | None, reason: str) -> None:
        with self._lock:
            self._running = None
        self._annotated += annotation is not None
        self._answer(task, annotation, reason)

    def _let_go(self, reason: str) -> None:
        with self._lock:
            tasks = [*([self._running] if self._running else []), *self._pending]
            self._running = None
            self._pending.clear()
        for task in tasks:
            self._answer(task, None, reason)

    def _answer(self, task: Task, annotation: Annotation | None, reason: str) -> None:
        try:
            self._answered(task, annotation, reason)
        finally:
            task.slot.release()

    def _idle(self, pause_s: float) -> None:
        """Wait before the next start; frames that come meanwhile are answered at once."""
        until_s = time.monotonic() + pause_s
        while not self._stopping.is_set() and (left_s := until_s - time.monotonic()) > 0:
            select.select([self._wake], [], [], left_s)
            try:
                os.eventfd_read(self._wake)
            except BlockingIOError:
                continue
            self._let_go(self.state)


def _send_ring(link: socket.socket, ring: Ring) -> None:
    geometry = ring.geometry
    layout = {"slots": geometry.slots, "height": geometry.height, "width": geometry.width}
    socket.send_fds(link, [encode({"ring": layout})], [ring.descriptor])


def _request(task: Task) -> dict[str, Any]:
    frame = task.frame
    return {
        "frame": frame.index,
        "slot": task.slot.index,
        "pts_s": frame.pts_s,
        "captured_at_s": frame.captured_at_s,
    }
