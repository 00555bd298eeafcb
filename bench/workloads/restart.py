"""A server that was killed: how long until another one answers in its place."""

from __future__ import annotations

import argparse
from typing import Any

NAME = "restart"
HELP = "from the start of a server, after SIGKILL of the one before, to its first right answers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--repeats", type=int, default=10, help="servers killed (default %(default)s)")
    parser.add_argument("--limit-ms", type=float, default=2000.0, help="to hold at p50 (default %(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Start, ask, kill; it passes where half of the servers were ready within the limit."""
    import os
    import signal
    import time

    from trocar.bench.progress import track
    from trocar.bench.serving import served
    from trocar.bench.timing import Timing
    from trocar.bench.workloads._mixed import MODEL, answer_of
    from trocar.bench.workloads._open_inference import Client
    from trocar.runtime.errors import InvalidInput

    if args.repeats < 1 or args.limit_ms <= 0:
        raise InvalidInput("expected --repeats of 1 or more and a limit above 0")
    took_ms: dict[str, list[float]] = {"listening": [], "ready": [], "first inference": []}
    for _ in track(range(args.repeats), "restarting"):
        begin_s = time.perf_counter()
        with served(unix=True) as server:
            marks_s = [time.perf_counter()]
            client = Client(server.target)
            try:
                while not client.is_ready(MODEL):
                    time.sleep(0.005)
                marks_s.append(time.perf_counter())
                answer_of(client)()
                marks_s.append(time.perf_counter())
            finally:
                client.close()
                os.kill(server.process, signal.SIGKILL)
        for name, at_s in zip(took_ms, marks_s, strict=True):
            took_ms[name].append(1e3 * (at_s - begin_s))
    timings = {name: Timing(tuple(values)).document() for name, values in took_ms.items()}
    timings["ready"]["limit_ms"] = args.limit_ms
    return {"timings": timings, "passed": timings["ready"]["p50_ms"] <= args.limit_ms}
