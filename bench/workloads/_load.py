"""How a workload asks: its cases in turn, or each under one of MLPerf's scenarios."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trocar.bench.scenarios import Call, Outcome

    Open = Callable[[], Call]

INTERLEAVED = "interleaved"
SCENARIOS = (INTERLEAVED, "single-stream", "multi-stream", "server", "offline")
# Where a rate is searched, requests keep coming for so many times the bound: what falls behind by a twentieth
# is then late by more than it.
_BOUNDS = 20


def add_arguments(parser: argparse.ArgumentParser, *, requests: int, bound_ms: float) -> None:
    """Declare the options of a load."""
    load = parser.add_argument_group("load")
    load.add_argument(
        "--scenario",
        choices=SCENARIOS,
        default=INTERLEAVED,
        help="interleaved: the cases in turn, A B A B; else each under a load as in MLPerf Inference",
    )
    load.add_argument(
        "--requests",
        type=int,
        default=requests,
        help="of each case, or more where --rate 0 needs them (default %(default)s)",
    )
    load.add_argument(
        "--rounds", type=int, default=2, help="parts of a load, taken in turn (default %(default)s)"
    )
    load.add_argument(
        "--streams", type=int, default=2, help="at once, but for single-stream (default %(default)s)"
    )
    load.add_argument(
        "--rate",
        type=float,
        default=0.0,
        help="of server, a second; 0 searches the highest that holds (default)",
    )
    load.add_argument(
        "--bound-ms",
        type=float,
        default=bound_ms,
        help="of server: the latency to hold (default %(default)s)",
    )
    load.add_argument(
        "--percentile",
        type=float,
        default=99.0,
        help="of server: of requests to hold it (default %(default)s)",
    )


def measure(cases: Mapping[str, Open], args: argparse.Namespace) -> dict[str, Any]:
    """The `timings`, and what else the load says.

    Parameters
    ----------
    cases : name to what opens a stream of it: a connection, and the call on it that is timed.
    """
    from trocar.bench.timing import interleave
    from trocar.runtime.errors import InvalidInput

    if min(args.requests, args.rounds, args.streams) < 1 or args.rate < 0 or args.bound_ms <= 0:
        raise InvalidInput("expected requests, rounds and streams of 1 or more, a rate >= 0 and a bound > 0")
    if not 0 < args.percentile < 100:
        raise InvalidInput(f"--percentile: expected between 0 and 100, got {args.percentile}")
    if args.scenario == INTERLEAVED:
        times = interleave({name: opened() for name, opened in cases.items()}, args.requests)
        sent = sum(len(timing.samples_ms) for timing in times.values())
        return {"timings": {name: timing.document() for name, timing in times.items()}, "requests_sent": sent}
    streams = 1 if args.scenario == "single-stream" else args.streams
    calls = {name: [opened() for _ in range(streams)] for name, opened in cases.items()}
    if args.scenario == "server" and not args.rate:
        return _searched(calls, args)
    timings = _in_rounds(calls, args)
    return {"timings": timings, "requests_sent": sum(timing["requests"] for timing in timings.values())}


def is_closed(args: argparse.Namespace) -> bool:
    """Whether each request waits for the one before, so that the cases' times can be compared."""
    return str(args.scenario) in (INTERLEAVED, "single-stream")


def _in_rounds(calls: Mapping[str, list[Call]], args: argparse.Namespace) -> dict[str, Any]:
    """Every case's load in parts, A B A B, so that a slow minute falls on all of them."""
    from trocar.bench.progress import stop_was_asked
    from trocar.bench.scenarios import merged

    parts: dict[str, list[Outcome]] = {name: [] for name in calls}
    part = max(1, args.requests // args.rounds)
    for turn in range(args.rounds):
        for name, streams in calls.items():
            if not (stop_was_asked() and parts[name]):
                parts[name].append(_loaded(streams, part, args, seed=turn))
    return {name: merged(outcomes).document() for name, outcomes in parts.items()}


def _loaded(streams: list[Call], requests: int, args: argparse.Namespace, seed: int) -> Outcome:
    from trocar.bench import scenarios

    if args.scenario == "single-stream":
        return scenarios.single_stream(streams[0], requests)
    if args.scenario == "multi-stream":
        return scenarios.multi_stream(streams, requests)
    if args.scenario == "offline":
        return scenarios.offline(streams, requests)
    return _at_rate(streams, args.rate, requests, args, seed)


def _at_rate(
    streams: list[Call], rate: float, requests: int, args: argparse.Namespace, seed: int = 0
) -> Outcome:
    from trocar.bench import scenarios

    return scenarios.server(
        streams, rate, requests, bound_ms=args.bound_ms, percentile=args.percentile, seed=seed
    )


def _searched(calls: Mapping[str, list[Call]], args: argparse.Namespace) -> dict[str, Any]:
    """The highest rate of each case that holds the bound; begun at what Offline reaches."""
    from math import ceil

    from trocar.bench.progress import track
    from trocar.bench.scenarios import highest_rate, offline

    timings, tried, sent = {}, [], 0
    for name in track(list(calls), "highest rate"):
        streams = calls[name]
        begun = offline(streams, max(10, args.requests // 10))

        def load(rate_per_s: float, streams: list[Call] = streams) -> Outcome:
            # As many as are all answered within the bound hold it at any rate.
            fewest = ceil(_BOUNDS * args.bound_ms * 1e-3 * rate_per_s)
            return _at_rate(streams, rate_per_s, max(args.requests, fewest), args)

        best, rows = highest_rate(load, begun.rate_per_s)
        timings[name] = best.document()
        tried += [{"case": name, **row} for row in rows]
        sent += begun.requests + sum(row["requests"] for row in rows)
    return {"timings": timings, "requests_sent": sent, "tables": {"rates tried": tried}}
