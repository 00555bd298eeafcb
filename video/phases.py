"""What goes on, by rules: outside the body, looking around, working, pausing.

These are not the steps of an operation: nothing here was trained to know those. They follow from what is
seen, with a least length so that they do not flicker.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from trocar.runtime.config import limits
from trocar.video.frames import Instance, Shown

OUTSIDE, EXPLORING, WORKING, PAUSING, UNKNOWN = "outside", "exploring", "working", "pausing", "unknown"


@dataclass(frozen=True, slots=True)
class PhaseSettings:
    """The rules' thresholds.

    Parameters
    ----------
    outside : `Quality.out_of_body` above it is outside.
    idle_per_s : instruments slower than this share of the frame's diagonal a second pause.
    least_s : a phase that lasts shorter belongs to the one before it.
    """

    outside: float = field(default=0.5, metadata=limits(0, 1))
    idle_per_s: float = field(default=0.02, metadata=limits(0, 10))
    least_s: float = field(default=1.0, metadata=limits(0, 60))


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a stream; `end_s` is where the next begins."""

    name: str
    begin_s: float
    end_s: float


class PhaseFinder:
    """Collects phases frame by frame."""

    def __init__(self, settings: PhaseSettings) -> None:
        self._settings = settings
        self._before: dict[int, tuple[float, tuple[float, float]]] = {}
        self._speed_per_s = 0.0
        self._runs: list[Phase] = []

    def add(self, shown: Shown) -> None:
        """Take a frame, in order."""
        now_s = shown.frame.pts_s
        name = self._name(shown)
        if self._runs and self._runs[-1].name == name:
            self._runs[-1] = Phase(name, self._runs[-1].begin_s, now_s)
            return
        if self._runs:
            self._runs[-1] = Phase(self._runs[-1].name, self._runs[-1].begin_s, now_s)
        self._runs.append(Phase(name, now_s, now_s))

    def phases(self, *, end_s: float) -> tuple[Phase, ...]:
        """Return what was found, short ones merged into the one before; `end_s` ends the last frame."""
        merged: list[Phase] = []
        runs = (
            [*self._runs[:-1], Phase(self._runs[-1].name, self._runs[-1].begin_s, end_s)]
            if self._runs
            else []
        )
        for run in runs:
            short = run.end_s - run.begin_s < self._settings.least_s
            if merged and (short or merged[-1].name == run.name):
                merged[-1] = Phase(merged[-1].name, merged[-1].begin_s, run.end_s)
            else:
                merged.append(run)
        return tuple(merged)

    def _ended(self, end_s: float) -> list[Phase]:
        if not self._runs:
            return []
        last = self._runs[-1]
        return [*self._runs[:-1], Phase(last.name, last.begin_s, end_s)]

    def _name(self, shown: Shown) -> str:
        if shown.frame.quality.out_of_body > self._settings.outside:
            return OUTSIDE
        if shown.annotation is None:
            return UNKNOWN
        if not shown.annotation.instances:
            return EXPLORING
        height, width = shown.frame.image_bgr.shape[:2]
        speed = self._fastest(shown.annotation.instances, shown.frame.pts_s) / math.hypot(height, width)
        # About half a second of memory: a hand that turns round is not a pause.
        self._speed_per_s = max(speed, 0.9 * self._speed_per_s)
        return WORKING if self._speed_per_s >= self._settings.idle_per_s else PAUSING

    def _fastest(self, instances: Sequence[Instance], now_s: float) -> float:
        """Speed of the fastest tip, pixels a second."""
        fastest = 0.0
        now = {one.track: (now_s, one.tip_xy_px) for one in instances if one.tip_xy_px is not None}
        for track, (_, tip) in now.items():
            if track in self._before and now_s > self._before[track][0]:
                before_s, before = self._before[track]
                fastest = max(fastest, math.dist(before, tip) / (now_s - before_s))
        self._before = now
        return fastest
