"""A fullscreen picture with OpenCV, where OpenCV was built with windows and there is a screen."""

from __future__ import annotations

import os
import threading

import cv2

from trocar.runtime.errors import InvalidInput
from trocar.video.frames import UInt8Array

_WINDOW = "trocar"
_ENDS = (ord("q"), 27)


class Display:
    """One window. `show` is called from the presenter's thread, and creates it there."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._open = False

    def show(self, image_bgr: UInt8Array) -> None:
        """Show a picture; q or Esc ends the stream."""
        if not self._open:
            cv2.namedWindow(_WINDOW, cv2.WINDOW_NORMAL)
            cv2.setWindowProperty(_WINDOW, cv2.WND_PROP_FULLSCREEN, cv2.WINDOW_FULLSCREEN)
            self._open = True
        cv2.imshow(_WINDOW, image_bgr)
        if cv2.waitKey(1) & 0xFF in _ENDS:
            self._stop.set()

    def close(self) -> None:
        """Close the window."""
        if self._open:
            cv2.destroyAllWindows()


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
            "pip uninstall opencv-python-headless && pip install opencv-python"
        )
    return Display(stop)
