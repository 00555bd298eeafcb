"""Interleaved timing: every case sees the same machine, minute by minute."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trocar.bench.intervals import median_interval
from trocar.bench.progress import stop_was_asked, track

SERIES = 200
"""Samples of a case that a measurement keeps: enough for a distribution's curve, few enough for git."""

# The one in ten, in a hundred, in a thousand that is slower: of fewer calls there is no such one.
LEAST_SAMPLES = {"p90_ms": (90.0, 10), "p99_ms": (99.0, 100), "p99_9_ms": (99.9, 1000)}


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall times of one case, ms, in the order they were taken.

    Parameters
    ----------
    cpu_ms : processor time of all threads of this process in each of those calls, where it was taken.
    """

    samples_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...] = ()

    def percentile_ms(self, percent: float) -> float:
        """A percentile that was measured: the sample at or above it."""
        return float(np.percentile(self.samples_ms, percent, method="higher"))

    def document(self) -> dict[str, Any]:
        """Percentiles as far as the number of samples supports them, and some of the samples.

        `p50_ms` with its 95 % interval `p50_low_ms` to `p50_high_ms` (from 6 samples on), `p90_ms` (from
        10), `p99_ms` (100), `p99_9_ms` (1000), `max_ms`, `min_ms`, the number of `samples`, `cpu_ms` a
        call (mean), and `series_ms`: at most `SERIES` samples, evenly spaced in the order taken.
        """
        found: dict[str, Any] = {"p50_ms": float(np.median(self.samples_ms))}
        if (interval := median_interval(self.samples_ms)) is not None:
            found |= {"p50_low_ms": interval[0], "p50_high_ms": interval[1]}
        for name, (percent, least) in LEAST_SAMPLES.items():
            if len(self.samples_ms) >= least:
                found[name] = self.percentile_ms(percent)
        found |= {"max_ms": max(self.samples_ms), "min_ms": min(self.samples_ms)}
        if self.cpu_ms:
            found["cpu_ms"] = float(np.mean(self.cpu_ms))
        return {**found, "samples": len(self.samples_ms), "series_ms": thinned(self.samples_ms)}


def thinned(samples: tuple[float, ...]) -> list[float]:
    """At most `SERIES` samples, evenly spaced in their order, of five digits each."""
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(SERIES, len(samples))).round().astype(int))
    return [float(f"{samples[index]:.5g}") for index in chosen]


def beside(timing: Mapping[str, Any], floor_ms: float, floor: str) -> dict[str, Any]:
    """A timing's document with what physics or the library allows beside it.

    Parameters
    ----------
    floor : what takes `floor_ms`, in words.
    """
    return {**timing, "floor_ms": floor_ms, "over_floor": timing["p50_ms"] / floor_ms, "floor": floor}


def interleave(
    cases: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    fewer: Mapping[str, int] | None = None,
    label: str = "timing",
) -> dict[str, Timing]:
    """Time the cases in turn, round after round, so that a slow minute falls on all of them.

    Each round has an order of its own, the same in every run: no case always inherits the caches that a
    certain other one left. Ctrl-C ends it after the round that it falls in.

    Parameters
    ----------
    cases : name to the call that is timed; each is called once before, untimed.
    repeats : rounds.
    fewer : repeats of the cases that are too slow for every round; spread over the rounds.
    label : of the progress bar.
    """
    counts = {name: min(repeats, (fewer or {}).get(name, repeats)) for name in cases}
    wall: dict[str, list[float]] = {name: [] for name in cases}
    cpu: dict[str, list[float]] = {name: [] for name in cases}

    def once(name: str) -> None:
        cpu_start, start = time.process_time(), time.perf_counter()
        cases[name]()
        wall[name].append((time.perf_counter() - start) * 1e3)
        cpu[name].append((time.process_time() - cpu_start) * 1e3)

    for name, call in cases.items():
        if counts[name] == repeats:
            call()
    for turn in track(range(repeats), label):
        for name in random.Random(turn).sample(list(cases), len(cases)):
            if (turn + 1) * counts[name] // repeats > turn * counts[name] // repeats:
                once(name)
    if stop_was_asked():
        for name in cases:
            if not wall[name]:
                once(name)
    return {name: Timing(tuple(wall[name]), tuple(cpu[name])) for name in cases}
