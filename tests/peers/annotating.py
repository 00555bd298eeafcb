"""`trocar annotate` on a live input, in a process of its own: watched by what it writes, and ended."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av

STARTING = "the model is starting"


class Annotating:
    """One run, which writes an overlay and a log into a folder of its own."""

    def __init__(self, address: str, folder: Path, *options: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.overlay, self.log = folder / "o.mp4", folder / "a.jsonl"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "trocar.runtime.cli", "annotate", address, "--json"),
                *("--overlay", str(self.overlay), "--jsonl", str(self.log)),
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_frames(self, count: int, *, with_model: bool = False, limit_s: float = 60.0) -> None:
        """Return when so many lines are in the log, of frames that found the model started if it has to be.

        They come some kilobytes at a time.
        """
        partial = self.folder / ".a.jsonl.partial"
        until_s = time.monotonic() + limit_s
        while True:
            lines = partial.read_text().split("\n")[:-1] if partial.exists() else []
            if len([one for one in lines if not (with_model and STARTING in one)]) >= count:
                return
            if self.process.poll() is not None:
                raise AssertionError(f"it ended: {self.process.communicate()}")
            assert time.monotonic() < until_s, f"{count} frames did not come within {limit_s} s"
            time.sleep(0.05)

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self, *, limit_s: float = 60.0) -> tuple[int, dict[str, Any], str]:
        """Wait for it; return its code, its document and what it said."""
        try:
            said, errors = self.process.communicate(timeout=limit_s)
        finally:
            self.process.kill()
        return self.process.returncode, json.loads(said) if said else {}, errors

    def whole(self, document: dict[str, Any]) -> list[dict[str, Any]]:
        """Hold the files against the document and one another; return the log."""
        assert sorted(self.folder.iterdir()) == [self.log, self.overlay]
        log = [json.loads(line) for line in self.log.read_text().splitlines()]
        frames = document["frames"]
        assert len(log) == frames["frames"] - frames["dropped"] - document["not_recorded"] > 0
        indices = [line["frame"] for line in log]
        times = [line["pts_s"] for line in log]
        assert indices == sorted(set(indices))
        assert times == sorted(set(times))
        with av.open(str(self.overlay)) as container:
            assert sum(1 for _ in container.decode(video=0)) == len(log)
        return log
