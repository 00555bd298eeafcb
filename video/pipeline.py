"""source -> model in a process of its own -> presenter -> display, recorders.

Two ways through the same stages. `run_live` keeps the source's pace: the newest frame wins, and the picture
goes on without the model. `run_offline` annotates every frame, however long that takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from trocar.runtime.errors import DeviceError, InvalidInput
from trocar.video.frames import Annotation, Frame, Quality, Shown, UInt8Array
from trocar.video.gate import GateSettings
from trocar.video.pace import Newest, paced
from trocar.video.presenter import Counts, Display, Draw, LatencySettings, Presenter
from trocar.video.privacy import PrivacySettings
from trocar.video.recording import Recorder, Recording
from trocar.video.remote import Answered, Remote, Task, WatchdogSettings, WorkerSpec
from trocar.video.ring import Ring, Slot
from trocar.video.source import Picture, Source
from trocar.video.tracker import Tracker, TrackerSettings

# One decoded, three waiting to be shown, one shown, one in the model, one waiting for it, one annotated last,
# one being drawn.
_LIVE_SLOTS = 9
_OFFLINE_IN_FLIGHT = 3
_OFFLINE_TRIES = 2

Inspect = Callable[[UInt8Array], Quality]


class Engine(Protocol):
    """What annotates: a process of this machine (`Remote`), or a server."""

    @property
    def device(self) -> str:
        """Where the model runs, once it is ready."""

    @property
    def starts(self) -> int:
        """How often it was started or connected."""

    @property
    def inspects_first(self) -> bool:
        """Whether a frame's quality has to be known before it is offered: it decides what may be sent."""

    def wait_ready(self) -> None:
        """Wait until it is, or raise why it cannot be."""

    def offer(self, frame: Frame, slot: Slot) -> None:
        """Hand over a frame; it is answered once, whatever happens. The slot gains a holder."""

    def close(self) -> None:
        """Answer what was offered, and end."""


# Told whom to answer, and how many frames may wait: with one the newest wins.
OpenEngine = Callable[[Answered, int], Engine]


@dataclass(frozen=True, slots=True)
class VideoSettings:
    """All thresholds of the pipeline; see `trocar.video.config` for where they are set."""

    latency: LatencySettings = field(default_factory=LatencySettings)
    gate: GateSettings = field(default_factory=GateSettings)
    watchdog: WatchdogSettings = field(default_factory=WatchdogSettings)
    tracker: TrackerSettings = field(default_factory=TrackerSettings)
    privacy: PrivacySettings = field(default_factory=PrivacySettings)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run amounted to.

    Parameters
    ----------
    counts : what became of the frames.
    duration_s, fps : wall time and frames shown in it.
    flips_per_1000 : overlays going on or off, per 1000 frames.
    starts : how often the model's process was started.
    corrupt : frames of the source that could not be decoded.
    broke_off : why the source ended before its end; empty where it did not.
    device : where the model ran.
    """

    counts: Counts
    duration_s: float
    fps: float
    flips_per_1000: float
    starts: int
    corrupt: int
    broke_off: str
    device: str


def in_process(worker: WorkerSpec, watchdog: WatchdogSettings) -> OpenEngine:
    """Annotate in a watched process of this machine."""

    def open_engine(answered: Answered, depth: int) -> Engine:
        return Remote(worker, watchdog, answered, depth=depth)

    return open_engine


class Rings:
    """The frame memory for the size in use. Frames of the size before keep theirs until they are let go."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._ring: Ring | None = None

    def slot(self, height: int, width: int, *, timeout_s: float = 0.0) -> Slot | None:
        """Take a slot for a frame of a size; None where all are held."""
        if self._ring is None or (self._ring.geometry.height, self._ring.geometry.width) != (height, width):
            self._ring = Ring.create(self._slots, height, width)
        return self._ring.acquire(timeout_s=timeout_s)


def run_live(
    source: Source,
    open_engine: OpenEngine,
    *,
    draw: Draw,
    display: Display,
    inspect: Inspect,
    settings: VideoSettings,
    stop: threading.Event,
    recording: Recording | None = None,
) -> Summary:
    """Show a source as it comes, with annotations where they are in time.

    Returns when the source ends or `stop` is set. The model may be slow, hang, fail or die: see `Presenter`.
    The recording is written, not closed.

    Raises
    ------
    InvalidInput
        The source turned out to hold no frame; the recording cannot be written.
    """
    recorder = None if recording is None else Recorder(recording)

    def show(shown: Shown) -> None:
        display(shown)
        if recorder is not None:
            recorder.put(shown)

    presenter = Presenter(settings.latency, settings.gate, settings.tracker, draw=draw, display=show)
    engine = open_engine(presenter.answered, 1)
    rings = Rings(_LIVE_SLOTS)
    newest = Newest(source, stop) if source.live else None
    pictures = newest or (
        (index, one, None) for index, one in enumerate(paced(source.pictures(), stop, source.fps))
    )
    begun_s = time.monotonic()
    try:
        for index, picture, decoded_at_s in pictures:
            if stop.is_set() or presenter.error is not None:
                break
            slot = rings.slot(picture.height, picture.width)
            if slot is None:  # nobody takes frames off the presenter
                presenter.counts.frames += 1
                presenter.counts.dropped += 1
                continue
            frame = _decode(index, picture, slot, decoded_at_s)
            presenter.enqueue(frame, slot)
            if engine.inspects_first:
                frame = replace(frame, quality=inspect(frame.image_bgr))
                presenter.inspected(frame.quality)
                engine.offer(frame, slot)
            else:
                engine.offer(frame, slot)
                # While the model works: the picture does not wait for this.
                frame = replace(frame, quality=inspect(frame.image_bgr))
                presenter.inspected(frame.quality)
            if recorder is not None:
                recorder.inspected(index, frame.quality)
                if recorder.error is not None:
                    break
            slot.release()
    finally:
        if newest is not None:
            newest.close()
        presenter.close()
        engine.close()
        if recorder is not None:
            recorder.close()
    if presenter.error is not None:
        raise presenter.error
    if newest is not None:
        presenter.counts.frames += newest.missed
        presenter.counts.dropped += newest.missed
    return _summary(source, presenter.counts, begun_s, presenter.flips, engine)


