"""Everything that is kept or sent: the privacy guard first, then each sink.

Live, the sinks run in a thread of their own on copies: a slow disk costs recorded frames, which are counted,
and never shown ones.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from trocar.video.frames import Quality, Shown, UInt8Array
from trocar.video.privacy import PrivacyGuard
from trocar.video.sinks.base import Sink

# Frames that may wait for the sinks: a third of a second.
_QUEUE = 8


class Recording:
    """Sinks behind a privacy guard. A sink that fails ends the recording: all files, or the error.

    Parameters
    ----------
    sinks : opened; closed or abandoned together.

    `written` and `missed` count the frames that were recorded, and those a slow disk left no room for.
    """

    def __init__(self, sinks: Sequence[Sink], guard: PrivacyGuard) -> None:
        self._sinks, self.guard = tuple(sinks), guard
        self.written = 0
        self.missed = 0

    def write(self, shown: Shown) -> None:
        """Take a frame; its image may be blurred in place.

        Raises
        ------
        InvalidInput
            A sink cannot write.
        """
        if self.guard.guard(shown.image_bgr, shown.frame.quality):
            # The clean frame is lent to the sinks too; where there is no annotation none of them keeps it.
            shown = replace(shown, annotation=None, reason=shown.reason or "out of body, not kept")
        for sink in self._sinks:
            sink.write(shown)
        self.written += 1

    def close(self) -> tuple[Path, ...]:
        """Finish all files, and say which."""
        return tuple(path for sink in self._sinks for path in sink.close())

    def abandon(self) -> None:
        """Remove all files that were begun."""
        for sink in self._sinks:
            # One that cannot be removed must not keep the others.
            with suppress(Exception):
                sink.abandon()


class Recorder:
    """A recording in a thread of its own, for live streams."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._changed = threading.Condition()
        self._waiting: deque[_Copy] = deque()
        self._spare: list[_Copy] = []
        self._quality: dict[int, Quality] = {}
        self._ending = False
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="video-recorder", daemon=True)
        self._thread.start()

    def put(self, shown: Shown) -> None:
        """Copy a frame that went out; without room for it, it is not recorded, and counted."""
        with self._changed:
            if len(self._waiting) >= _QUEUE or self.error is not None:
                self._recording.missed += 1
                self._quality.pop(shown.frame.index, None)
                return
            spare = self._spare.pop() if self._spare else None
        copied = _Copy(shown) if spare is None else spare
        copied.take(shown)
        with self._changed:
            self._waiting.append(copied)
            self._changed.notify()

    def inspected(self, index: int, quality: Quality) -> None:
        """Take a frame's quality: nothing is recorded before it has been looked at."""
        with self._changed:
            self._quality[index] = quality
            # Of frames that were dropped nobody asks; those that wait for a slow disk keep theirs.
            waiting = {one.shown.frame.index for one in self._waiting}
            for old in [one for one in self._quality if one < index - 4 * _QUEUE and one not in waiting]:
                del self._quality[old]
            self._changed.notify()

    def close(self) -> None:
        """Write what waits, then end.

        Raises
        ------
        Exception
            A sink could not write: what it said.
        """
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            try:
                self._recording.write(taken.shown)
            except Exception as error:  # raised again by `close`: the files would be incomplete
                self.error = error
            with self._changed:
                self._spare.append(taken)

    def _take(self) -> _Copy | None:
        with self._changed:
            self._changed.wait_for(self._ready)
            if not self._waiting or self.error is not None:
                return None
            taken = self._waiting.popleft()
            shown = taken.shown
            quality = self._quality.pop(shown.frame.index, None)
        if quality is None:
            # The stream ended between showing and inspecting: what nobody looked at counts as from outside.
            quality = Quality(out_of_body=1.0)
        taken.shown = replace(shown, frame=replace(shown.frame, quality=quality))
        return taken

    def _ready(self) -> bool:
        if self.error is not None or (self._ending and not self._waiting):
            return True
        return bool(self._waiting) and (self._ending or self._waiting[0].shown.frame.index in self._quality)


class _Copy:
    """A frame in memory of its own, which serves the next one too where the sizes agree."""

    def __init__(self, shown: Shown) -> None:
        self.shown = shown
        self._picture: UInt8Array = np.empty((0, 0, 3), np.uint8)
        self._clean = self._picture
        self._labels: UInt8Array = np.empty((0, 0), np.uint8)

    def take(self, shown: Shown) -> None:
        """Copy a frame, its picture and its label map."""
        image = shown.image_bgr
        if self._picture.shape != image.shape:
            self._picture, self._clean = np.empty_like(image), np.empty_like(image)
            self._labels = np.empty(image.shape[:2], np.uint8)
        np.copyto(self._picture, image)
        np.copyto(self._clean, shown.frame.image_bgr)
        annotation = shown.annotation
        if annotation is not None:
            np.copyto(self._labels, annotation.labels)
            annotation = replace(annotation, labels=self._labels)
        self.shown = replace(
            shown,
            image_bgr=self._picture,
            frame=replace(shown.frame, image_bgr=self._clean),
            annotation=annotation,
        )
