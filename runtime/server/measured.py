"""How long requests take, as measured of the last ones."""

from __future__ import annotations

from collections import deque

# Fewer runs say nothing yet.
LEAST_RUNS = 5
_MOST_RUNS = 64
# Nothing measured for longer says nothing any more: a slow minute must not refuse requests for ever.
OLD_S = 60.0
# Kinds come from requests, so that there may be any number of them.
_MOST_KINDS = 64
# One in ten was quicker: what this long a deadline cannot hold is not refused by bad luck.
_QUANTILE = 0.1


class Measured:
    """A running low quantile of run times, by kind of request. One thread adds at a time."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Runs] = {}

    def add(self, kind: str, took_s: float, now_s: float) -> None:
        """Count a run that ended now."""
        runs = self._kinds.get(kind)
        if runs is None:
            if len(self._kinds) >= _MOST_KINDS:
                del self._kinds[min(self._kinds, key=lambda each: self._kinds[each].last_s)]
            runs = self._kinds[kind] = _Runs()
        runs.add(took_s, now_s)

    def least_s(self, kind: str, now_s: float) -> float:
        """Return how long a request takes at the least; 0 where too little was measured of late."""
        runs = self._kinds.get(kind)
        return 0.0 if runs is None or now_s - runs.last_s > OLD_S else runs.least_s


class _Runs:
    __slots__ = ("_count", "_took_s", "last_s", "least_s")

    def __init__(self) -> None:
        self._took_s: deque[float] = deque(maxlen=_MOST_RUNS)
        self._count = 0
        self.last_s, self.least_s = 0.0, 0.0

    def add(self, took_s: float, now_s: float) -> None:
        if now_s - self.last_s > OLD_S:
            self._took_s.clear()
            self._count, self.least_s = 0, 0.0
        self._took_s.append(took_s)
        self._count += 1
        self.last_s = now_s
        # Sorting takes longer than the rest of a slot: not at every run.
        if self._count == LEAST_RUNS or self._count % 8 == 0:
            self.least_s = sorted(self._took_s)[int(_QUANTILE * len(self._took_s))]
