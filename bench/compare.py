"""Two measurements of one machine: which cases became better or worse, and which only look it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trocar.bench import environment
from trocar.bench.intervals import Interval, ratio_interval
from trocar.bench.report.document import timings
from trocar.runtime.errors import InvalidInput

MARGIN = 0.05
"""Two runs of one build differ by a few per cent, which neither run's samples show."""


def compare(
    first: Mapping[str, Any], second: Mapping[str, Any], *, margin: float = MARGIN, force: bool = False
) -> dict[str, Any]:
    """Each case that both measured: second / first of the medians, its interval and what that says.

    The verdict is `better` or `worse` where the whole 95 % interval of the ratio lies beyond the margin,
    `noise` where it does not, and `unknown` where a file holds too few samples to tell.

    Parameters
    ----------
    margin : how far beyond 1 a ratio counts.
    force : compare different machines too.

    Raises
    ------
    InvalidInput : the two are of different workloads or, without `force`, machines; or share no case.
    """
    if first.get("workload") != second.get("workload"):
        raise InvalidInput(f"expected one workload, got {first.get('workload')} and {second.get('workload')}")
    places = [document.get("environment", {}) for document in (first, second)]
    machines = environment.differences(places[0], places[1], environment.MACHINE)
    if machines and not force:
        raise InvalidInput(f"expected one machine, got different {_said(machines)} (--force compares them)")
    before, after = dict(timings(first)), dict(timings(second))
    cases = {name: _case(before[name], after[name], margin) for name in before if name in after}
    if not cases:
        raise InvalidInput("expected at least one case in both measurements")
    notes = [f"different machines: {_said(machines)}"] if machines else []
    if state := environment.differences(places[0], places[1], environment.STATE):
        notes.append(f"different {_said(state)}")
    notes += [
        f"{which}: other work was on the machine (load {place.get('load_1min')} before it began)"
        for which, place in zip(("before", "after"), places, strict=True)
        if environment.busy(place)
    ]
    if missing := sorted(set(before) ^ set(after)):
        notes.append(f"in one of the two alone: {', '.join(missing)}")
    return {
        "workload": first.get("workload"),
        "same_machine": not machines,
        "margin": margin,
        "cases": cases,
        "notes": notes,
    }


def _case(before: Mapping[str, Any], after: Mapping[str, Any], margin: float) -> dict[str, Any]:
    interval = ratio_interval(before.get("series_ms", ()), after.get("series_ms", ()))
    return {
        "before_p50_ms": before["p50_ms"],
        "after_p50_ms": after["p50_ms"],
        "ratio": after["p50_ms"] / before["p50_ms"] if before["p50_ms"] > 0 else float("nan"),
        "ratio_interval": interval,
        "verdict": _verdict(interval, margin),
    }


def _verdict(interval: Interval | None, margin: float) -> str:
    if interval is None:
        return "unknown"
    if interval[1] < 1.0 / (1.0 + margin):
        return "better"
    return "worse" if interval[0] > 1.0 + margin else "noise"


def _said(found: Mapping[str, tuple[Any, Any]]) -> str:
    return "; ".join(f"{name} ({before} and {after})" for name, (before, after) in found.items())
