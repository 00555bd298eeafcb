"""How sure a median is: bootstrap intervals that know that neighbouring samples are alike.

Samples of a latency are not independent: a slow minute makes a run of slow samples. Drawing them one by
one would give intervals that are too narrow, so blocks of neighbours are drawn (the moving-block bootstrap;
Kuensch, Ann. Statist. 17, 1989), each of the cube root of the number of samples. Slow changes that are
longer than a measurement are not in it: what two runs differ by is larger than either's interval says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
LEAST = 6
"""Samples below which no interval is given: of 5, the extremes do not cover a median in 95 % of cases."""

_AT_ONCE = 1_000_000  # values of resamples that are held at once

Interval: TypeAlias = tuple[float, float]


def median_interval(samples: Sequence[float]) -> Interval | None:
    """The 95 % interval of the median; None of fewer than `LEAST` samples."""
    if len(samples) < LEAST:
        return None
    return _interval(_medians(samples, seed=0))


def ratio_interval(before: Sequence[float], after: Sequence[float]) -> Interval | None:
    """The 95 % interval of median(after) / median(before); None where either has fewer than `LEAST`."""
    if min(len(before), len(after)) < LEAST or min(before) <= 0:
        return None
    return _interval(_medians(after, seed=1) / _medians(before, seed=0))


def _medians(samples: Sequence[float], seed: int) -> npt.NDArray[np.float64]:
    values = np.asarray(samples, dtype=np.float64)
    block = max(1, round(len(values) ** (1 / 3)))
    random = np.random.default_rng(seed)
    starts = random.integers(0, len(values) - block + 1, (RESAMPLES, -(-len(values) // block)))
    parts = np.array_split(starts, -(-RESAMPLES * len(values) // _AT_ONCE))
    return np.concatenate([_medians_from(values, part, block) for part in parts])


def _medians_from(
    values: npt.NDArray[np.float64], starts: npt.NDArray[np.int64], block: int
) -> npt.NDArray[np.float64]:
    """The median of each row's blocks, cut to the number of samples."""
    chosen = (starts[:, :, None] + np.arange(block)).reshape(len(starts), -1)[:, : len(values)]
    return np.asarray(np.median(values[chosen], axis=1))


def _interval(values: npt.NDArray[np.float64]) -> Interval:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
