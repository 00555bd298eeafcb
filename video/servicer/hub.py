"""One model, several streams: each has one waiting frame, the newest, and they take turns.

The model's process is the pipeline's own: watched, ended when stuck, started again. A stream whose client
reads its replies slowly loses the oldest of them and nothing else.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from trocar.runtime.errors import QueueFull
from trocar.runtime.server.scheduler import Scheduler
from trocar.video.frames import Annotation, Frame
from trocar.video.remote import Remote, Task, WatchdogSettings, WorkerSpec
from trocar.video.ring import Slot
from trocar.video.servicer.tally import MEMORY, NEWER, READER, Tally
from trocar.video.tracker import Tracker, TrackerSettings

# Replies that may wait for a slow reader.
_OUTBOX = 8


@dataclass
class Answer:
    """What came of one frame. Whoever takes it releases it: the label map lies in its slot.

    Of a damaged frame there is no picture, and no slot.
    """

    id: int
    frame: Frame
    slot: Slot | None
    annotation: Annotation | None
    reason: str
    queued_ms: float
    total_ms: float
    dropped: int
    # When the model was given the frame, and when it had answered, on the monotonic clock.
    begun_at_s: float = 0.0
    answered_at_s: float = 0.0

    def release(self) -> None:
        """Let go of the picture and the label map."""
        if self.slot is not None:
            self.slot.release()


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A stream's newest frame: with its slot for the model, or damaged, with the reason as its answer."""

    id: int
    frame: Frame
    slot: Slot | None
    since_s: float
    reason: str = ""

    def release(self) -> None:
        if self.slot is not None:
            self.slot.release()


class Stream:
    """One client's stream. `offer` and `finish` are for its reader, `answers` for its writer."""

    def __init__(self, hub: Hub, tracker: TrackerSettings) -> None:
        self._hub = hub
        self.tracker = Tracker(tracker)
        self.waiting: _Waiting | None = None
        self.outbox: deque[Answer] = deque()
        self.dropped = 0
        # How its frames come; see `trocar.video.servicer.tally`.
        self.form = ""
        self.running = False
        self.finished = False

    def offer(self, number: int, frame: Frame, slot: Slot) -> None:
        """Hand over the newest frame; one that still waits is let go. The slot gains a holder."""
        self._hub.offer(self, _Waiting(number, frame, slot.retain(), time.monotonic()))

    def refuse(self, number: int, frame: Frame, reason: str) -> None:
        """Have a damaged frame answered in its turn, with the reason; of its picture there is nothing."""
        self._hub.offer(self, _Waiting(number, frame, None, time.monotonic(), reason))

    def lose(self) -> None:
        """Count a frame for which there was no memory."""
        with self._hub.changed:
            self._hub.let_go(self, MEMORY)

    def finish(self) -> None:
        """No more frames will come."""
        with self._hub.changed:
            self.finished = True
            self._hub.changed.notify_all()

    def answers(self, *, idle_s: float) -> Iterator[Answer]:
        """Yield answers in order, until all of a finished stream are given or nothing came for long."""
        while True:
            with self._hub.changed:
                self._hub.changed.wait_for(lambda: self.outbox or self._done(), timeout=idle_s)
                if not self.outbox:
                    return
                answer = self.outbox.popleft()
            yield answer

    def _done(self) -> bool:
        return self.finished and self.waiting is None and not self.running


