"""A fullscreen picture with OpenCV, where OpenCV was built with windows and there is a screen."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import cv2
import numpy as np

from trocar.runtime.errors import InvalidInput
from trocar.video.frames import UInt8Array

_T = TypeVar("_T")
_WINDOW = "trocar"
_ENDS = (ord("q"), 27)
# How often keys are looked for while no picture comes.
_LOOK_S = 0.02
_APPEARS_MS = 50
# Qt ends the whole process where it finds no screen, so another one has to try.
_TRY = "import cv2; cv2.namedWindow('trocar', cv2.WINDOW_NORMAL); cv2.waitKey(1)"
_TRY_S = 20.0


class Display:
    """One window. `show` takes pictures from any thread; they appear where `during` was called.

    That has to be the program's first thread: Qt draws in no other.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._changed = threading.Condition()
        # Written by `show`, and on the screen; they change places.
        self._next: UInt8Array = np.empty((0, 0, 3), np.uint8)
        self._seen = self._next
        self._fresh = False

    def show(self, image_bgr: UInt8Array) -> None:
        """Copy a picture for the screen; one that has not appeared by then never does."""
        with self._changed:
            if self._next.shape != image_bgr.shape:
                self._next = np.empty_like(image_bgr)
            np.copyto(self._next, image_bgr)
            self._fresh = True
            self._changed.notify()

    def during(self, work: Callable[[], _T]) -> _T:
        """Do some work in another thread, with the window open; q, Esc or closing it stops the work."""
        done: Future[_T] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except BaseException as error:  # raised again below
                done.set_exception(error)

        threading.Thread(target=run, name="video-display", daemon=True).start()
        cv2.namedWindow(_WINDOW, cv2.WINDOW_NORMAL | cv2.WINDOW_GUI_NORMAL)
        full = False
        try:
            while not done.done() and not self._stop.is_set():
                if self._turn():
                    cv2.imshow(_WINDOW, self._seen)
                    if not full:
                        # A window that is not on the screen yet may be forgotten by the window manager.
                        cv2.waitKey(_APPEARS_MS)
                        cv2.setWindowProperty(_WINDOW, cv2.WND_PROP_FULLSCREEN, cv2.WINDOW_FULLSCREEN)
                        full = True
                if cv2.waitKey(1) & 0xFF in _ENDS or _closed():
                    self._stop.set()
        finally:
            with contextlib.suppress(cv2.error):
                cv2.destroyAllWindows()
        return done.result()

    def _turn(self) -> bool:
        """Wait a moment for a picture; with one, make it the one to be seen."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._fresh, _LOOK_S):
                return False
            self._next, self._seen = self._seen, self._next
            self._fresh = False
            return True


def _closed() -> bool:
    try:
        return cv2.getWindowProperty(_WINDOW, cv2.WND_PROP_VISIBLE) < 1
    except cv2.error:  # the last window took all of Qt with it
        return True


def open_display(stop: threading.Event) -> Display:
    """Say whether there is a screen before the stream begins.

    Raises
    ------
    InvalidInput
        There is none, or this OpenCV has no windows.
    """
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise InvalidInput("--display: expected a screen, got none (DISPLAY is not set)")
    gui = next((line for line in cv2.getBuildInformation().splitlines() if "GUI:" in line), "")
    if "NONE" in gui.upper():
        raise InvalidInput(
            "--display: expected an OpenCV with windows, got the headless one: "
            "pip install --no-deps --force-reinstall opencv-python"
        )
    # Qt's complaints that it brings no fonts; nothing is written with them.
    os.environ.setdefault("QT_LOGGING_RULES", "default.warning=false")
    _try()
    return Display(stop)


def _try() -> None:
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _TRY], capture_output=True, text=True, timeout=_TRY_S, check=False
        )
        said = tried.stderr.strip().splitlines() or ["OpenCV said nothing"]
    except subprocess.TimeoutExpired:
        tried, said = None, [f"no window within {_TRY_S:g} s"]
    if tried is None or tried.returncode:
        where = os.environ.get("DISPLAY") or os.environ["WAYLAND_DISPLAY"]
        raise InvalidInput(f"--display: expected to open a window on {where}: {said[0]}")
