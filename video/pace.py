"""When pictures are taken from a source: a file's at their time, a camera's as they come."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator

from trocar.video.source import Picture, Source

# Decoded pictures that may wait: one more than one, for two that the network delivers at once.
_WAITING = 2
# Who sends nothing for this long is gone. Less than a socket's time-out, after which FFmpeg hands out the
# last picture and waits once more.
_SILENT_S = 5.0
_LOOK_S = 0.1
_END_S = 0.5
_LONGEST_REST_S = 0.02


def paced(pictures: Iterator[Picture], stop: threading.Event, fps: float | None = None) -> Iterator[Picture]:
    """Yield each picture when its time has come: a file played as a camera would deliver it.

    With `fps` the next one is decoded half a frame's time before it is due, and not while the last one is
    in work. `stop` ends a wait, however long a gap the file has.
    """
    # Where a file's frames come unevenly, half of the usual time may be long.
    rest_s = min(0.5 / fps, _LONGEST_REST_S) if fps else 0.0
    begun_s: float | None = None
    for picture in pictures:
        if begun_s is None:
            begun_s = time.monotonic() - picture.pts_s
        if (left_s := begun_s + picture.pts_s - time.monotonic()) > 0:
            stop.wait(left_s)
        yield picture
        if (left_s := begun_s + picture.pts_s + rest_s - time.monotonic()) > 0:
            stop.wait(left_s)


class Newest:
    """A live source, read in a thread of its own: who takes its pictures slowly misses some and does not lag.

    Without it pictures that are not taken in time queue up in the socket or the camera's buffers, and all
    that follow are late. Iterating yields each picture with its index in the source's order and the monotonic
    time when it was decoded; it ends with the source, with `stop`, or when nothing comes for `silent_s`.

    Parameters
    ----------
    missed : pictures that were let go for newer ones so far.
    """

    def __init__(self, source: Source, stop: threading.Event, *, silent_s: float = _SILENT_S) -> None:
        self._source, self._stop, self._silent_s = source, stop, silent_s
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, Picture, float]] = deque()
        self._over = False
        self._error: BaseException | None = None
        self.missed = 0
        self._thread = threading.Thread(target=self._read, name="video-source", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[tuple[int, Picture, float]]:
        while (taken := self._take()) is not None:
            yield taken
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Read no more. A read that hangs is left to its time-out."""
        with self._changed:
            self._over = True
        self._thread.join(_END_S)

    def _take(self) -> tuple[int, Picture, float] | None:
        until_s = time.monotonic() + self._silent_s
        with self._changed:
            # In short waits: a signal handler sets `stop`, and may not wake anybody.
            while not (self._waiting or self._over or self._stop.is_set()):
                self._changed.wait(_LOOK_S)
                if time.monotonic() > until_s and not self._waiting:
                    self._source.broke_off = f"nothing came for {self._silent_s:g} s"
                    return None
            return None if self._stop.is_set() or not self._waiting else self._waiting.popleft()

    def _read(self) -> None:
        try:
            for index, picture in enumerate(self._source.pictures()):
                with self._changed:
                    if self._over:
                        return
                    self._waiting.append((index, picture, time.monotonic()))
                    if len(self._waiting) > _WAITING:
                        self._waiting.popleft()
                        self.missed += 1
                    self._changed.notify()
        except BaseException as error:  # raised again by whoever iterates
            self._error = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify()
