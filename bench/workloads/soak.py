"""A mixed load on a real server for a long time: it stays right, as small and as fast as it was."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trocar.bench.workloads._mixed import Asked, Mixed

NAME = "soak"
HELP = "mixed load for half an hour: every answer right, memory and p99 as at its beginning"

# Of the time, what comes before memory and latency are held against themselves.
WARM_UP = 0.2
_TICK_S = 1.0
_WINDOWS = 10
# Fewer in a third say nothing of a p99.
_LEAST = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default %(default)s)")
    parser.add_argument(
        "--max-growth-pct",
        type=float,
        default=2.0,
        help="memory of the server's processes after warm-up, by which it may grow (default %(default)s)",
    )
    parser.add_argument(
        "--max-p99-factor",
        type=float,
        default=1.5,
        help="the last third's p99 over the first's, of each kind of request (default %(default)s)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Load a server of one's own; it passes where nothing failed, nothing grew and nothing slowed down."""
    from trocar.bench.progress import track
    from trocar.bench.serving import served
    from trocar.bench.timing import Timing
    from trocar.bench.workloads._mixed import Mixed
    from trocar.runtime.errors import InvalidInput

    if args.minutes * 60 < 10 or args.max_growth_pct <= 0 or args.max_p99_factor <= 0:
        raise InvalidInput("expected --minutes of ten seconds or more, and limits above 0")
    memory: list[tuple[float, float]] = []
    config = '[server]\nlog_level = "warning"\n[services.planning]\ncpu = "low"\n'
    # A machine with other work is no fault of the server's.
    config += "[services.video.watchdog]\nstuck_ms = 20_000\n"
    with served(config=config) as server, Mixed(server.target) as load:
        begin_s = time.monotonic()
        for tick in track(range(round(args.minutes * 60 / _TICK_S)), "soak"):
            time.sleep(max(0.0, begin_s + (tick + 1) * _TICK_S - time.monotonic()))
            memory.append((time.monotonic(), _resident_mib(server.process)))
    end_s = time.monotonic()
    warm_s = begin_s + WARM_UP * (memory[-1][0] - begin_s)
    growth_pct, ratios = _growth_pct(memory, warm_s), _p99_ratios(load, warm_s, memory[-1][0])
    timings = {kind: Timing(tuple(one.took_ms)).document() for kind, one in load.asked.items() if one.took_ms}
    silent = [kind for kind, one in load.asked.items() if not one.took_ms]
    return {
        "timings": timings,
        "seconds": round(end_s - begin_s, 1),
        "requests": sum(len(one.took_ms) for one in load.asked.values()),
        "failed": load.failed,
        "first errors": load.errors,
        "never answered": silent,
        "memory growth %": round(growth_pct, 2),
        "p99, last third over first": ratios,
        "tables": {"windows": _windows(load, memory, begin_s)},
        "passed": not load.failed
        and not silent
        and growth_pct <= args.max_growth_pct
        and all(ratio <= args.max_p99_factor for ratio in ratios.values()),
    }


def _resident_mib(process: int) -> float:
    """Resident memory of a process and of those that it started; one that ends meanwhile counts nothing."""
    import resource

    pages, waiting = 0, [process]
    while waiting:
        place = Path(f"/proc/{waiting.pop()}")
        try:
            pages += int((place / "statm").read_text().split()[1])
            for task in (place / "task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return pages * resource.getpagesize() / 2**20


def _growth_pct(memory: list[tuple[float, float]], warm_s: float) -> float:
    """The median of the last quarter after warm-up over that of the first."""
    import numpy as np

    found = [mib for at_s, mib in memory if at_s >= warm_s] or [mib for _, mib in memory]
    quarter = max(1, len(found) // 4)
    return float(100 * (np.median(found[-quarter:]) / np.median(found[:quarter]) - 1))


def _p99_ratios(load: Mixed, warm_s: float, end_s: float) -> dict[str, float]:
    """Of the kinds that were asked for often enough."""
    third_s = (end_s - warm_s) / 3
    ratios = {}
    for kind, asked in load.asked.items():
        first = _percentile(asked, warm_s, warm_s + third_s, 99.0, _LEAST)
        last = _percentile(asked, end_s - third_s, end_s, 99.0, _LEAST)
        if first is not None and last is not None:
            ratios[kind] = round(last / first, 3)
    return ratios


def _percentile(asked: Asked, begin_s: float, end_s: float, percent: float, least: int = 1) -> float | None:
    """Of the answers of a time; None where there are fewer than `least`."""
    import numpy as np

    found = [took for at_s, took in zip(asked.at_s, asked.took_ms, strict=True) if begin_s <= at_s < end_s]
    return float(np.percentile(found, percent, method="higher")) if len(found) >= least else None


def _windows(load: Mixed, memory: list[tuple[float, float]], begin_s: float) -> list[dict[str, Any]]:
    """Memory, and the latency of each kind, as time goes by."""
    import numpy as np

    width_s = (memory[-1][0] - begin_s) / _WINDOWS
    rows = []
    for number in range(_WINDOWS):
        first_s, last_s = begin_s + number * width_s, begin_s + (number + 1) * width_s
        mib = [value for at_s, value in memory if first_s <= at_s <= last_s]
        row: dict[str, Any] = {
            "to min": round((last_s - begin_s) / 60, 1),
            "MiB": round(float(np.median(mib)), 1) if mib else "",
        }
        for kind, asked in load.asked.items():
            p50, p99 = (_percentile(asked, first_s, last_s, percent) for percent in (50.0, 99.0))
            row[f"{kind} p50/p99"] = "" if p50 is None or p99 is None else f"{p50:.1f}/{p99:.1f}"
        rows.append(row)
    return rows
