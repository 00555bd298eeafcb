"""Nobody in the room is recorded: pictures from outside the body are blurred in what is kept or sent.

The display is never touched. One frame from outside is enough to begin; it takes a second of frames from
inside to end it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2

from trocar.runtime.config import limits
from trocar.video.frames import Quality, UInt8Array

# The picture is reduced to this many columns: no face, badge or screen can be read.
_COLUMNS = 12


@dataclass(frozen=True, slots=True)
class PrivacySettings:
    """When a picture counts as from outside; see `Quality.out_of_body`.

    Parameters
    ----------
    blur_out_of_body : whether anything is done at all.
    outside, inside : above the first it is outside; below the second it may be inside again.
    inside_for : frames in a row below it before pictures are kept as they are.
    """

    blur_out_of_body: bool = True
    outside: float = field(default=0.5, metadata=limits(0, 1))
    inside: float = field(default=0.3, metadata=limits(0, 1))
    inside_for: int = field(default=25, metadata=limits(1, 10_000))


class PrivacyGuard:
    """Decides frame by frame, each by its own quality."""

    def __init__(self, settings: PrivacySettings) -> None:
        self._settings = settings
        self._inside = 0
        self.outside = False
        self.blurred = 0

    def guard(self, image_bgr: UInt8Array, quality: Quality) -> bool:
        """Blur an image in place if it has to be; whether it was."""
        if self.judge(quality):
            self.blurred += 1
            coarsen(image_bgr)
        return self.outside

    def judge(self, quality: Quality) -> bool:
        """Take account of the next frame's quality; whether it counts as from outside."""
        one = self._settings
        if not one.blur_out_of_body:
            return False
        if quality.out_of_body > one.outside:
            self.outside, self._inside = True, 0
        elif self.outside:
            self._inside = self._inside + 1 if quality.out_of_body < one.inside else 0
            self.outside = self._inside < one.inside_for
        return self.outside


def coarsen(image_bgr: UInt8Array) -> None:
    """Replace an image, in place, by a dozen columns of itself, enlarged."""
    height, width = image_bgr.shape[:2]
    columns = min(_COLUMNS, width)
    rows = max(1, min(height, round(height * columns / width)))
    small = cv2.resize(image_bgr, (columns, rows), interpolation=cv2.INTER_AREA)
    cv2.resize(small, (width, height), dst=image_bgr, interpolation=cv2.INTER_LINEAR)
