"""How late the machine itself is: a process that only sleeps, beside a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

_TICK_S = 0.005
# On the monotonic clock, which all processes share: when it woke, and by how much too late.
_SLEEPER = f"""
import time
while True:
    begun = time.monotonic()
    time.sleep({_TICK_S})
    woke = time.monotonic()
    print(woke, woke - begun - {_TICK_S}, flush=True)
"""


class Pulse:
    """Sleeps while a run goes on; then says how much time the machine took from it, and when.

    A process of its own: what the run does to its own threads is not the machine's fault.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        with file.open("wb") as out:
            self._process = subprocess.Popen([sys.executable, "-S", "-c", _SLEEPER], stdout=out)
        self._woke_s = self._late_s = np.zeros(0)

    def __enter__(self) -> Pulse:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        lines = self._file.read_text().rpartition("\n")[0].splitlines()
        rows = np.array([line.split() for line in lines], float).reshape(-1, 2)
        self._woke_s, self._late_s = rows[:, 0], rows[:, 1]

    def taken_s(self, begin_s: float, end_s: float) -> float:
        """Return the time that a sleeper lost from one moment to another, its last waking included."""
        # A sleep that began inside may have ended after.
        first, last = np.searchsorted(self._woke_s, (begin_s, end_s))
        return float(np.sum(self._late_s[first : last + 1]))
