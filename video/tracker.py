"""Which instrument is which from frame to frame: boxes matched by overlap and distance, numbers that stay.

A number is given once and never again in a run. An instrument that leaves and comes back gets a new one:
nothing here can tell that it is the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from trocar.runtime.config import limits
from trocar.video.frames import Annotation, Instance


@dataclass(frozen=True, slots=True)
class TrackerSettings:
    """When two boxes are one instrument.

    Parameters
    ----------
    least_overlap : intersection over union that is enough.
    reach : or centres nearer than this share of the larger box's diagonal.
    keep_s : how long an instrument may be hidden and keep its number.
    """

    least_overlap: float = field(default=0.1, metadata=limits(0, 1))
    reach: float = field(default=0.5, metadata=limits(0, 10))
    keep_s: float = field(default=0.4, metadata=limits(0, 60))


@dataclass(frozen=True, slots=True)
class _Track:
    number: int
    label: str
    box: tuple[int, int, int, int]
    seen_at_s: float


class Tracker:
    """Keeps the tracks of one stream. Not thread-safe; frames come in order."""

    def __init__(self, settings: TrackerSettings) -> None:
        self._settings = settings
        self._tracks: list[_Track] = []
        self._next = 1

    def track(self, annotation: Annotation) -> Annotation:
        """Return the annotation with a number on each instance."""
        now_s = annotation.pts_s
        self._tracks = [one for one in self._tracks if 0 <= now_s - one.seen_at_s <= self._settings.keep_s]
        numbers = self._match(annotation.instances)
        instances = []
        for index, instance in enumerate(annotation.instances):
            number = numbers.get(index)
            if number is None:
                number, self._next = self._next, self._next + 1
            instances.append(replace(instance, track=number))
        found = [_Track(one.track, one.label, one.box_xyxy_px, now_s) for one in instances]
        taken = {one.number for one in found}
        self._tracks = [*found, *(one for one in self._tracks if one.number not in taken)]
        return replace(annotation, instances=tuple(instances))

    def _match(self, instances: tuple[Instance, ...]) -> dict[int, int]:
        """Best pairs first: with a handful of instruments that is nearly always the best choice."""
        scored = [
            (score, index, track.number)
            for index, instance in enumerate(instances)
            for track in self._tracks
            if track.label == instance.label and (score := self._score(instance.box_xyxy_px, track.box)) > 0
        ]
        matched: dict[int, int] = {}
        for _, index, number in sorted(scored, key=lambda one: (-one[0], one[1], one[2])):
            if index not in matched and number not in matched.values():
                matched[index] = number
        return matched

    def _score(self, first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> float:
        """Overlap plus one where it is enough; nearness below one where it is not; 0 for another one."""
        overlap = box_overlap(first, second)
        if overlap >= self._settings.least_overlap:
            return 1 + overlap
        reach_px = self._settings.reach * max(_diagonal(first), _diagonal(second))
        distance_px = math.dist(_centre(first), _centre(second))
        return 1 - distance_px / reach_px if distance_px < reach_px else 0.0


def box_overlap(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> float:
    """Return intersection over union of two half-open boxes; 0 where either is empty."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (_area(first) + _area(second) - both)


def _area(box: tuple[int, int, int, int]) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _diagonal(box: tuple[int, int, int, int]) -> float:
    return math.hypot(box[2] - box[0], box[3] - box[1])


def _centre(box: tuple[int, int, int, int]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
