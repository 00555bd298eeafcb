"""Interleaved timing: every case sees the same machine, minute by minute."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall times of one case, ms, in the order they were taken."""

    samples_ms: tuple[float, ...]

    def percentile_ms(self, percent: float) -> float:
        """A percentile that was measured: the sample at or above it."""
        return float(np.percentile(self.samples_ms, percent, method="higher"))

    def document(self) -> dict[str, float]:
        """`p50_ms`, `p99_ms` (of under 100 samples: the largest), `min_ms` and the number of `samples`."""
        return {
            "p50_ms": float(np.median(self.samples_ms)),
            "p99_ms": self.percentile_ms(99.0),
            "min_ms": min(self.samples_ms),
            "samples": len(self.samples_ms),
        }


def interleave(
    cases: Mapping[str, Callable[[], object]], repeats: int, *, fewer: Mapping[str, int] | None = None
) -> dict[str, Timing]:
    """Time the cases in turn, round after round, so that a slow minute falls on all of them.

    Each round has an order of its own, the same in every run: no case always inherits the caches that a
    certain other one left.

    Parameters
    ----------
    cases : name to the call that is timed; each is called once before, untimed.
    repeats : rounds.
    fewer : repeats of the cases that are too slow for every round; spread over the rounds.
    """
    counts = {name: min(repeats, (fewer or {}).get(name, repeats)) for name in cases}
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for name, call in cases.items():
        if counts[name] == repeats:
            call()
    for turn in range(repeats):
        for name, call in random.Random(turn).sample(list(cases.items()), len(cases)):
            if (turn + 1) * counts[name] // repeats > turn * counts[name] // repeats:
                start = time.perf_counter()
                call()
                samples[name].append((time.perf_counter() - start) * 1e3)
    return {name: Timing(tuple(values)) for name, values in samples.items()}


def copy_bandwidth_gb_s(size_bytes: int = 256_000_000, repeats: int = 7) -> float:
    """Best measured copy bandwidth of memory, GB/s, bytes read and written both counted; one thread."""
    source = np.ones(size_bytes // 8)
    target = np.zeros_like(source)
    timing = interleave({"copy": lambda: np.copyto(target, source)}, repeats)["copy"]
    return 2 * source.nbytes / (min(timing.samples_ms) * 1e6)
