"""Everything that is kept or sent: the privacy guard first, then each sink.

Live, the sinks run in a thread of their own on copies: a slow disk costs recorded frames, which are counted,
and never shown ones.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trocar.runtime.errors import InvalidInput
from trocar.video.frames import Quality, Shown
from trocar.video.privacy import PrivacyGuard
from trocar.video.sinks.base import Sink

# Frames that may wait for the sinks: a third of a second.
_QUEUE = 8


class Recording:
    """Sinks behind a privacy guard. A sink that fails ends the recording: all files, or the error.

    Parameters
    ----------
    sinks : opened; closed or abandoned together.
    """

    def __init__(self, sinks: Sequence[Sink], guard: PrivacyGuard) -> None:
        self._sinks, self.guard = tuple(sinks), guard
        self.written = 0

    def write(self, shown: Shown) -> None:
        """Take a frame; its image may be blurred in place.

        Raises
        ------
        InvalidInput
            A sink cannot write.
        """
        if self.guard.guard(shown.image_bgr, shown.frame.quality):
            # The clean frame is lent to the sinks too; where there is no annotation none of them keeps it.
            shown = replace(shown, annotation=None)
        for sink in self._sinks:
            sink.write(shown)
        self.written += 1

    def close(self) -> tuple[Path, ...]:
        """Finish all files, and say which."""
        return tuple(path for sink in self._sinks for path in sink.close())

    def abandon(self) -> None:
        """Remove all files that were begun."""
        for sink in self._sinks:
            sink.abandon()


class Recorder:
    """A recording in a thread of its own, for live streams."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._changed = threading.Condition()
        self._waiting: deque[Shown] = deque()
        self._spare: list[Shown] = []
        self._quality: dict[int, Quality] = {}
        self._ending = False
        self.missed = 0
        self.error: InvalidInput | None = None
        self._thread = threading.Thread(target=self._run, name="video-recorder", daemon=True)
        self._thread.start()

    def put(self, shown: Shown) -> None:
        """Copy a frame that went out; without room for it, it is not recorded, and counted."""
        with self._changed:
            if len(self._waiting) >= _QUEUE or self.error is not None:
                self.missed += 1
                self._quality.pop(shown.frame.index, None)
                return
            spare = self._spare.pop() if self._spare else None
        copied = _copy(shown, spare)
        with self._changed:
            self._waiting.append(copied)
            self._changed.notify()

    def inspected(self, index: int, quality: Quality) -> None:
        """Take a frame's quality: nothing is recorded before it has been looked at."""
        with self._changed:
            self._quality[index] = quality
            # Of frames that were dropped nobody asks.
            for old in [one for one in self._quality if one < index - 4 * _QUEUE]:
                del self._quality[old]
            self._changed.notify()

    def close(self) -> None:
        """Write what waits, then end.

        Raises
        ------
        InvalidInput
            A sink could not write.
        """
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        while (shown := self._take()) is not None:
            try:
                self._recording.write(shown)
            except InvalidInput as error:
                self.error = error
            with self._changed:
                self._spare.append(shown)

    def _take(self) -> Shown | None:
        with self._changed:
            self._changed.wait_for(self._ready)
            if not self._waiting or self.error is not None:
                return None
            shown = self._waiting.popleft()
            quality = self._quality.pop(shown.frame.index, None)
        if quality is None:
            # The stream ended between showing and inspecting: what nobody looked at counts as from outside.
            quality = Quality(out_of_body=1.0)
        return replace(shown, frame=replace(shown.frame, quality=quality))

    def _ready(self) -> bool:
        if self.error is not None or (self._ending and not self._waiting):
            return True
        return bool(self._waiting) and (self._ending or self._waiting[0].frame.index in self._quality)


def _copy(shown: Shown, spare: Shown | None) -> Shown:
    """A frame in memory of its own; that of an earlier one where the sizes agree."""
    image = shown.image_bgr
    fits = spare is not None and spare.image_bgr.shape == image.shape
    picture = spare.image_bgr if fits and spare is not None else image.copy()
    clean = spare.frame.image_bgr if fits and spare is not None else image.copy()
    picture[...] = image
    clean[...] = shown.frame.image_bgr
    annotation = shown.annotation
    if annotation is not None:
        annotation = replace(annotation, labels=annotation.labels.copy())
    return replace(
        shown, image_bgr=picture, frame=replace(shown.frame, image_bgr=clean), annotation=annotation
    )
