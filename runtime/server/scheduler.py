"""The one place that decides what runs now, what waits and what is refused.

A model, or a service, has a *queue*; queues share *slots*, or have their own where something else computes
for them. Of what waits for a slot the most urgent class goes first, and within it who came first. A class
that was passed over `PATIENCE` times goes next whatever is more urgent, so that none waits for ever.
"""

from __future__ import annotations

import heapq
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from types import TracebackType

from trocar.runtime.errors import Cancelled, DeadlineExceeded, QueueFull
from trocar.runtime.server.measured import Measured
from trocar.runtime.telemetry import Record, ignore

# How often a waiting request looks whether its caller is still there.
POLL_S = 0.05
# So many starts may pass over a class that waits.
PATIENCE = 8

Clock = Callable[[], float]


class Priority(IntEnum):
    """Classes of requests, the most urgent first."""

    LIVE = 1
    INTERACTIVE = 2
    BATCH = 3


def _stays() -> bool:
    return False


class Scheduler:
    """Slots for what computes in this process, and the queues before them and before others' slots.

    Parameters
    ----------
    max_running : requests that compute in this process at once.
    max_held : requests that run or wait, over all queues: each holds one of the server's threads.
    clock : as `time.monotonic`, for tests.
    poll_s : how often a waiting request looks whether its caller is still there.
    waited : told of the stage `wait` of each request that gets a slot.
    """

    def __init__(
        self,
        max_running: int,
        max_held: int = 64,
        *,
        clock: Clock = time.monotonic,
        poll_s: float = POLL_S,
        waited: Record = ignore,
    ) -> None:
        self.max_running = max_running
        self.max_held = max_held
        self.clock, self.poll_s = clock, poll_s
        self.waited = waited
        self.held = 0
        # Those of models that are gone go with them.
        self._queues: weakref.WeakSet[Queue] = weakref.WeakSet()
        # One lock for all: it is held for microseconds, and nothing is called under it.
        self.lock = threading.Lock()
        self._shared = _Slots(max_running)

    def queue(self, name: str, *, max_queued: int, slots: int | None = None) -> Queue:
        """Return a new queue.

        Parameters
        ----------
        name : of the model or service, for messages.
        max_queued : requests that may wait in it.
        slots : of its own, where what computes is not this process; None shares the slots of this process.
        """
        made = Queue(self, name, max_queued, self._shared if slots is None else _Slots(slots))
        with self.lock:
            self._queues.add(made)
        return made

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """Return how many requests run, wait and were refused, by queue; those of one name together."""
        found: dict[str, tuple[int, int, int]] = {}
        with self.lock:
            for queue in self._queues:
                running, waiting, refused = found.get(queue.name, (0, 0, 0))
                counts = (running + queue.running, waiting + queue.waiting, refused + queue.refused)
                found[queue.name] = counts
        return dict(sorted(found.items()))

    def begin_live(self) -> None:
        """Count a frame of a live stream, whose model has a process of its own: it waits for nobody.

        While it runs it takes one of this process's slots from what would start, but never the last one.
        """
        with self.lock:
            self._shared.set_live(1)

    def end_live(self) -> None:
        """Count it no more."""
        with self.lock:
            self._shared.set_live(-1)
            self._shared.start_next(self.clock())