class Hub:
    """The streams of one model.

    Parameters
    ----------
    spec : what the worker runs.
    most_streams : streams at once.
    scheduler : told of each frame in the model, since nothing else should start beside it.
    tally : counts what becomes of frames.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        watchdog: WatchdogSettings,
        tracker: TrackerSettings,
        most_streams: int,
        scheduler: Scheduler,
        tally: Tally | None = None,
    ) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._tracker, self._most, self._scheduler = tracker, most_streams, scheduler
        # In turn: the stream at the left is the one that has waited longest since it was last served.
        self._streams: deque[Stream] = deque()
        self._tally = tally
        self._retired = False
        self._busy: tuple[Stream, int, float, float] | None = None
        self.remote = Remote(spec, watchdog, self._answered)

    @property
    def streams(self) -> int:
        """How many streams it has."""
        return len(self._streams)

    def join(self) -> Stream | None:
        """Add a stream; None where another hub has taken this one's place.

        Raises
        ------
        QueueFull
            There are as many as the server takes.
        """
        with self.changed:
            if self._retired:
                return None
            if len(self._streams) >= self._most:
                raise QueueFull(f"expected at most {self._most} streams of one model at once, got one more")
            stream = Stream(self, self._tracker)
            self._streams.append(stream)
            return stream

    def leave(self, stream: Stream) -> None:
        """Take a stream away; what it still holds is let go."""
        with self.changed:
            self._streams.remove(stream)
            stream.finished = True
            waiting, stream.waiting = stream.waiting, None
            answers = list(stream.outbox)
            stream.outbox.clear()
        for held in (waiting, *answers):
            if held is not None:
                held.release()
        self._close_if_done()

    def retire(self) -> None:
        """Take no more streams, and end with the last of those there are."""
        with self.changed:
            self._retired = True
        self._close_if_done()

    def let_go(self, stream: Stream, why: str) -> None:
        """Count a frame that is let go; under the lock."""
        stream.dropped += 1
        if self._tally is not None:
            self._tally.dropped(stream.form, why)

    def offer(self, stream: Stream, frame: _Waiting) -> None:
        """Take a stream's newest frame, and start it if the model is free."""
        displaced: _Waiting | None = frame
        with self.changed:
            # A reader may still be at it after its client has left.
            if stream in self._streams:
                displaced, stream.waiting = stream.waiting, frame
                if displaced is not None:
                    self.let_go(stream, NEWER)
                self._next()
        if displaced is not None:
            displaced.release()

    def close(self) -> None:
        """End the model's process."""
        self.remote.close()

    def _close_if_done(self) -> None:
        with self.changed:
            done = self._retired and not self._streams
        if done:
            self.close()

    def _next(self) -> None:
        """Give the model the frame of the stream whose turn it is; damaged ones are answered without it."""
        for stream in self._streams:
            if stream.waiting is not None and stream.waiting.slot is None and not stream.running:
                self._answer_damaged(stream, stream.waiting)
        if self._busy is not None:
            return
        for stream in tuple(self._streams):
            one = stream.waiting
            if one is None or one.slot is None:
                continue
            stream.waiting, stream.running = None, True
            self._streams.remove(stream)
            self._streams.append(stream)
            self._busy = (stream, one.id, one.since_s, time.monotonic())
            self._scheduler.begin_live()
            self.remote.offer(one.frame, one.slot)
            one.slot.release()
            return

    def _answer_damaged(self, stream: Stream, one: _Waiting) -> None:
        stream.waiting = None
        if self._tally is not None:
            self._tally.damaged()
        waited_ms = 1000 * (time.monotonic() - one.since_s)
        self._put(
            stream, Answer(one.id, one.frame, None, None, one.reason, waited_ms, waited_ms, stream.dropped)
        )

    def _put(self, stream: Stream, answer: Answer) -> None:
        """Give a stream an answer; its oldest is let go where its reader is slow. Under the lock."""
        stream.outbox.append(answer)
        if len(stream.outbox) > _OUTBOX:
            stream.outbox.popleft().release()
            self.let_go(stream, READER)
        self.changed.notify_all()

    def _answered(self, task: Task, annotation: Annotation | None, reason: str) -> None:
        now_s = time.monotonic()
        with self.changed:
            assert self._busy is not None
            (stream, number, offered_s, begun_s), self._busy = self._busy, None
            self._scheduler.end_live()
            stream.running = False
            total_ms = 1000 * (now_s - task.frame.captured_at_s)
            if self._tally is not None:
                self._tally.answered(annotated=annotation is not None, total_ms=total_ms)
            if stream in self._streams:
                if annotation is not None:
                    annotation = stream.tracker.track(annotation)
                answer = Answer(
                    number,
                    task.frame,
                    task.slot.retain(),
                    annotation,
                    reason,
                    queued_ms=1000 * (begun_s - offered_s),
                    total_ms=total_ms,
                    dropped=stream.dropped,
                    begun_at_s=begun_s,
                    answered_at_s=now_s,
                )
                self._put(stream, answer)
            self._next()
            self.changed.notify_all()
