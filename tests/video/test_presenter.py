"""The presenter's own rules, without a process: which annotation is drawn, and who holds what at the end."""

from __future__ import annotations

import threading
import time

import numpy as np

from trocar.video.frames import Annotation, Frame, Shown
from trocar.video.gate import GateSettings
from trocar.video.presenter import LatencySettings, Presenter
from trocar.video.remote import ENDING, SKIPPED, Task
from trocar.video.ring import Ring, Slot
from trocar.video.tracker import TrackerSettings


class Stage:
    """A presenter, and frames by hand."""

    def __init__(self, *, soft_ms: float = 1000.0, fails: bool = False) -> None:
        self.ring = Ring.create(8, 4, 6)
        self.shown: list[Shown] = []
        self.fails = fails
        self._changed = threading.Condition()
        self.presenter = Presenter(
            LatencySettings(soft_ms=soft_ms, hard_ms=50),
            GateSettings(on_after=1),
            TrackerSettings(),
            draw=lambda *_: None,
            display=self._display,
        )

    def _display(self, shown: Shown) -> None:
        if self.fails:
            raise OSError(5, "the screen is gone")
        with self._changed:
            self.shown.append(shown)
            self._changed.notify()

    def wait(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.shown) >= count, timeout=20)

    def frame(self, index: int, pts_s: float) -> tuple[Frame, Slot]:
        slot = self.ring.acquire(timeout_s=10)
        assert slot is not None
        slot.image_bgr[...] = index
        return Frame(index, pts_s, time.monotonic(), slot.image_bgr), slot

    def answer(self, frame: Frame, slot: Slot) -> None:
        annotation = Annotation(frame.index, frame.pts_s, slot.labels, 2)
        self.presenter.answered(Task(frame, slot), annotation, "")


def play(stage: Stage, index: int, pts_s: float, *, annotate: bool) -> None:
    """Offer, answer, show: in that order, so that nothing hangs on timing."""
    frame, slot = stage.frame(index, pts_s)
    if annotate:
        stage.answer(frame, slot)
    else:
        stage.presenter.answered(Task(frame, slot), None, SKIPPED)
    stage.presenter.enqueue(frame, slot)
    slot.release()
    stage.wait(index + 1)


def test_the_annotation_of_a_frame_just_before_will_do_and_of_an_older_one_not() -> None:
    stage = Stage()
    play(stage, 0, 0.00, annotate=True)
    play(stage, 1, 0.04, annotate=False)
    play(stage, 2, 0.08, annotate=False)
    stage.presenter.close()
    drawn = [None if one.annotation is None else one.annotation.frame_index for one in stage.shown]
    assert drawn == [0, 0, None]
    assert stage.shown[2].reason == "late"
    assert stage.ring.holders == [0] * 8


def test_an_annotation_is_never_drawn_on_a_frame_of_an_earlier_time() -> None:
    stage = Stage()
    play(stage, 0, 5.0, annotate=True)
    play(stage, 1, 4.99, annotate=False)
    stage.presenter.close()
    assert stage.shown[1].annotation is None


def test_what_ends_with_the_stream_did_not_fail() -> None:
    stage = Stage()
    frame, slot = stage.frame(0, 0.0)
    stage.presenter.enqueue(frame, slot)
    stage.presenter.close()
    stage.presenter.answered(Task(frame, slot), None, ENDING)
    slot.release()
    assert (stage.presenter.counts.failed, stage.presenter.counts.clean) == (0, 1)


def test_an_answer_after_the_end_holds_nothing() -> None:
    stage = Stage()
    frame, slot = stage.frame(0, 0.0)
    stage.presenter.close()
    stage.answer(frame, slot)
    slot.release()
    assert stage.ring.holders == [0] * 8


def test_a_broken_display_lets_go_of_what_was_queued() -> None:
    stage = Stage(fails=True)
    for index in range(3):
        frame, slot = stage.frame(index, index / 25)
        stage.presenter.enqueue(frame, slot)
        slot.release()
    stage.presenter.close()
    assert isinstance(stage.presenter.error, OSError)
    assert stage.ring.holders == [0] * 8


def test_the_oldest_is_lost_to_a_slow_display_and_counted() -> None:
    stage, stuck = Stage(), threading.Event()
    stage._display = lambda shown: None  # type: ignore[method-assign]
    stage.presenter._display = lambda shown: stuck.wait(20) and None
    for index in range(8):
        frame, slot = stage.frame(index, index / 25)
        stage.presenter.enqueue(frame, slot)
        slot.release()
        if index == 0:
            time.sleep(0.05)
    assert stage.presenter.counts.dropped >= 4
    assert np.count_nonzero(stage.ring.holders) <= 4
    stuck.set()
    stage.presenter.close()
    assert stage.ring.holders == [0] * 8
