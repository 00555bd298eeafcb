"""What a frame costs in memory of NumPy's and Python's while a stream runs: next to nothing.

`tracemalloc` sees both; not what OpenCV, ONNX Runtime and FFmpeg take inside themselves.
"""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from stills import Stills, double

from trocar.video.annotator.renderer import render_frame
from trocar.video.frames import Frame, Shown, UInt8Array
from trocar.video.overlay import Overlay, instrument_palette
from trocar.video.pipeline import VideoSettings, in_process, run_live, run_offline
from trocar.video.privacy import PrivacyGuard, PrivacySettings
from trocar.video.quality import Inspector
from trocar.video.recording import Recording
from trocar.video.remote import WatchdogSettings
from trocar.video.segmenter import open_segmenter
from trocar.video.source import Picture

SIZES = [(720, 1280), (1080, 1920)]
# A frame of the smaller size is 2700 KiB.
MOST_BYTES = 64 * 1024
SETTINGS = VideoSettings(watchdog=WatchdogSettings(stuck_ms=5000))
WARM_UP, FRAMES = 20, 60


@pytest.fixture(scope="module")
def scene_bgr() -> UInt8Array:
    return np.ascontiguousarray(render_frame(11).image_rgb[..., ::-1])


@pytest.fixture(autouse=True)
def _traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


class Peaks:
    """How much more than before each frame took at its highest, once the stream is steady."""

    def __init__(self) -> None:
        self.bytes: list[int] = []
        self._frames = 0
        self._before = 0

    def mark(self) -> None:
        now, highest = tracemalloc.get_traced_memory()
        self._frames += 1
        if self._frames > WARM_UP:
            self.bytes.append(highest - self._before)
        self._before = now
        tracemalloc.reset_peak()


class Moving(Stills):
    """A scene that shifts from frame to frame, written where the pipeline wants it and nowhere else."""

    def __init__(self, image: UInt8Array, count: int, fps: float = 25.0) -> None:
        super().__init__(count, size=(image.shape[0], image.shape[1]), fps=fps)
        self._image = image

    def pictures(self) -> Iterator[Picture]:
        for picture in super().pictures():
            yield _Moved(picture, self._image)


class _Moved:
    def __init__(self, still: Picture, image: UInt8Array) -> None:
        self.pts_s, self.height, self.width = still.pts_s, still.height, still.width
        self._image = image

    def write(self, image_bgr: UInt8Array) -> None:
        shift = 1 + int(100 * self.pts_s) % 64
        image_bgr[:, shift:] = self._image[:, :-shift]
        image_bgr[:, :shift] = self._image[:, -shift:]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_model_s_side(scene_bgr: UInt8Array, size: tuple[int, int]) -> None:
    image = np.asarray(cv2.resize(scene_bgr, size[::-1]), np.uint8)
    segmenter = open_segmenter(threads=1, device="cpu")
    labels = np.empty(size, np.uint8)
    peaks, found = Peaks(), 0
    for index in range(WARM_UP + 10):
        found += len(segmenter.annotate(Frame(index, index / 25, 0.0, image), labels).instances)
        peaks.mark()
    assert found, "a picture without instruments asks nothing of what is counted here"
    assert max(peaks.bytes) < MOST_BYTES


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("live", [False, True], ids=["offline", "live"])
def test_the_picture_s_side(scene_bgr: UInt8Array, size: tuple[int, int], live: bool) -> None:
    image = np.asarray(cv2.resize(scene_bgr, size[::-1]), np.uint8)
    source = Moving(image, FRAMES, fps=10.0 if live else 25.0)
    peaks, drawn = Peaks(), []

    def display(shown: Shown) -> None:
        drawn.append(shown.annotation is not None)
        peaks.mark()

    engine = in_process(double(ms=1), SETTINGS.watchdog)
    common = {
        "draw": Overlay(instrument_palette()).draw,
        "display": display,
        "inspect": Inspector(),
        "settings": SETTINGS,
        "stop": threading.Event(),
    }
    run: Callable[..., object] = run_live if live else run_offline
    if live:
        common["recording"] = Recording([], PrivacyGuard(PrivacySettings()))
    run(source, engine, **common)
    # On a loaded machine a live picture may be dropped; that there were enough of them is what counts.
    assert len(drawn) > FRAMES // 2 if live else drawn == [True] * FRAMES
    assert sorted(peaks.bytes)[len(peaks.bytes) * 9 // 10] < MOST_BYTES
    # Now and then one more copy of a frame is taken into the pool, or a list grows.
    assert np.mean(peaks.bytes) < 2 * MOST_BYTES
