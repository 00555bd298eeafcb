"""What became of the frames that clients sent, counted for whoever looks."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

from trocar.runtime.telemetry import Family

# How a frame came, as `VideoFrame.picture` names it.
FORMATS = ("jpeg", "raw", "h264", "shared")
# Why a frame was let go: a newer one came while it waited, its answer waited for a slow reader until newer
# ones came, all memory of its stream was held.
NEWER, READER, MEMORY = "newer_frame", "slow_reader", "no_memory"
# The model's process reports `preprocess`, `model` and `postprocess`; `wait` is for its turn; `total` is from
# decoded to answered.
STAGES = ("decode", "wait", "preprocess", "model", "postprocess", "total")


class Tally:
    """Counts. Any thread may.

    Parameters
    ----------
    soft_ms : an answer later than this is too late to be drawn on its frame; see `LatencySettings`.
    """

    def __init__(self, soft_ms: float) -> None:
        self._soft_ms = soft_ms
        self._lock = threading.Lock()
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._answered: Counter[str] = Counter()
        self._late = 0

    def dropped(self, form: str, why: str) -> None:
        """Count a frame that was let go."""
        with self._lock:
            self._dropped[form, why] += 1

    def answered(self, *, annotated: bool, total_ms: float) -> None:
        """Count a frame that came back from the model's process; without an annotation, AI is off."""
        with self._lock:
            self._answered["annotated" if annotated else "ai_off"] += 1
            self._late += annotated and total_ms > self._soft_ms

    def damaged(self) -> None:
        """Count a frame that could not be decoded."""
        with self._lock:
            self._answered["damaged"] += 1

    def families(self) -> Iterator[Family]:
        """Return the counts; see `trocar.runtime.telemetry.Telemetry.collect`."""
        with self._lock:
            dropped, answered, late = dict(self._dropped), dict(self._answered), self._late
        yield Family(
            "trocar_video_frames",
            "counter",
            "Frames that came back from the model: annotated, or without (ai_off); or that came damaged.",
            ("outcome",),
            [((outcome,), float(answered.get(outcome, 0))) for outcome in ("annotated", "ai_off", "damaged")],
        )
        yield Family(
            "trocar_video_frames_late",
            "counter",
            "Frames annotated later than latency.soft_ms after they were decoded.",
            rows=[((), float(late))],
        )
        yield Family(
            "trocar_video_frames_dropped",
            "counter",
            "Frames let go, by how they came and why.",
            ("format", "reason"),
            [(key, float(count)) for key, count in sorted(dropped.items())],
        )
