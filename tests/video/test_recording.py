"""Slow and failing sinks behind a live picture; nothing half kept, nothing kept that nobody looked at."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from trocar.runtime.errors import InvalidInput
from trocar.video.digest import Digest
from trocar.video.frames import Annotation, Frame, Quality, Shown
from trocar.video.privacy import PrivacyGuard, PrivacySettings
from trocar.video.recording import Recorder, Recording
from trocar.video.run import Job, _Opened
from trocar.video.sinks.base import Stream
from trocar.video.sinks.lines import JsonlSink


def shown(index: int) -> Shown:
    image = np.random.default_rng(index).integers(0, 255, (24, 32, 3), np.uint8)
    annotation = Annotation(index, index / 25, np.full((24, 32), index % 5, np.uint8), 2)
    return Shown(Frame(index, index / 25, 0.0, image), image.copy(), annotation, True, "", 0.0, {})


class Kept:
    """A sink that keeps what it was given, as slowly as it is told."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.seen: list[tuple[int, bool, float]] = []
        self.exact = True
        self.error: Exception | None = None
        self.abandoned = False

    def write(self, one: Shown) -> None:
        assert self.go.wait(20)
        if self.error is not None:
            raise self.error
        labels = None if one.annotation is None else one.annotation.labels
        self.seen.append((one.frame.index, labels is not None, one.frame.quality.smoke))
        self.exact &= labels is None or bool(np.all(labels == one.frame.index % 5))
        self.exact &= np.array_equal(one.frame.image_bgr, shown(one.frame.index).image_bgr)

    def close(self) -> tuple[Path, ...]:
        return ()

    def abandon(self) -> None:
        self.abandoned = True


def recorder(sink: Kept) -> tuple[Recorder, Recording]:
    recording = Recording([sink], PrivacyGuard(PrivacySettings()))
    return Recorder(recording), recording


def test_what_waits_for_a_slow_disk_is_recorded_whatever_comes_after() -> None:
    sink = Kept()
    sink.go.clear()
    one, recording = recorder(sink)
    for index in range(100):
        one.put(shown(index))
        one.inspected(index, Quality(smoke=index / 100))
    sink.go.set()
    one.close()
    assert recording.written + recording.missed == 100
    assert recording.written >= 8
    # Which ones went while the disk was slow depends on when its thread began; each kept its own quality.
    kept = [index for index, _, _ in sink.seen]
    assert kept == sorted(set(kept))
    assert len(kept) == recording.written
    assert [smoke for _, _, smoke in sink.seen] == [index / 100 for index in kept]
    assert sink.exact
    assert all(drawn for _, drawn, _ in sink.seen)


def test_a_frame_that_nobody_looked_at_is_blurred() -> None:
    sink = Kept()
    one, recording = recorder(sink)
    one.put(shown(0))
    one.close()
    assert sink.seen == [(0, False, 0.0)]
    assert recording.guard.blurred == 1


@pytest.mark.parametrize("error", [InvalidInput("cannot write it"), KeyError("a fault nobody foresaw")])
def test_a_sink_that_fails_is_never_swallowed(error: Exception) -> None:
    sink = Kept()
    sink.error = error
    one, recording = recorder(sink)
    for index in range(20):
        one.put(shown(index))
        one.inspected(index, Quality())
    with pytest.raises(type(error)):
        one.close()
    assert recording.written == 0


def test_one_sink_that_cannot_be_abandoned_does_not_keep_the_others() -> None:
    class Stuck(Kept):
        def abandon(self) -> None:
            raise OSError(28, "No space left on device")

    last = Kept()
    Recording([Stuck(), last], PrivacyGuard(PrivacySettings())).abandon()
    assert last.abandoned


def test_nothing_is_left_where_a_later_file_cannot_be_opened(tmp_path: Path) -> None:
    class Named:
        name, fps, frames = "clip.mp4", 25.0, None

    (tmp_path / "taken").mkdir()
    files = {"jsonl": tmp_path / "a.jsonl", "overlay": tmp_path / "o.mp4", "yolo": tmp_path / "taken"}
    opened = _Opened(Job("clip.mp4", files=files), Named(), "instrument", Digest(25.0))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="it exists"):
        opened.write(shown(0))
    opened.abandon()
    assert [one.name for one in tmp_path.iterdir()] == ["taken"]


def test_a_log_on_a_full_disk_is_abandoned_without_a_trace(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "a.jsonl", Stream("c", 24, 32, 25.0, None, ("instrument",)))
    sink._text.close()
    sink._text = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115 (the sink closes it)
    sink.write(shown(0))
    sink.abandon()
    assert list(tmp_path.iterdir()) == []
