"""Every frame of a file, annotated by real worker processes; see `test_live.py` for the live way."""

from __future__ import annotations

import resource
import threading
from pathlib import Path

import numpy as np
import pytest
from stills import Stills, double

from trocar.runtime.errors import InvalidInput
from trocar.video.frames import Annotation, Quality, Shown, UInt8Array
from trocar.video.gate import GateSettings
from trocar.video.pipeline import Summary, VideoSettings, in_process, run_live, run_offline
from trocar.video.presenter import LatencySettings
from trocar.video.quality import inspect
from trocar.video.remote import WatchdogSettings, WorkerSpec

FPS = 50.0
SETTINGS = VideoSettings(
    latency=LatencySettings(soft_ms=33, hard_ms=50),
    gate=GateSettings(on_after=3),
    watchdog=WatchdogSettings(stuck_ms=300, start_s=20),
)


class Screen:
    """What was shown: index, whether overlays were on, why not, and whether the picture was the frame's."""

    def __init__(self) -> None:
        self.shown: list[tuple[int, bool, str]] = []
        self.lag_s: list[float] = []
        self.shades: list[int] = []

    def __call__(self, shown: Shown) -> None:
        self.shown.append((shown.frame.index, shown.ai_on, shown.reason))
        self.shades.append(int(shown.image_bgr[-1, -1, 0]))
        if shown.annotation is not None:
            self.lag_s.append(shown.frame.pts_s - shown.annotation.pts_s)

    @property
    def indices(self) -> list[int]:
        return [index for index, _, _ in self.shown]


def draw(image: UInt8Array, annotation: Annotation | None, reason: str) -> None:
    if annotation is not None:
        image[annotation.labels == annotation.object_from] = 255


def clear(image: UInt8Array) -> Quality:
    return Quality()


def whole(screen: Screen, frames: int) -> None:
    """Every frame went out once, in order, and none was another one's picture."""
    assert screen.indices == list(range(frames))
    assert screen.shades == [index % 251 for index in range(frames)]


def test_a_display_that_raises_ends_the_run_with_its_error() -> None:
    def broken(shown: Shown) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run_live(
            Stills(50, fps=FPS),
            in_process(double(), SETTINGS.watchdog),
            draw=draw,
            display=broken,
            inspect=clear,
            settings=SETTINGS,
            stop=threading.Event(),
        )


def offline(worker: WorkerSpec, source: Stills) -> tuple[Screen, Summary]:
    screen = Screen()
    summary = run_offline(
        source,
        in_process(worker, SETTINGS.watchdog),
        draw=draw,
        display=screen,
        inspect=clear,
        settings=SETTINGS,
        stop=threading.Event(),
    )
    return screen, summary


def test_offline_annotates_every_frame_in_order() -> None:
    screen, summary = offline(double(ms=3), Stills(80))
    whole(screen, 80)
    assert all(on for _, on, _ in screen.shown)
    assert (summary.counts.annotated, summary.counts.skipped, summary.counts.dropped) == (80, 0, 0)
    assert set(np.round(screen.lag_s, 9)) == {0.0}


@pytest.mark.parametrize("then", [(36, 64), (145, 257), (1, 1)])
def test_another_size_midway_costs_no_frame(then: tuple[int, int]) -> None:
    source = Stills(40, then=then)
    sizes: list[tuple[int, ...]] = []
    shades: list[int] = []

    def display(shown: Shown) -> None:
        sizes.append(shown.image_bgr.shape[:2])
        shades.append(int(shown.image_bgr[-1, -1, 0]))
        assert shown.annotation is not None
        assert shown.annotation.labels.shape == shown.image_bgr.shape[:2]

    summary = run_offline(
        source,
        in_process(double(ms=2), SETTINGS.watchdog),
        draw=lambda *_: None,
        display=display,
        inspect=clear,
        settings=SETTINGS,
        stop=threading.Event(),
    )
    assert sizes == [(72, 128)] * 20 + [then] * 20
    assert shades == list(range(40))
    assert summary.counts.annotated == 40


def test_an_8k_frame_passes_and_a_larger_one_is_refused() -> None:
    screen, _ = offline(double(), Stills(2, size=(4320, 7680)))
    assert screen.indices == [0, 1]
    with pytest.raises(InvalidInput, match="1 to 8192 pixels a side, got 16384 x 10"):
        offline(double(), Stills(1, size=(10, 16384)))


def test_offline_tries_a_frame_again_when_the_model_dies(tmp_path: Path) -> None:
    screen, summary = offline(double(fault="crash", at=10, flag=str(tmp_path / "once")), Stills(30))
    whole(screen, 30)
    assert (summary.counts.annotated, summary.counts.failed, summary.starts) == (30, 0, 2)


def test_offline_says_which_frames_no_try_could_annotate() -> None:
    screen, summary = offline(double(fault="refuse", at=25), Stills(30))
    whole(screen, 30)
    assert (summary.counts.annotated, summary.counts.failed) == (25, 5)
    assert screen.shown[25] == (25, False, "the model gave values that are not numbers")


def test_offline_refuses_a_model_that_cannot_be_run() -> None:
    with pytest.raises(InvalidInput, match="expected a model, got none"):
        offline(WorkerSpec("doubles:missing"), Stills(3))


def test_memory_stays_where_it_is() -> None:
    resident_mb: list[float] = []

    def display(shown: Shown) -> None:
        if shown.frame.index in (200, 999):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident_mb.append(pages * resource.getpagesize() / 1e6)

    run_offline(
        Stills(1000, size=(360, 640)),
        in_process(double(), SETTINGS.watchdog),
        draw=lambda *_: None,
        display=display,
        inspect=inspect,
        settings=SETTINGS,
        stop=threading.Event(),
    )
    # A frame of this size is 0.7 MB: one kept in a hundred would show.
    assert resident_mb[1] - resident_mb[0] < 5


def test_a_source_without_frames_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one frame"):
        offline(double(), Stills(0))
