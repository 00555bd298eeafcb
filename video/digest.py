"""What a whole stream amounts to: latencies, quality over time, each instrument's motion, phases."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from trocar.video.frames import Quality, Shown
from trocar.video.motion import Motion, MotionSettings, measure
from trocar.video.phases import Phase, PhaseFinder, PhaseSettings
from trocar.video.pipeline import Summary

Float64Array = npt.NDArray[np.float64]
QUALITIES = tuple(Quality.__slots__)
_LEAST_TRACK_S = 0.2
_THUMBNAILS, _THUMBNAIL_PX = 12, 240


@dataclass
class Track:
    """One instrument's tip over time; frames without a tip are left out."""

    label: str
    times_s: array[float] = field(default_factory=lambda: array("d"))
    tips_px: list[tuple[float, float]] = field(default_factory=list)


class Digest:
    """Collects frame by frame: a sink that writes nothing."""

    def __init__(self, fps: float, mm_per_px: float | None = None) -> None:
        self.fps, self.mm_per_px = fps, mm_per_px
        # Eight bytes a value: a stream may last for hours.
        self.times_s: array[float] = array("d")
        self.ai_on: list[bool] = []
        self.instruments: array[int] = array("H")
        self.quality: dict[str, array[float]] = {name: array("d") for name in QUALITIES}
        self.stage_ms: dict[str, array[float]] = defaultdict(lambda: array("d"))
        self.tracks: dict[int, Track] = {}
        self.reasons: dict[str, int] = defaultdict(int)
        self._diagonal_px = 1.0
        self._switches = 0
        self._leading = 0
        self._phases = PhaseFinder(PhaseSettings())
        self.thumbnails: list[tuple[float, bytes]] = []
        self._every = 1

    def write(self, shown: Shown) -> None:
        """Take a frame, in order."""
        self.times_s.append(shown.frame.pts_s)
        self.ai_on.append(shown.ai_on)
        self._diagonal_px = math.hypot(*shown.frame.image_bgr.shape[:2])
        for name in QUALITIES:
            self.quality[name].append(getattr(shown.frame.quality, name))
        for name, value in shown.stage_ms.items():
            self.stage_ms[name].append(value)
        self._phases.add(shown)
        self._keep_thumbnail(shown)
        if shown.annotation is None:
            self.reasons[shown.reason] += 1
            self.instruments.append(0)
            return
        self.instruments.append(len(shown.annotation.instances))
        for one in shown.annotation.instances:
            track = self.tracks.setdefault(one.track, Track(one.label))
            if one.tip_xy_px is not None:
                track.times_s.append(shown.frame.pts_s)
                track.tips_px.append(one.tip_xy_px)
        if shown.annotation.instances:
            leading = shown.annotation.instances[0].track
            self._switches += self._leading not in (0, leading)
            self._leading = leading

    def _keep_thumbnail(self, shown: Shown) -> None:
        """Keep a dozen at even distances, however long the stream becomes."""
        if (len(self.times_s) - 1) % self._every:
            return
        height, width = shown.image_bgr.shape[:2]
        size = (_THUMBNAIL_PX, max(1, round(height * _THUMBNAIL_PX / width)))
        small = cv2.resize(shown.image_bgr, size, interpolation=cv2.INTER_AREA)
        self.thumbnails.append((shown.frame.pts_s, cv2.imencode(".jpg", small)[1].tobytes()))
        if len(self.thumbnails) > _THUMBNAILS:
            del self.thumbnails[1::2]
            self._every *= 2

    def close(self) -> tuple[Path, ...]:
        """Nothing is written."""
        return ()

    def abandon(self) -> None:
        """Nothing is written."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Activity by rules; see `trocar.video.phases`."""
        end_s = self.times_s[-1] + 1 / self.fps if self.times_s else 0.0
        return self._phases.phases(end_s=end_s)

    @property
    def motions(self) -> dict[int, Motion]:
        """Motion of each track whose tip was seen for a while."""
        return {
            number: measure(
                np.array(track.times_s),
                np.array(track.tips_px),
                diagonal_px=self._diagonal_px,
                settings=MotionSettings(),
                mm_per_px=self.mm_per_px,
            )
            for number, track in sorted(self.tracks.items())
            if len(track.times_s) > 1 and track.times_s[-1] - track.times_s[0] >= _LEAST_TRACK_S
        }

    def document(self, summary: Summary) -> dict[str, Any]:
        """Return all of it in plain JSON values."""
        return {
            "frames": asdict(summary.counts),
            "duration_s": round(summary.duration_s, 3),
            "fps": round(summary.fps, 2),
            "flips_per_1000": round(summary.flips_per_1000, 2),
            "model_starts": summary.starts,
            "corrupt_frames": summary.corrupt,
            "broke_off": summary.broke_off,
            "device": summary.device,
            "latency_ms": {name: _percentiles(values) for name, values in self.stage_ms.items()},
            "ai_off": dict(self.reasons),
            "quality": {
                name: {"mean": _rounded(np.mean(values)), "worst": _rounded(np.max(values))}
                for name, values in self.quality.items()
                if values
            },
            "motion": {
                "unit": "mm" if self.mm_per_px is not None else "px, uncalibrated",
                "tool_switches": self._switches,
                "tracks": {
                    str(number): {
                        key: _rounded(value) if isinstance(value, float) else value
                        for key, value in asdict(motion).items()
                    }
                    for number, motion in self.motions.items()
                },
            },
            "phases": [
                {"name": one.name, "begin_s": _rounded(one.begin_s), "end_s": _rounded(one.end_s)}
                for one in self.phases
            ],
        }


def _percentiles(values: array[float]) -> dict[str, float]:
    return {name: _rounded(np.percentile(values, share)) for name, share in (("p50", 50), ("p99", 99))} | {
        "max": _rounded(max(values))
    }


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)


def remarks(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a person has to know of a run beside its figures, a line each."""
    if document["broke_off"]:
        yield f"the stream broke off: {document['broke_off']}; what came before is kept"
    if document["corrupt_frames"]:
        yield f"{document['corrupt_frames']} frames could not be decoded and are left out"
    if document["colours"]:
        yield document["colours"]
    if document["ai_off"]:
        reasons = ", ".join(
            f"{reason or 'no reason'} {count}" for reason, count in document["ai_off"].items()
        )
        yield f"AI off: {reasons}; {document['flips_per_1000']:.1f} changes per 1000 frames"
    if document["blurred_out_of_body"]:
        yield f"{document['blurred_out_of_body']} frames blurred: the camera seemed outside the body"
    if document["not_recorded"]:
        yield f"{document['not_recorded']} frames were not recorded: the files could not be written in time"
