"""A contact sheet: six pictures at even distances, as shown, in one PNG."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from trocar.video.frames import Shown, UInt8Array
from trocar.video.sinks.base import Stream, Whole, writing

_COLUMNS, _ROWS = 3, 2
_WIDTH_PX = 480


class SheetSink:
    """Keeps twice the pictures it needs, however long the stream becomes, and lays out six of them."""

    def __init__(self, path: Path, stream: Stream) -> None:
        self._file = Whole(path)
        self._size = (_WIDTH_PX, max(1, round(stream.height * _WIDTH_PX / stream.width)))
        self._kept: list[UInt8Array] = []
        self._every, self._seen = 1, 0

    def write(self, shown: Shown) -> None:
        """Keep the frame if it is its turn."""
        self._seen += 1
        if (self._seen - 1) % self._every:
            return
        small = cv2.resize(shown.image_bgr, self._size, interpolation=cv2.INTER_AREA)
        self._kept.append(np.asarray(small, np.uint8))
        if len(self._kept) > 2 * _COLUMNS * _ROWS:
            del self._kept[1::2]
            self._every *= 2

    def close(self) -> tuple[Path, ...]:
        """Lay out and write."""
        chosen = np.linspace(0, len(self._kept) - 1, _COLUMNS * _ROWS).round().astype(int)
        pictures = [self._kept[index] for index in chosen]
        rows = [np.hstack(pictures[row * _COLUMNS : (row + 1) * _COLUMNS]) for row in range(_ROWS)]
        with writing(self._file.path):
            self._file.partial.write_bytes(cv2.imencode(".png", np.vstack(rows))[1].tobytes())
        return self._file.publish()

    def abandon(self) -> None:
        """Nothing was written yet."""
        self._file.remove()
