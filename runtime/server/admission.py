"""The one place that decides what runs now, what waits and what is refused."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trocar.runtime.errors import Cancelled, DeadlineExceeded, QueueFull
from trocar.runtime.telemetry import Record, ignore

# How often a waiting request looks whether its caller is still there.
POLL_S = 0.05


class Admission:
    """A bounded number of running requests and a bounded first-come queue before them.

    Parameters
    ----------
    max_running : requests that hold a slot at once.
    max_queued : requests that may wait for one.
    waited : told of the stage `wait` of each that gets a slot.
    """

    def __init__(self, max_running: int, max_queued: int, waited: Record = ignore) -> None:
        self._max_running = max_running
        self._max_queued = max_queued
        self._waited = waited
        self._running = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def running(self) -> int:
        """Requests that hold a slot."""
        return self._running

    @property
    def waiting(self) -> int:
        """Requests that wait for one."""
        return len(self._waiting)

    @contextmanager
    def slot(
        self, *, start_by_s: float | None = None, abandoned: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Hold one slot for the body of a `with`.

        Parameters
        ----------
        start_by_s : `time.monotonic()` after which starting is of no use to the caller.
        abandoned : whether the caller went away; asked while waiting.

        Raises
        ------
        QueueFull
            Every slot and every place in the queue is taken.
        DeadlineExceeded
            `start_by_s` passed in the queue.
        Cancelled
            The caller went away in the queue.
        """
        asked_s = time.monotonic()
        self._take(start_by_s, abandoned)
        try:
            self._waited((("wait", asked_s, time.monotonic()),))
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _take(self, start_by_s: float | None, abandoned: Callable[[], bool]) -> None:
        ticket = object()
        with self._changed:
            if self._running >= self._max_running and len(self._waiting) >= self._max_queued:
                raise QueueFull(
                    f"expected at most {self._max_running} running and {self._max_queued} waiting requests, "
                    "got one more; try again later"
                )
            self._waiting.append(ticket)
            try:
                while self._waiting[0] is not ticket or self._running >= self._max_running:
                    if abandoned():
                        raise Cancelled("the caller went away while its request waited")
                    if start_by_s is not None and time.monotonic() > start_by_s:
                        raise DeadlineExceeded("the deadline left no time to compute after the queue")
                    self._changed.wait(POLL_S)
                self._running += 1
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