def run_offline(
    source: Source,
    open_engine: OpenEngine,
    *,
    draw: Draw,
    display: Display,
    inspect: Inspect,
    settings: VideoSettings,
    stop: threading.Event,
) -> Summary:
    """Annotate every frame of a source, in order, as fast as it goes.

    A frame that the model cannot annotate twice goes out clean and is counted as failed.

    Raises
    ------
    InvalidInput
        The model cannot be run, or the source holds no frame.
    """
    answers = _Answers()
    engine = open_engine(answers.put, _OFFLINE_IN_FLIGHT)
    begun_s = time.monotonic()
    counts = Counts()
    canvas, tracker = _Canvas(), Tracker(settings.tracker)
    try:
        engine.wait_ready()
        for frame, slot in _offered(source, engine, answers, counts, inspect, stop):
            annotation, reason = answers.take(frame.index)
            if annotation is None:
                annotation, reason = _again(engine, answers, frame, slot)
            if annotation is not None:
                annotation = tracker.track(annotation)
            counts.annotated += annotation is not None
            counts.failed += annotation is None
            counts.clean += annotation is None
            display(canvas.shown(frame, annotation, reason, draw))
            slot.release()
    finally:
        engine.close()
    return _summary(source, counts, begun_s, 0, engine)


def _offered(
    source: Source,
    engine: Engine,
    answers: _Answers,
    counts: Counts,
    inspect: Inspect,
    stop: threading.Event,
) -> Iterator[tuple[Frame, Slot]]:
    """Decode ahead of the model by a few frames; yield each when it is its turn to be waited for."""
    rings = Rings(_OFFLINE_IN_FLIGHT + 2)
    waiting: list[tuple[Frame, Slot]] = []
    for index, picture in enumerate(source.pictures()):
        if stop.is_set():
            break
        while (slot := rings.slot(picture.height, picture.width)) is None:
            yield waiting.pop(0)
        frame = _decode(index, picture, slot)
        frame = replace(frame, quality=inspect(frame.image_bgr))
        counts.frames += 1
        answers.expect(frame.index)
        engine.offer(frame, slot)
        waiting.append((frame, slot))
        if len(waiting) >= _OFFLINE_IN_FLIGHT:
            yield waiting.pop(0)
    yield from waiting


def _again(engine: Engine, answers: _Answers, frame: Frame, slot: Slot) -> tuple[Annotation | None, str]:
    annotation: Annotation | None = None
    reason = ""
    for _ in range(_OFFLINE_TRIES - 1):
        try:
            engine.wait_ready()
        except DeviceError as error:
            return None, str(error)
        answers.expect(frame.index)
        engine.offer(frame, slot)
        annotation, reason = answers.take(frame.index)
    return annotation, reason


class _Answers:
    """What came of each frame, by its index."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._of: dict[int, tuple[Annotation | None, str] | None] = {}

    def expect(self, index: int) -> None:
        with self._changed:
            self._of[index] = None

    def put(self, task: Task, annotation: Annotation | None, reason: str) -> None:
        with self._changed:
            self._of[task.frame.index] = (annotation, reason)
            self._changed.notify()

    def take(self, index: int) -> tuple[Annotation | None, str]:
        with self._changed:
            self._changed.wait_for(lambda: self._of[index] is not None)
            answer = self._of.pop(index)
            assert answer is not None
            return answer


class _Canvas:
    """One image to draw on, kept from frame to frame."""

    def __init__(self) -> None:
        self._image: UInt8Array | None = None

    def shown(self, frame: Frame, annotation: Annotation | None, reason: str, draw: Draw) -> Shown:
        if self._image is None or self._image.shape != frame.image_bgr.shape:
            self._image = frame.image_bgr.copy()
        else:
            self._image[...] = frame.image_bgr
        begun_s = time.monotonic()
        draw(self._image, annotation, reason)
        now_s = time.monotonic()
        stage_ms = dict(annotation.stage_ms) if annotation is not None else {}
        stage_ms |= {"overlay": 1000 * (now_s - begun_s), "total": 1000 * (now_s - frame.captured_at_s)}
        return Shown(frame, self._image, annotation, annotation is not None, reason, now_s, stage_ms)


def _decode(index: int, picture: Picture, slot: Slot, decoded_at_s: float | None = None) -> Frame:
    picture.write(slot.image_bgr)
    return Frame(index, picture.pts_s, decoded_at_s or time.monotonic(), slot.image_bgr)


def _summary(source: Source, counts: Counts, begun_s: float, flips: int, engine: Engine) -> Summary:
    if not counts.frames:
        why = f": {source.broke_off}" if source.broke_off else ""
        raise InvalidInput(f"{source.name}: expected at least one frame, got none{why}")
    duration_s = time.monotonic() - begun_s
    return Summary(
        counts=counts,
        duration_s=duration_s,
        fps=(counts.frames - counts.dropped) / duration_s,
        flips_per_1000=1000 * flips / counts.frames,
        starts=engine.starts,
        corrupt=source.corrupt,
        broke_off=source.broke_off,
        device=engine.device,
    )
