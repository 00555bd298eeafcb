"""The window's loop, with an OpenCV that only keeps account; a real window is in tests/integration."""

from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np
import pytest

from trocar.video.display import Display


class Window:
    """Stands for OpenCV's."""

    def __init__(self, monkeypatch: Any) -> None:
        self.calls: list[str] = []
        self.seen: list[int] = []
        self.threads: set[str] = set()
        self.key, self.visible = -1, 1.0
        for name in (
            "namedWindow",
            "setWindowProperty",
            "imshow",
            "waitKey",
            "getWindowProperty",
            "destroyAllWindows",
        ):
            monkeypatch.setattr(cv2, name, getattr(self, name))

    def namedWindow(self, name: str, flags: int) -> None:  # noqa: N802
        self.calls.append("open")

    def setWindowProperty(self, name: str, which: int, value: float) -> None:  # noqa: N802
        assert (which, value) == (cv2.WND_PROP_FULLSCREEN, cv2.WINDOW_FULLSCREEN)
        self.calls.append("fullscreen")

    def imshow(self, name: str, image: np.ndarray) -> None:
        self.seen.append(int(image[0, 0, 0]))
        self.threads.add(threading.current_thread().name)

    def waitKey(self, delay_ms: int) -> int:  # noqa: N802
        return self.key

    def getWindowProperty(self, name: str, which: int) -> float:  # noqa: N802
        if self.visible < 0:
            raise cv2.error("NULL guiReceiver")
        return self.visible

    def destroyAllWindows(self) -> None:  # noqa: N802
        self.calls.append("close")


@pytest.fixture
def window(monkeypatch: Any) -> Window:
    return Window(monkeypatch)


def plain(shade: int, size: tuple[int, int] = (4, 6)) -> np.ndarray:
    return np.full((*size, 3), shade, np.uint8)


def test_pictures_appear_in_the_thread_that_opened_the_window(window: Window) -> None:
    display = Display(threading.Event())

    def work() -> str:
        for shade in (10, 20, 30):
            display.show(plain(shade, (4 + shade, 6)))
            until = threading.Event()
            while window.seen[-1:] != [shade]:
                until.wait(0.001)
        return "done"

    assert display.during(work) == "done"
    assert window.seen == [10, 20, 30]
    assert window.threads == {threading.current_thread().name}
    assert window.calls == ["open", "fullscreen", "close"]


def test_a_picture_is_copied_and_the_newest_is_the_one_to_appear(window: Window) -> None:
    display = Display(threading.Event())
    image = plain(1)
    display.show(image)
    image[...] = 2
    display.show(image)
    image[...] = 3
    assert display._turn()
    assert int(display._seen[0, 0, 0]) == 2
    assert not display._turn()


@pytest.mark.parametrize(("key", "visible"), [(ord("q"), 1.0), (27, 1.0), (-1, 0.0), (-1, -1.0)])
def test_q_escape_and_closing_stop_the_work(window: Window, key: int, visible: float) -> None:
    stop = threading.Event()
    window.key, window.visible = key, visible
    assert Display(stop).during(lambda: stop.wait(20)) is True
    assert window.calls[-1] == "close"


def test_what_the_work_raises_comes_out_and_the_window_goes(window: Window) -> None:
    def work() -> None:
        raise ValueError("no such frame")

    with pytest.raises(ValueError, match="no such frame"):
        Display(threading.Event()).during(work)
    assert window.calls[-1] == "close"
