"""WebVTT chapters: any player shows them beside the video."""

from __future__ import annotations

from pathlib import Path

from trocar.video.frames import Shown
from trocar.video.phases import PhaseFinder, PhaseSettings
from trocar.video.sinks.base import Stream, Whole


class WebVttSink:
    """A cue a phase; see `trocar.video.phases` for what a phase is here."""

    def __init__(self, path: Path, stream: Stream) -> None:
        self._file, self._stream = Whole(path), stream
        self._finder = PhaseFinder(PhaseSettings())
        self._last_s = 0.0

    def write(self, shown: Shown) -> None:
        """Take a frame."""
        self._finder.add(shown)
        self._last_s = shown.frame.pts_s

    def close(self) -> tuple[Path, ...]:
        """Write the cues."""
        end_s = self._last_s + 1.0 / self._stream.fps
        cues = [
            f"{number}\n{_time(phase.begin_s)} --> {_time(phase.end_s)}\n{phase.name}\n"
            for number, phase in enumerate(self._finder.phases(end_s=end_s), start=1)
        ]
        note = "NOTE activity by rules, not the steps of an operation\n"
        return self._file.write_text("\n".join(["WEBVTT\n", note, *cues]))

    def abandon(self) -> None:
        """Nothing was written yet."""
        self._file.remove()


def _time(seconds: float) -> str:
    total_ms = round(1000 * seconds)
    return (
        f"{total_ms // 3_600_000:02d}:{total_ms // 60_000 % 60:02d}:"
        f"{total_ms // 1000 % 60:02d}.{total_ms % 1000:03d}"
    )
