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
            self._shared.live += 1

    def end_live(self) -> None:
        """Count it no more."""
        with self.lock:
            self._shared.live -= 1
            self._shared.start_next(self.clock())


class _Ticket:
    """A request that runs or waits."""

    __slots__ = ("began_s", "likely_s", "priority", "queue", "turn")

    def __init__(self, queue: Queue, priority: Priority, likely_s: float) -> None:
        self.queue, self.priority, self.likely_s = queue, priority, likely_s
        self.began_s: float | None = None
        # Held while it waits, and let go when its turn comes.
        self.turn = threading.Lock()


class _Slots:
    """Slots and what waits for them. Everything under the scheduler's lock."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.live = 0
        self.running: set[_Ticket] = set()
        self.waiting: dict[Priority, deque[_Ticket]] = {priority: deque() for priority in Priority}
        self._passed = dict.fromkeys(Priority, 0)

    def free(self) -> int:
        """How many may start now."""
        return self._count - min(self.live, self._count - 1) - len(self.running)

    def start(self, ticket: _Ticket, now_s: float) -> None:
        """Give a slot to a request."""
        ticket.began_s = now_s
        self.running.add(ticket)
        ticket.queue.running += 1

    def start_next(self, now_s: float) -> None:
        """Give the slots that are free to those whose turn it is."""
        while self.free() > 0 and (priority := self._whose_turn()) is not None:
            ticket = self.waiting[priority].popleft()
            ticket.queue.waiting -= 1
            self._passed[priority] = 0
            for other in Priority:
                if other > priority and self.waiting[other]:
                    self._passed[other] += 1
            self.start(ticket, now_s)
            ticket.turn.release()

    def line_up(self, ticket: _Ticket) -> None:
        """Put a request at the end of its class."""
        ticket.turn.acquire()
        self.waiting[ticket.priority].append(ticket)
        ticket.queue.waiting += 1

    def withdraw(self, ticket: _Ticket) -> None:
        """Take a request out of the line."""
        line = self.waiting[ticket.priority]
        line.remove(ticket)
        ticket.queue.waiting -= 1
        if not line:
            self._passed[ticket.priority] = 0

    def _whose_turn(self) -> Priority | None:
        waiting = [priority for priority in Priority if self.waiting[priority]]
        if not waiting:
            return None
        longest = max(waiting, key=lambda priority: (self._passed[priority], -priority))
        return longest if self._passed[longest] >= PATIENCE else waiting[0]

    def wait_s(self, priority: Priority, now_s: float) -> float:
        """How long a request of this class would wait at the least, as measured of those before it."""
        count = self._count - min(self.live, self._count - 1)
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
        self.measured = Measured(scheduler.clock)

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
            measured_s = self.measured.least_s(kind)
            least_s = measured_s if least_s is None else least_s
            likely_s = measured_s if likely_s is None else likely_s
        if deadline_s is not None:
            begin_by_s = min(deadline_s - least_s, math.inf if begin_by_s is None else begin_by_s)
        return Slot(self, _Ticket(self, priority, likely_s), begin_by_s, kind, abandoned)

    def _ask(self, ticket: _Ticket, begin_by_s: float | None) -> None:
        """Start a request, put it into the line, or refuse it."""
        scheduler, slots = self._scheduler, self.slots
        with scheduler.lock:
            now_s = scheduler.clock()
            # Whatever frees a slot starts who waits: where one is free, nobody does.
            starts = slots.free() > 0
            try:
                self._require_room(starts)
                if begin_by_s is not None:
                    wait_s = 0.0 if starts else slots.wait_s(ticket.priority, now_s)
                    self._require_time(begin_by_s - now_s, wait_s)
            except (QueueFull, DeadlineExceeded):
                self.refused += 1
                raise
            scheduler.held += 1
            if starts:
                slots.start(ticket, now_s)
            else:
                slots.line_up(ticket)

    def _wait(self, ticket: _Ticket, begin_by_s: float | None, abandoned: Callable[[], bool]) -> None:
        """Wait for the request's turn."""
        scheduler = self._scheduler
        while True:
            left_s = scheduler.poll_s if begin_by_s is None else begin_by_s - scheduler.clock()
            if ticket.turn.acquire(timeout=min(scheduler.poll_s, max(0.0, left_s))):
                return
            if abandoned():
                raise Cancelled("the caller went away while its request waited")
            if begin_by_s is not None and scheduler.clock() >= begin_by_s:
                raise DeadlineExceeded("the deadline left no time to compute after the queue")

    def _leave(self, ticket: _Ticket) -> None:
        """Take a request out that gave up; its turn may have come meanwhile."""
        scheduler = self._scheduler
        with scheduler.lock:
            self.refused += 1
            if waits := ticket.began_s is None:
                self.slots.withdraw(ticket)
                scheduler.held -= 1
        if not waits:
            self._give_back(ticket)

    def _give_back(self, ticket: _Ticket) -> None:
        scheduler = self._scheduler
        with scheduler.lock:
            self.slots.running.remove(ticket)
            self.running -= 1
            scheduler.held -= 1
            self.slots.start_next(scheduler.clock())

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
    """A slot, held for the body of a `with`. `Queue.slot` makes it and says what entering raises."""

    __slots__ = ("_abandoned", "_begin_by_s", "_kind", "_queue", "_ticket")

    def __init__(
        self,
        queue: Queue,
        ticket: _Ticket,
        begin_by_s: float | None,
        kind: str,
        abandoned: Callable[[], bool],
    ) -> None:
        self._queue, self._ticket, self._kind = queue, ticket, kind
        self._begin_by_s, self._abandoned = begin_by_s, abandoned

    def __enter__(self) -> None:
        """Wait for it."""
        queue, ticket = self._queue, self._ticket
        asked_s = time.monotonic()
        queue._ask(ticket, self._begin_by_s)
        if ticket.began_s is None:
            try:
                queue._wait(ticket, self._begin_by_s, self._abandoned)
            except BaseException:
                queue._leave(ticket)
                raise
        queue._scheduler.waited((("wait", asked_s, time.monotonic()),))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back; how long it was held counts unless it failed."""
        queue, ticket = self._queue, self._ticket
        if kind is None and ticket.began_s is not None:
            queue.measured.add(self._kind, ticket.began_s)
        queue._give_back(ticket)