class _Slots:
    """Slots and what waits for them. Everything under the scheduler's lock."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._live = 0
        # Those that live frames leave.
        self._usable = count
        self._in_line = 0
        self.running: set[Slot] = set()
        self.waiting: dict[Priority, deque[Slot]] = {priority: deque() for priority in Priority}
        self._passed = dict.fromkeys(Priority, 0)

    def set_live(self, change: int) -> None:
        """Count live frames."""
        self._live += change
        self._usable = max(1, self._count - self._live)

    def free(self) -> bool:
        """Whether a request may start now."""
        return len(self.running) < self._usable

    def start(self, slot: Slot, now_s: float) -> None:
        """Give a slot to a request."""
        slot.began_s = now_s
        self.running.add(slot)
        slot.queue.running += 1

    def start_next(self, now_s: float) -> None:
        """Give the slots that are free to those whose turn it is."""
        while self._in_line and self.free():
            priority = self._whose_turn()
            slot = self.waiting[priority].popleft()
            self._in_line -= 1
            slot.queue.waiting -= 1
            self._passed[priority] = 0
            for other in Priority:
                if other > priority and self.waiting[other]:
                    self._passed[other] += 1
            self.start(slot, now_s)
            slot.turn.release()

    def line_up(self, slot: Slot) -> None:
        """Put a request at the end of its class."""
        slot.turn.acquire()
        self.waiting[slot.priority].append(slot)
        self._in_line += 1
        slot.queue.waiting += 1

    def withdraw(self, slot: Slot) -> None:
        """Take a request out of the line."""
        line = self.waiting[slot.priority]
        line.remove(slot)
        self._in_line -= 1
        slot.queue.waiting -= 1
        if not line:
            self._passed[slot.priority] = 0

    def _whose_turn(self) -> Priority:
        waiting = [priority for priority in Priority if self.waiting[priority]]
        longest = max(waiting, key=lambda priority: (self._passed[priority], -priority))
        return longest if self._passed[longest] >= PATIENCE else waiting[0]

    def wait_s(self, priority: Priority, now_s: float) -> float:
        """How long a request of this class would wait at the least, as measured of those before it."""
        count = self._usable
        busy = [max(0.0, (each.began_s or now_s) + each.likely_s - now_s) for each in self.running]
        # More may run than there are slots just now, where live frames came after them.
        free_in_s = [0.0] * (count - len(busy)) + busy
        heapq.heapify(free_in_s)
        for _ in range(len(free_in_s) - count):
            heapq.heappop(free_in_s)
        for before in Priority:
            if before <= priority:
                for each in self.waiting[before]:
                    heapq.heapreplace(free_in_s, free_in_s[0] + each.likely_s)
        return free_in_s[0]


class Queue:
    """The requests of one model or service. `Scheduler.queue` makes it.

    `running` and `waiting` count its requests, `refused` those that got no slot.
    """

    def __init__(self, scheduler: Scheduler, name: str, max_queued: int, slots: _Slots) -> None:
        self._scheduler, self.name, self._max_queued = scheduler, name, max_queued
        self.slots = slots
        self.running = self.waiting = self.refused = 0
        self._measured = Measured()

    def slot(
        self,
        *,
        priority: Priority = Priority.INTERACTIVE,
        deadline_s: float | None = None,
        begin_by_s: float | None = None,
        kind: str = "",
        least_s: float | None = None,
        likely_s: float | None = None,
        abandoned: Callable[[], bool] = _stays,
    ) -> Slot:
        """Return a slot to hold for the body of a `with`; entering it waits for it.

        Parameters
        ----------
        priority : the class it waits in.
        deadline_s : when the caller needs it done, by the scheduler's clock.
        begin_by_s : when it has to have begun, by the same.
        kind : requests of a kind take about as long; measured together.
        least_s : how long it takes at the least; None is what was measured of its kind.
        likely_s : how long it will hold the slot; None is what was measured of its kind.
        abandoned : whether the caller went away; asked while waiting.

        Raises
        ------
        QueueFull
            No slot is free and the queue is full, or the server holds as many requests as it may.
        DeadlineExceeded
            The deadline cannot be met: at once where what is measured says so, else when the time to begin
            has passed.
        Cancelled
            The caller went away in the queue.
        """
        if least_s is None or likely_s is None:
            measured_s = self.least_s(kind)
            least_s = measured_s if least_s is None else least_s
            likely_s = measured_s if likely_s is None else likely_s
        if deadline_s is not None:
            begin_by_s = min(deadline_s - least_s, math.inf if begin_by_s is None else begin_by_s)
        return Slot(self, priority, kind, likely_s, begin_by_s, abandoned)

    def least_s(self, kind: str = "") -> float:
        """Return how long a request takes at the least, as measured; 0 where too little is known."""
        return self._measured.least_s(kind, self._scheduler.clock())

    def _ask(self, slot: Slot, begin_by_s: float | None) -> None:
        """Start a request, put it into the line, or refuse it."""
        scheduler, slots = self._scheduler, self.slots
        with scheduler.lock:
            now_s = scheduler.clock()
            # Whatever frees a slot starts who waits: where one is free, nobody does.
            starts = slots.free()
            try:
                self._require_room(starts)
                if begin_by_s is not None:
                    wait_s = 0.0 if starts else slots.wait_s(slot.priority, now_s)
                    self._require_time(begin_by_s - now_s, wait_s)
            except (QueueFull, DeadlineExceeded):
                self.refused += 1
                raise
            scheduler.held += 1
            if starts:
                slots.start(slot, now_s)
            else:
                slots.line_up(slot)

    def _wait(self, slot: Slot, begin_by_s: float | None, abandoned: Callable[[], bool]) -> None:
        """Wait for the request's turn."""
        scheduler = self._scheduler
        while True:
            left_s = scheduler.poll_s if begin_by_s is None else begin_by_s - scheduler.clock()
            if slot.turn.acquire(timeout=min(scheduler.poll_s, max(0.0, left_s))):
                return
            if abandoned():
                raise Cancelled("the caller went away while its request waited")
            if begin_by_s is not None and scheduler.clock() >= begin_by_s:
                raise DeadlineExceeded("the deadline left no time to compute after the queue")

    def _leave(self, slot: Slot) -> None:
        """Take a request out that gave up; its turn may have come meanwhile."""
        scheduler = self._scheduler
        with scheduler.lock:
            self.refused += 1
            if waits := slot.began_s is None:
                self.slots.withdraw(slot)
                scheduler.held -= 1
        if not waits:
            self._give_back(slot)

    def _give_back(self, slot: Slot, *, counts: bool = False) -> None:
        scheduler = self._scheduler
        with scheduler.lock:
            now_s = scheduler.clock()
            if counts and slot.began_s is not None:
                self._measured.add(slot.kind, now_s - slot.began_s, now_s)
            self.slots.running.remove(slot)
            self.running -= 1
            scheduler.held -= 1
            self.slots.start_next(now_s)

    def _require_room(self, starts: bool) -> None:
        scheduler = self._scheduler
        if scheduler.held >= scheduler.max_held:
            raise QueueFull(
                f"expected at most {scheduler.max_held} requests that run or wait, got one more; "
                "try again later"
            )
        if not starts and self.waiting >= self._max_queued:
            raise QueueFull(
                f"{self.name}: expected at most {self._max_queued} waiting requests, got one more; "
                "try again later"
            )

    def _require_time(self, left_s: float, wait_s: float) -> None:
        if wait_s > left_s:
            raise DeadlineExceeded(
                f"{self.name}: expected a deadline that can be met, got one that is at least "
                f"{1000 * (wait_s - left_s):.0f} ms too short; {1000 * wait_s:.0f} ms are work before it"
            )


class Slot:
    """A request that runs or waits: its slot is held for the body of a `with`.

    `Queue.slot` makes it and says what entering raises.
    """

    __slots__ = ("_abandoned", "_begin_by_s", "began_s", "kind", "likely_s", "priority", "queue", "turn")

    def __init__(
        self,
        queue: Queue,
        priority: Priority,
        kind: str,
        likely_s: float,
        begin_by_s: float | None,
        abandoned: Callable[[], bool],
    ) -> None:
        self.queue, self.priority, self.kind, self.likely_s = queue, priority, kind, likely_s
        self._begin_by_s, self._abandoned = begin_by_s, abandoned
        self.began_s: float | None = None
        # Held while it waits, and let go when its turn comes.
        self.turn = threading.Lock()

    def __enter__(self) -> None:
        """Wait for it."""
        queue, asked_s = self.queue, time.monotonic()
        queue._ask(self, self._begin_by_s)
        if self.began_s is None:
            try:
                queue._wait(self, self._begin_by_s, self._abandoned)
            except BaseException:
                queue._leave(self)
                raise
        queue._scheduler.waited((("wait", asked_s, time.monotonic()),))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back; how long it was held counts unless it failed."""
        self.queue._give_back(self, counts=kind is None)
