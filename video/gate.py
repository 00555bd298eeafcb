"""Whether overlays are shown: off at once where they would mislead, on again only when that has lasted.

Two thresholds for each measure and a count of good frames before the overlay returns: a value that hovers
about one threshold does not make the picture flicker.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from trocar.runtime.config import limits
from trocar.video.frames import Annotation, Quality

_SHARE = limits(0, 1)


@dataclass(frozen=True, slots=True)
class GateSettings:
    """Thresholds; each pair is (turns off, allows on again).

    Parameters
    ----------
    confidence : mean probability of the foreground, smoothed.
    overlap : intersection over union of the foreground with the annotated frame before, smoothed.
    smoke, blur, out_of_body : of `Quality`; above the first, off; below the second, on again.
    smoothing : weight of the newest value in a running mean.
    on_after : good frames in a row before the overlay returns.
    """

    confidence_off: float = field(default=0.50, metadata=_SHARE)
    confidence_on: float = field(default=0.56, metadata=_SHARE)
    overlap_off: float = field(default=0.15, metadata=_SHARE)
    overlap_on: float = field(default=0.30, metadata=_SHARE)
    smoke_off: float = field(default=0.8, metadata=_SHARE)
    smoke_on: float = field(default=0.7, metadata=_SHARE)
    blur_off: float = field(default=0.9, metadata=_SHARE)
    blur_on: float = field(default=0.8, metadata=_SHARE)
    out_of_body_off: float = field(default=0.5, metadata=_SHARE)
    out_of_body_on: float = field(default=0.4, metadata=_SHARE)
    smoothing: float = field(default=0.3, metadata=_SHARE)
    on_after: int = field(default=5, metadata=limits(1, 1000))


class Gate:
    """On or off, and why. Not locked: the presenter calls it under its own lock."""

    def __init__(self, settings: GateSettings) -> None:
        self._settings = settings
        self._good = 0
        self._confidence: float | None = None
        self._overlap: float | None = None
        self.on = False
        self.reason = "the model is starting"
        self.flips = 0

    def answered(self, annotation: Annotation, quality: Quality, *, overlap: float, in_time: bool) -> None:
        """Take account of one annotated frame.

        Parameters
        ----------
        overlap : of its foreground with that of the annotated frame before; 1 where both have none.
        in_time : whether it came soon enough to be drawn on its own frame.
        """
        self._confidence = self._mean(self._confidence, annotation.confidence)
        self._overlap = self._mean(self._overlap, overlap)
        if self.on:
            if fault := self._fault(quality, returning=False):
                self.turn_off(fault)
            return
        fault = self._fault(quality, returning=True) if in_time else "late"
        if fault:
            self._good, self.reason = 0, fault
            return
        self._good += 1
        if self._good >= self._settings.on_after:
            self.on, self.reason = True, ""
            self.flips += 1

    def turn_off(self, reason: str) -> None:
        """Show clean frames from now on: nothing fresh enough came, or the model failed."""
        self.flips += self.on
        self.on, self.reason, self._good = False, reason, 0

    def _fault(self, quality: Quality, *, returning: bool) -> str:
        """What is wrong with the newest frame, by the thresholds for going off or for coming back."""
        one = self._settings
        least_confidence = one.confidence_on if returning else one.confidence_off
        least_overlap = one.overlap_on if returning else one.overlap_off
        most = {
            "out of body": (quality.out_of_body, one.out_of_body_on if returning else one.out_of_body_off),
            "smoke": (quality.smoke, one.smoke_on if returning else one.smoke_off),
            "blur": (quality.blur, one.blur_on if returning else one.blur_off),
        }
        for name, (value, bound) in most.items():
            if value > bound:
                return name
        if self._confidence is not None and self._confidence < least_confidence:
            return "unsure"
        if self._overlap is not None and self._overlap < least_overlap:
            return "unsteady"
        return ""

    def _mean(self, before: float | None, value: float) -> float:
        weight = self._settings.smoothing
        return value if before is None else (1 - weight) * before + weight * value
