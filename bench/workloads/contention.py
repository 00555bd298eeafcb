"""A live video stream, alone and beside planning that takes all it can get."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trocar.bench.stream import Streamed

NAME = "contention"
HELP = "latency of a 30 fps VideoService stream, alone and beside saturating plans, in turn"
WAYS = ("alone", "beside plans")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--rounds", type=int, default=4, help="times each way is played (default 4)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each play (default 10)")
    parser.add_argument("--fps", type=float, default=30.0, help="frames a second (default 30)")
    parser.add_argument("--plans", type=int, default=8, help="plans in flight at once (default 8)")
    parser.add_argument("--clip", default="rendered:7:4", help="what is streamed, over and over")
    parser.add_argument("--config", metavar="FILE", help="trocar.toml of the server")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Stream in turn alone and beside plans, to one server."""
    from rich.console import Console
    from rich.progress import track

    from trocar.bench.saturate import Planning
    from trocar.bench.serving import served
    from trocar.bench.stream import frames_of, stream
    from trocar.planners.files import read_text
    from trocar.planners.types import require

    require(args.rounds >= 1, f"rounds: expected 1 or more, got {args.rounds}")
    require(args.seconds * args.fps >= 1, "expected a play of one frame or more")
    require(args.plans >= 1, f"plans: expected 1 or more, got {args.plans}")
    pictures = frames_of(args.clip)
    config = "" if args.config is None else read_text(Path(args.config), "config")
    played: dict[str, list[Streamed]] = {way: [] for way in WAYS}
    plans: list[dict[str, int]] = []
    with served(config=config) as server:
        target = server.target
        stream(target, pictures, fps=args.fps, frames=round(2 * args.fps))  # the model starts with its first
        turns = [way for _ in range(args.rounds) for way in WAYS]
        for way in track(turns, "streaming", console=Console(stderr=True)):
            if way == WAYS[0]:
                played[way].append(
                    stream(target, pictures, fps=args.fps, frames=round(args.seconds * args.fps))
                )
                continue
            with Planning(target, args.plans) as load:
                load.wait_saturated()
                played[way].append(
                    stream(target, pictures, fps=args.fps, frames=round(args.seconds * args.fps))
                )
            plans.append(load.counts)
    return _document(played, plans)


def _document(played: dict[str, list[Streamed]], plans: Sequence[dict[str, int]]) -> dict[str, Any]:
    from trocar.bench.timing import Timing

    timings, rows = {}, []
    for way, streams in played.items():
        timing = Timing(tuple(took for one in streams for took in one.latencies_ms))
        timings[way] = timing.document()
        rows += [{"way": way, "round": number, **one.row()} for number, one in enumerate(streams, 1)]
    alone, beside = (timings[way] for way in WAYS)
    # A p99 is one where there are frames enough for it.
    ratio = {key: beside[f"{key}_ms"] / alone[f"{key}_ms"] for key in ("p50", "p99") if f"{key}_ms" in alone}
    total: dict[str, int] = {}
    for one in plans:
        for code, count in one.items():
            total[code] = total.get(code, 0) + count
    return {"timings": timings, "beside over alone": ratio, "plans": total, "tables": {"plays": rows}}
