"""Who runs, who waits, who is refused: by threads, by a model of the line, by a clock that is told."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trocar.runtime.errors import Cancelled, DeadlineExceeded, QueueFull, TrocarError
from trocar.runtime.server.measured import LEAST_RUNS
from trocar.runtime.server.scheduler import PATIENCE, Priority, Queue, Scheduler, Slot

LIVE, INTERACTIVE, BATCH = Priority


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Held:
    """A slot held by another thread until told to leave."""

    def __init__(self, queue: Queue, log: list[str] | None = None, name: str = "", **more: Any) -> None:
        self.inside, self.leave = threading.Event(), threading.Event()
        waited = queue.waiting

        def hold() -> None:
            with queue.slot(**more):
                if log is not None:
                    log.append(name)
                self.inside.set()
                self.leave.wait(10)

        self._thread = threading.Thread(target=hold)
        self._thread.start()
        until(lambda: self.inside.is_set() or queue.waiting > waited)

    def done(self) -> None:
        self.leave.set()
        self._thread.join(10)


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.001)


def one(max_queued: int, **more: Any) -> Queue:
    return Scheduler(1, **more).queue("m", max_queued=max_queued)


def test_beyond_the_queue_is_refused_at_once() -> None:
    queue = one(1)
    running, waiting = Held(queue), Held(queue)
    assert running.inside.is_set()
    with pytest.raises(QueueFull, match="m: expected at most 1 waiting requests, got one more"), queue.slot():
        pass
    running.done()
    assert waiting.inside.wait(5)
    waiting.done()
    with queue.slot():
        pass
    assert (queue.running, queue.waiting, queue.refused) == (0, 0, 1)


def test_no_queue_at_all_still_runs_one() -> None:
    queue = one(0)
    with queue.slot(), pytest.raises(QueueFull), queue.slot():
        pass
    with queue.slot():
        pass


def test_each_model_has_a_queue_of_its_own_and_they_share_the_slots() -> None:
    scheduler = Scheduler(1)
    first, second = (scheduler.queue(name, max_queued=1) for name in "ab")
    held = [Held(first), Held(first), Held(second)]
    with pytest.raises(QueueFull, match=r"^a: "), first.slot():
        pass
    assert [each.inside.is_set() for each in held] == [True, False, False]
    for each in held:
        assert each.inside.wait(5)
        each.done()


def test_all_queues_together_hold_no_more_than_they_may() -> None:
    scheduler = Scheduler(1, 2)
    first, second = (scheduler.queue(name, max_queued=8) for name in "ab")
    held = [Held(first), Held(first)]
    with pytest.raises(QueueFull, match="at most 2 requests that run or wait"), second.slot():
        pass
    for each in held:
        each.done()
    with second.slot():
        assert scheduler.held == 1


def test_slots_of_its_own() -> None:
    scheduler = Scheduler(1)
    here, elsewhere = (
        scheduler.queue("here", max_queued=0),
        scheduler.queue("elsewhere", max_queued=0, slots=2),
    )
    with elsewhere.slot(), elsewhere.slot(), here.slot():
        for queue in (here, elsewhere):
            with pytest.raises(QueueFull), queue.slot():
                pass


def test_the_most_urgent_first_and_first_come_within_a_class() -> None:
    queue, log = one(6), []
    first = Held(queue)
    asked = [("c", BATCH), ("b", INTERACTIVE), ("a", LIVE), ("d", BATCH), ("b2", INTERACTIVE), ("a2", LIVE)]
    others = {name: Held(queue, log, name, priority=priority) for name, priority in asked}
    first.done()
    for name in ("a", "a2", "b", "b2", "c", "d"):
        assert others[name].inside.wait(5)
        others[name].done()
    assert log == ["a", "a2", "b", "b2", "c", "d"]


def test_a_batch_request_gets_its_turn_beside_endless_urgent_ones() -> None:
    queue, log = one(3), []
    running = Held(queue)
    batch = Held(queue, log, "batch", priority=BATCH)
    urgent = [Held(queue, log, "urgent")]
    running.done()
    for _ in range(PATIENCE + 2):
        urgent.append(Held(queue, log, "urgent"))  # there is always one that waits
        if batch.inside.is_set():
            break
        urgent[-2].done()
        until(lambda: batch.inside.is_set() or urgent[-1].inside.is_set())
    assert log == [*["urgent"] * PATIENCE, "batch"]
    batch.done()
    for each in urgent:
        each.done()


def test_a_caller_that_leaves_gives_its_place_back() -> None:
    queue = one(1)
    running, gone = Held(queue), threading.Event()
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            with queue.slot(abandoned=gone.is_set):
                pass
        except TrocarError as error:
            errors.append(error)

    leaving = threading.Thread(target=ask)
    leaving.start()
    until(lambda: queue.waiting == 1)
    gone.set()
    leaving.join(10)
    assert [type(error) for error in errors] == [Cancelled]
    waiting = Held(queue)
    assert not waiting.inside.is_set()
    running.done()
    assert waiting.inside.wait(5)
    waiting.done()


def test_a_failure_inside_gives_the_slot_back_and_is_not_measured() -> None:
    queue = one(0)
    for _ in range(LEAST_RUNS):
        with pytest.raises(ValueError, match="inside"), queue.slot():
            raise ValueError("inside")
    with queue.slot():
        pass
    assert not queue.least_s()


def test_a_deadline_or_a_timeout_that_passes_in_the_queue() -> None:
    queue = one(1)
    running = Held(queue)
    for patience in ({"deadline_s": time.monotonic() + 0.1}, {"begin_by_s": time.monotonic() + 0.1}):
        with pytest.raises(DeadlineExceeded), queue.slot(**patience):
            pass
    assert queue.waiting == 0
    running.done()


def _measured(queue: Queue, clock: Clock, took_s: float) -> None:
    for _ in range(LEAST_RUNS):
        with queue.slot():
            clock.now_s += took_s


def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    clock = Clock()
    queue = one(8, clock=clock)
    with queue.slot(deadline_s=clock.now_s + 0.001, kind="another"):
        pass  # nothing is known of it
    _measured(queue, clock, 2.0)
    with pytest.raises(DeadlineExceeded, match=r"m: .* 500 ms too short; 0 ms"):
        queue.slot(deadline_s=clock.now_s + 1.5).__enter__()
    with queue.slot(deadline_s=clock.now_s + 2.5):
        pass
    # One runs for 2 s and two wait: the next could begin in 6 s and be done in 8.
    held = [Held(queue) for _ in range(3)]
    with pytest.raises(DeadlineExceeded, match="500 ms too short; 6000 ms"):
        queue.slot(deadline_s=clock.now_s + 7.5).__enter__()
    with pytest.raises(DeadlineExceeded, match="1000 ms too short; 6000 ms"):
        queue.slot(begin_by_s=clock.now_s + 5.0).__enter__()
    # A more urgent one waits for the running one alone.
    with pytest.raises(DeadlineExceeded, match="500 ms too short; 2000 ms"):
        queue.slot(deadline_s=clock.now_s + 3.5, priority=LIVE).__enter__()
    clock.now_s += 1.5  # time goes by, and less is left of what runs
    with pytest.raises(DeadlineExceeded, match="too short; 500 ms"):
        queue.slot(deadline_s=clock.now_s + 1.0, priority=LIVE).__enter__()
    assert queue.waiting == 2
    for each in held:
        each.done()


def test_what_a_request_says_of_itself_goes_before_what_was_measured() -> None:
    clock = Clock()
    queue = one(8, clock=clock)
    _measured(queue, clock, 2.0)
    held = Held(queue, likely_s=30.0)
    with pytest.raises(DeadlineExceeded, match="30000 ms are work"):
        queue.slot(deadline_s=clock.now_s + 20.0, least_s=0.1).__enter__()
    held.done()
    with queue.slot(deadline_s=clock.now_s + 0.2, least_s=0.1):
        pass


def test_slots_in_parallel_shorten_the_wait() -> None:
    clock = Clock()
    queue = Scheduler(1, clock=clock).queue("pool", max_queued=8, slots=2)
    held = [Held(queue, likely_s=likely_s) for likely_s in (10.0, 3.0, 4.0)]
    with pytest.raises(DeadlineExceeded, match="7000 ms are work"):  # after the second and the third
        queue.slot(deadline_s=clock.now_s + 6.0).__enter__()
    held[1].done()
    for each in held:
        each.done()


def test_a_slow_time_is_forgotten() -> None:
    """Otherwise nothing would run, nothing would be measured, and all would be refused for ever."""
    clock = Clock()
    queue = one(0, clock=clock)
    _measured(queue, clock, 5.0)
    with pytest.raises(DeadlineExceeded):
        queue.slot(deadline_s=clock.now_s + 1.0).__enter__()
    clock.now_s += 61.0
    with queue.slot(deadline_s=clock.now_s + 1.0):
        pass


def test_live_frames_hold_back_what_would_start_but_for_the_last_slot() -> None:
    scheduler = Scheduler(2)
    queue = scheduler.queue("m", max_queued=1)
    for _ in range(3):
        scheduler.begin_live()
    with queue.slot():
        waiting = Held(queue)
        assert not waiting.inside.is_set()
        scheduler.end_live()
        scheduler.end_live()
        assert not waiting.inside.wait(0.1)
        scheduler.end_live()
        assert waiting.inside.wait(5)
    waiting.done()


def test_no_wakeup_is_lost() -> None:
    """Many threads that come, give up and finish at random; waiting is never helped along by polling."""
    scheduler = Scheduler(2, 1000, poll_s=60.0)
    queues = [scheduler.queue(name, max_queued=100) for name in "ab"]
    lock, running, most = threading.Lock(), 0, 0

    def ask(seed: int) -> None:
        nonlocal running, most
        draw = random.Random(seed)
        for _ in range(60):
            end_s = time.monotonic() + draw.choice([0.0005, 0.003, 60.0])
            try:
                with draw.choice(queues).slot(priority=draw.choice(list(Priority)), begin_by_s=end_s):
                    with lock:
                        running += 1
                        most = max(most, running)
                    time.sleep(draw.choice([0.0, 0.0005]))
                    with lock:
                        running -= 1
            except DeadlineExceeded:
                pass

    threads = [threading.Thread(target=ask, args=(seed,), daemon=True) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
        assert not thread.is_alive()
    assert 1 <= most <= 2
    assert scheduler.held == 0
    assert all(queue.running == queue.waiting == 0 for queue in queues)


class Line(RuleBasedStateMachine):
    """The line without its threads: requests come, give up, finish, and live frames come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(2, 12)
        self.queues = [self.scheduler.queue(name, max_queued=4) for name in "ab"]
        self.live = 0
        self.line: list[Slot] = []
        self.running: list[Slot] = []
        self.passed: dict[Slot, int] = {}

    def _observe(self) -> None:
        """Whoever started must have been first of its class, and nobody passed over for too long."""
        for ticket in [each for each in self.line if each.began_s is not None]:
            before = self.line[: self.line.index(ticket)]
            assert all(each.began_s is not None for each in before if each.priority == ticket.priority)
        started = sorted(
            (each for each in self.line if each.began_s is not None), key=lambda each: each.began_s or 0
        )
        self.line = [each for each in self.line if each.began_s is None]
        self.running += started
        heads = {each.priority: each for each in reversed(self.line)}
        for ticket in started:
            for priority, head in heads.items():
                if priority > ticket.priority:
                    self.passed[head] = self.passed.get(head, 0) + 1
                    assert self.passed[head] <= PATIENCE + 1

    @rule(which=st.integers(0, 1), priority=st.sampled_from(list(Priority)))
    def come(self, which: int, priority: Priority) -> None:
        queue = self.queues[which]
        ticket = queue.slot(priority=priority)
        full = len(self.line) + len(self.running) >= 12
        crowded = sum(each.queue is queue for each in self.line) >= 4
        free = self._slots() > len(self.running)
        try:
            queue._ask(ticket, None)
        except QueueFull:
            assert full or (crowded and not free)
            return
        assert not full
        assert free == (ticket.began_s is not None)
        (self.running if free else self.line).append(ticket)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        ticket = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        ticket.queue._give_back(ticket)
        self._observe()

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        ticket = self.line.pop(data.draw(st.integers(0, len(self.line) - 1)))
        ticket.queue._leave(ticket)
        self._observe()

    @rule()
    def frame(self) -> None:
        self.scheduler.begin_live()
        self.live += 1

    @precondition(lambda self: self.live)
    @rule()
    def framed(self) -> None:
        self.scheduler.end_live()
        self.live -= 1
        self._observe()

    def _slots(self) -> int:
        return 2 - min(self.live, 1)

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.running) <= 2
        assert not self.line or len(self.running) >= self._slots()
        assert self.scheduler.held == len(self.line) + len(self.running)
        for queue in self.queues:
            assert queue.running == sum(each.queue is queue for each in self.running)
            assert queue.waiting == sum(each.queue is queue for each in self.line)
        for ticket in self.line:  # it waits, and what started does not
            assert ticket.turn.locked()
        assert not any(ticket.turn.locked() for ticket in self.running)


Line.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestLine = Line.TestCase
