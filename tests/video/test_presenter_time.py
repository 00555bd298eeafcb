"""When each frame goes out, exactly: the presenter on a clock of its own, beside a model that misbehaves.

Nothing sleeps here. Where the presenter waits, the clock goes on to what happens next.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from trocar.video import presenter as presenter_module
from trocar.video.frames import Annotation, Frame, Shown
from trocar.video.gate import GateSettings
from trocar.video.presenter import LatencySettings, Presenter
from trocar.video.remote import SKIPPED, Task
from trocar.video.ring import Ring, Slot
from trocar.video.tracker import TrackerSettings

FRAME_S, SOFT_S, FRAMES, AT = 0.020, 0.033, 200, 60
EPSILON_S = 1e-9


class Clock(threading.Condition):
    """A condition whose waiter is the only one who lets time pass, by doing what is due meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()

    def at(self, when_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when_s, next(self._number), event))

    def wait(self, timeout: float | None = None) -> bool:
        until_s = float("inf") if timeout is None else self.now_s + timeout
        if not self._events or self._events[0][0] > until_s:
            assert timeout is not None, "waits for what never comes"
            self.now_s = until_s
            return False
        when_s, _, event = heapq.heappop(self._events)
        self.now_s = max(self.now_s, when_s)
        event()
        return True

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        while not (found := predicate()):
            self.wait()
        return found


class Thread:
    """Is not started: the test runs its target itself."""

    def __init__(self, *, target: Callable[[], None], **_: object) -> None:
        self.run = target

    def start(self) -> None: ...

    def join(self) -> None: ...


class Model:
    """The newest frame wins. From frame 60 on it does what its fault says, and then is well again."""

    def __init__(self, clock: Clock, presenter: Presenter, fault: str) -> None:
        self.clock, self.presenter, self.fault = clock, presenter, fault
        self.running: Task | None = None
        self.pending: Task | None = None
        self.gone_until_s = 0.0
        self.struck = False

    def offer(self, frame: Frame, slot: Slot) -> None:
        task = Task(frame, slot.retain())
        if self.clock.now_s < self.gone_until_s:
            self._answer(task, None, "the model's process ended")
            return
        self.pending, displaced = task, self.pending
        if displaced is not None:
            self._answer(displaced, None, SKIPPED)
        self._start()

    def _start(self) -> None:
        if self.running is not None or self.pending is None:
            return
        task, self.pending = self.pending, None
        self.running = task
        struck = self.fault in ("hung", "killed") and task.frame.index >= AT and not self.struck
        self.struck |= struck
        took_s = 0.080 if self.fault == "slow" and task.frame.index >= AT else 0.004
        took_s = 0.500 if struck and self.fault == "hung" else took_s
        self.clock.at(self.clock.now_s + took_s, lambda: self._finish(task, struck=struck))

    def _finish(self, task: Task, *, struck: bool) -> None:
        self.running = None
        if struck:
            # Hung, killed, raising or lying, its process is ended, and the next one takes a while.
            self.gone_until_s = self.clock.now_s + 0.4
            pending, self.pending = self.pending, None
            for lost in (task, pending):
                if lost is not None:
                    self._answer(lost, None, "the model's process ended")
            return
        annotation = Annotation(task.frame.index, task.frame.pts_s, task.slot.labels, 2)
        self._answer(task, annotation, "")
        self._start()

    def _answer(self, task: Task, annotation: Annotation | None, reason: str) -> None:
        self.presenter.answered(task, annotation, reason)
        task.slot.release()


@pytest.mark.parametrize("fault", ["", "slow", "hung", "killed"])
def test_every_frame_goes_out_within_soft_ms_of_its_time(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, shown = Clock(), []
    monkeypatch.setattr(presenter_module, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    monkeypatch.setattr(
        presenter_module, "threading", SimpleNamespace(Condition=lambda: clock, Thread=Thread)
    )

    def display(one: Shown) -> None:
        shown.append((one.frame.index, one.ai_on, one.shown_at_s - one.frame.captured_at_s))

    presenter = Presenter(
        LatencySettings(soft_ms=1000 * SOFT_S, hard_ms=50),
        GateSettings(on_after=3),
        TrackerSettings(),
        draw=lambda *_: None,
        display=display,
    )
    model, ring = Model(clock, presenter, fault), Ring.create(9, 4, 6)

    def decoded(index: int) -> None:
        slot = ring.acquire()
        assert slot is not None
        slot.labels[...] = 2
        frame = Frame(index, index * FRAME_S, clock.now_s, slot.image_bgr)
        presenter.enqueue(frame, slot)
        model.offer(frame, slot)
        slot.release()

    for index in range(FRAMES):
        clock.at(index * FRAME_S, lambda index=index: decoded(index))
    clock.at(FRAMES * FRAME_S + 1, presenter.close)
    presenter._thread.run()
    assert presenter.error is None
    assert [index for index, _, _ in shown] == list(range(FRAMES))
    assert presenter.counts.dropped == 0
    assert max(waited_s for _, _, waited_s in shown) <= SOFT_S + EPSILON_S
    # While the AI is off nothing is waited for: only what was queued before it went off is behind.
    off = [at for at, (_, on, _) in enumerate(shown) if not on]
    settled = [at for at in off if at >= 3 and all(not shown[at - back][1] for back in (1, 2, 3))]
    assert all(shown[at][2] <= EPSILON_S for at in settled)
    went_off = [at for at in off if at >= AT]
    assert bool(went_off) == bool(fault)
    assert shown[-1][1] == (fault != "slow")
