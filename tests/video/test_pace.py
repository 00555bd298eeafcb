"""A file's pictures at their time, a camera's as they come."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from stills import Still, Stills

from trocar.video.pace import Newest, paced


def test_paced_pictures_come_when_their_time_has_come() -> None:
    source = Stills(6)
    begun_s = time.monotonic()
    came_s = [(time.monotonic() - begun_s, one.pts_s) for one in paced(source.pictures(), threading.Event())]
    source.close()
    # None early; how late depends on the machine.
    assert all(came - came_s[0][0] >= pts_s - 0.005 for came, pts_s in came_s)


def test_the_next_picture_is_asked_for_once_the_last_one_is_out_of_work() -> None:
    asked_s: list[float] = []

    class Now:
        height = width = 2

        def __init__(self, pts_s: float) -> None:
            asked_s.append(time.monotonic())
            self.pts_s = pts_s

        def write(self, image_bgr: np.ndarray) -> None:
            raise AssertionError("nobody asks for it")

    pictures = (Now(0.1 * index) for index in range(4))
    given_s = [time.monotonic() for _ in paced(pictures, threading.Event(), fps=10.0)]
    # Not beside the model, and not so late that a slow decoder would delay the picture.
    assert all(asked - given > 0.018 for given, asked in zip(given_s, asked_s[1:], strict=False))
    assert np.median(np.subtract(given_s[1:], asked_s[1:])) > 0.05


def test_stop_ends_the_wait_for_a_picture_of_next_week() -> None:
    class Later:
        height = width = 2

        def __init__(self, pts_s: float) -> None:
            self.pts_s = pts_s

        def write(self, image_bgr: np.ndarray) -> None:
            raise AssertionError("nobody asks for it")

    stop = threading.Event()
    pictures = paced(iter([Later(0.0), Later(600_000.0)]), stop)
    next(pictures)
    threading.Timer(0.05, stop.set).start()
    assert next(pictures).pts_s == 600_000.0


class Camera(Stills):
    """Gives pictures when it is told to; `hold` it and it is silent."""

    def __init__(self, count: int, *, error: Exception | None = None) -> None:
        super().__init__(count, live=True)
        self.may_go = threading.Semaphore(0)
        self._error = error

    def pictures(self) -> Iterator[Still]:
        for picture in super().pictures():
            self.may_go.acquire()
            yield picture
        if self._error is not None:
            raise self._error


def test_who_takes_pictures_in_time_gets_them_all() -> None:
    camera = Camera(20)
    newest = Newest(camera, threading.Event())
    found = []
    camera.may_go.release()
    for index, picture, at_s in newest:
        found.append((index, picture.pts_s))
        assert time.monotonic() - at_s < 5
        camera.may_go.release()
    assert found == [(index, index / 25) for index in range(20)]
    assert newest.missed == 0


def test_who_is_slow_gets_the_newest_and_a_count_of_the_rest() -> None:
    camera = Camera(50)
    newest = Newest(camera, threading.Event())
    camera.may_go.release(50)
    newest._thread.join(10)
    assert [index for index, _, _ in newest] == [48, 49]
    assert newest.missed == 48


def test_silence_is_the_end() -> None:
    camera = Camera(2)
    newest = Newest(camera, threading.Event(), silent_s=0.3)
    camera.may_go.release()
    assert [index for index, _, _ in newest] == [0]
    assert camera.broke_off == "nothing came for 0.3 s"


def test_stop_ends_a_wait_for_a_silent_camera() -> None:
    camera, stop = Camera(2), threading.Event()
    newest = Newest(camera, stop)
    threading.Timer(0.1, stop.set).start()
    begun_s = time.monotonic()
    assert list(newest) == []
    newest.close()
    assert time.monotonic() - begun_s < 3
    assert camera.broke_off == ""


def test_an_error_comes_after_what_was_read_before_it() -> None:
    camera = Camera(1, error=ValueError("a frame too large"))
    newest = Newest(camera, threading.Event())
    camera.may_go.release()
    found = []
    with pytest.raises(ValueError, match="a frame too large"):
        found.extend(index for index, _, _ in newest)
    assert newest.missed == 0
