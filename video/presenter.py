"""The clean picture's own path: each frame goes out in order and on time, with an overlay if one is ready.

A frame waits for its annotation for `soft_ms` at most, and only while overlays are on. Then it takes its own,
or that of a frame no more than `hard_ms` before it; if there is none it goes out clean, and so does every
frame after it until the annotations have been in time again for a while.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from trocar.runtime.config import limits
from trocar.video.frames import Annotation, Frame, Quality, Shown, UInt8Array
from trocar.video.gate import Gate, GateSettings
from trocar.video.remote import ENDING, SKIPPED, Task
from trocar.video.ring import Slot
from trocar.video.tracker import Tracker, TrackerSettings

# The picture is looked at on a grid of about so many rows for the overlap of two frames.
_OVERLAP_ROWS = 90
# Frames that may wait to be shown; a display slower than the source loses the oldest, not the newest.
_QUEUE = 3


@dataclass(frozen=True, slots=True)
class LatencySettings:
    """How long a picture waits, and how old an overlay may be.

    Parameters
    ----------
    soft_ms : from decoded to shown, at most, while a frame waits for its own annotation.
    hard_ms : from the annotated frame to the one it is drawn on, at most.
    """

    soft_ms: float = field(default=33.0, metadata=limits(1, 1000))
    hard_ms: float = field(default=50.0, metadata=limits(1, 1000))


# Draws an annotation into an image in place; called with None where the clean frame goes out.
Draw = Callable[[UInt8Array, Annotation | None, str], None]
Display = Callable[[Shown], None]


@dataclass
class Counts:
    """What became of the frames. `skipped` went out, but were not themselves annotated."""

    frames: int = 0
    annotated: int = 0
    skipped: int = 0
    failed: int = 0
    late: int = 0
    clean: int = 0
    dropped: int = 0


class Presenter:
    """A thread that shows frames. `enqueue` is called by the source, `answered` by the watchdog.

    Parameters
    ----------
    display : called with each frame that goes out, in order, from this thread; the image is only lent.
    draw : draws overlay and badge.
    """

    def __init__(
        self,
        latency: LatencySettings,
        gate: GateSettings,
        tracker: TrackerSettings,
        *,
        draw: Draw,
        display: Display,
    ) -> None:
        self._latency = latency
        self._tracker = Tracker(tracker)
        self._quality = Quality()
        self._gate = Gate(gate)
        self._draw, self._display = draw, display
        self._changed = threading.Condition()
        self._queue: deque[tuple[Frame, Slot]] = deque()
        self._newest: Task | None = None
        self._annotation: Annotation | None = None
        self._not_coming = -1  # no annotation will come for frames up to this one
        self._ending = False
        self._closed = False
        self._canvas: UInt8Array = np.empty((0, 0, 3), np.uint8)
        self.counts = Counts()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="video-presenter", daemon=True)
        self._thread.start()

    @property
    def flips(self) -> int:
        """How often overlays went on or off."""
        return self._gate.flips

    def enqueue(self, frame: Frame, slot: Slot) -> None:
        """Take the next frame; the slot gains a holder."""
        with self._changed:
            self._queue.append((frame, slot.retain()))
            lost = self._queue.popleft()[1] if len(self._queue) > _QUEUE else None
            self.counts.frames += 1
            self.counts.dropped += lost is not None
            self._changed.notify()
        if lost is not None:
            lost.release()

    def inspected(self, quality: Quality) -> None:
        """Take the newest frame's quality; it is measured while the model runs."""
        with self._changed:
            self._quality = quality

    def answered(self, task: Task, annotation: Annotation | None, reason: str) -> None:
        """Take what came of a frame that was offered to the model."""
        now_s = time.monotonic()
        with self._changed:
            self._not_coming = max(self._not_coming, task.frame.index)
            if self._closed:
                return
            if annotation is None:
                if reason in (SKIPPED, ENDING):
                    self.counts.skipped += 1
                else:
                    self.counts.failed += 1
                    self._gate.turn_off(reason)
            else:
                self._accept(task, annotation, now_s)
            self._changed.notify()

    def close(self) -> None:
        """Show what is queued, then end."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()
        with self._changed:
            self._closed = True
            held = [slot for _, slot in self._queue]
            self._queue.clear()
            if self._newest is not None:
                held.append(self._newest.slot)
                self._newest = None
        for slot in held:
            slot.release()

    def _accept(self, task: Task, annotation: Annotation, now_s: float) -> None:
        self.counts.annotated += 1
        annotation = self._tracker.track(annotation)
        before, self._newest = self._newest, replace(task, slot=task.slot.retain())
        self._gate.answered(
            annotation,
            self._quality,
            overlap=_overlap(self._annotation, annotation),
            in_time=now_s - task.frame.captured_at_s <= self._latency.soft_ms / 1000,
        )
        self._annotation = annotation
        if before is not None:
            before.slot.release()

    def _run(self) -> None:
        try:
            while (taken := self._take()) is not None:
                self._show(*taken)
        except BaseException as error:  # handed to whoever runs the pipeline
            self.error = error

    def _take(self) -> tuple[Frame, Slot, Task | None, Annotation | None, bool, str] | None:
        """Wait for a frame, then for its annotation or its time; everything is decided under the lock."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ending)
            if not self._queue:
                return None
            frame, slot = self._queue.popleft()
            until_s = frame.captured_at_s + self._latency.soft_ms / 1000
            while self._gate.on and self._not_coming < frame.index:
                left_s = until_s - time.monotonic()
                if left_s <= 0 or not self._changed.wait(left_s):
                    break
            annotation = self._fresh(frame)
            if self._gate.on and annotation is None:
                self.counts.late += 1
                self._gate.turn_off("late")
            on, reason = self._gate.on, self._gate.reason
            if not on:
                self.counts.clean += 1
                return frame, slot, None, None, on, reason
            # The annotation's labels lie in its own frame's slot: held while they are drawn.
            assert self._newest is not None
            held = replace(self._newest, slot=self._newest.slot.retain())
            return frame, slot, held, annotation, on, reason

    def _fresh(self, frame: Frame) -> Annotation | None:
        found = self._annotation
        if found is None or found.labels.shape != frame.image_bgr.shape[:2]:
            return None
        lag_s = frame.pts_s - found.pts_s
        # A stream whose clock goes back has no lag to speak of: only the frame's own annotation will do.
        if found.frame_index == frame.index or 0 <= lag_s <= self._latency.hard_ms / 1000:
            return found
        return None

    def _show(
        self,
        frame: Frame,
        slot: Slot,
        held: Task | None,
        annotation: Annotation | None,
        on: bool,
        reason: str,
    ) -> None:
        try:
            begun_s = time.monotonic()
            canvas = self._canvas_like(frame.image_bgr)
            np.copyto(canvas, frame.image_bgr)
            self._draw(canvas, annotation, reason)
            drawn_s = time.monotonic()
            stage_ms: dict[str, float] = dict(annotation.stage_ms) if annotation is not None else {}
            stage_ms["overlay"] = 1000 * (drawn_s - begun_s)
            stage_ms["total"] = 1000 * (drawn_s - frame.captured_at_s)
            self._display(Shown(frame, canvas, annotation, on, reason, drawn_s, stage_ms))
        finally:
            slot.release()
            if held is not None:
                held.slot.release()

    def _canvas_like(self, image: UInt8Array) -> UInt8Array:
        if self._canvas.shape != image.shape:
            self._canvas = np.empty_like(image)
        return self._canvas


def _overlap(before: Annotation | None, after: Annotation) -> float:
    """Intersection over union of two foregrounds, on a coarse grid; 1 where there is nothing to compare."""
    if before is None or before.labels.shape != after.labels.shape:
        return 1.0
    step = max(1, after.labels.shape[0] // _OVERLAP_ROWS)
    first = before.labels[::step, ::step] >= before.object_from
    second = after.labels[::step, ::step] >= after.object_from
    either = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    both = int(np.count_nonzero(np.logical_and(first, second, out=first)))
    return both / (either - both) if either else 1.0
