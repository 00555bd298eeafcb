"""From a decoded frame to a drawn overlay: live at the clip's own pace, and offline as fast as it goes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trocar.video.frames import Shown
    from trocar.video.pipeline import Summary

NAME = "video"
HELP = "decode-to-overlay latency and drops of real or rendered clips, beside the network alone"

_STAGES = ("preprocess", "model", "postprocess", "overlay", "total")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument(
        "--clip",
        action="append",
        default=[],
        metavar="FILE",
        help="a video (may be repeated; default rendered)",
    )
    parser.add_argument("--rounds", type=int, default=1, help="times each clip is played (default 1)")
    parser.add_argument("--threads", type=int, default=2, help="of the network (default 2)")
    parser.add_argument(
        "--repository", default="", metavar="DIR", help="of the model; the shipped one if absent"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Play every clip live and offline, in turn."""
    import itertools

    from trocar.bench.progress import track
    from trocar.bench.timing import Timing, beside, interleave

    rows: list[dict[str, Any]] = []
    samples: dict[str, dict[str, list[float]]] = {}
    clips = args.clip or ["rendered:7"]
    turns = list(itertools.product(range(args.rounds), clips, (True, False)))
    for _, clip, live in track(turns, "playing"):
        counts, stages = _played(clip, live, args)
        rows.append(counts)
        mine = samples.setdefault(f"{counts['clip']} {counts['way']}", {})
        for name, values in stages.items():
            # Offline frames wait for each other: their total is the queue's.
            if values and (live or name != "total"):
                mine.setdefault(name, []).extend(values)
    floor_ms = interleave({"network": _network_alone(args)}, 50)["network"].percentile_ms(50.0)
    timings = {
        way: {name: Timing(tuple(values)).document() for name, values in stages.items()}
        for way, stages in samples.items()
    }
    for found in timings.values():
        for name in {"model", "total"} & found.keys():
            found[name] = beside(found[name], floor_ms, "the network's run alone")
    return {
        "threads": args.threads,
        "results": timings,
        "tables": {"clips": rows, "latency": _latencies(timings)},
    }


def _network_alone(args: argparse.Namespace) -> Callable[[], object]:
    from trocar.bench.workloads.session import feeds_and_run
    from trocar.runtime.repository.load import open_model
    from trocar.runtime.repository.store import open_repository

    model = open_repository(args.repository).open("annotator")
    return feeds_and_run(open_model(model, threads=args.threads, device="cpu"), 1)[1]


def _played(clip: str, live: bool, args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, list[float]]]:
    import threading

    import cv2

    from trocar.video.gate import GateSettings
    from trocar.video.overlay import Overlay, instrument_palette
    from trocar.video.pipeline import VideoSettings, in_process, run_live, run_offline
    from trocar.video.quality import Inspector
    from trocar.video.remote import WorkerSpec
    from trocar.video.source import open_source

    cv2.setNumThreads(1)  # as `trocar annotate` does
    source = open_source(clip)
    stages: dict[str, list[float]] = {name: [] for name in _STAGES}
    shown_on: list[bool] = []

    def display(shown: Shown) -> None:
        shown_on.append(shown.ai_on)
        # The start of the process is not the pipeline: latencies count from the first overlay.
        if shown.annotation is not None:
            for name in _STAGES:
                stages[name].append(shown.stage_ms[name])

    # Latency is that of drawn overlays: the gate still judges lateness, but not the picture.
    settings = VideoSettings(
        gate=GateSettings(confidence_off=0, confidence_on=0, overlap_off=0, overlap_on=0)
    )
    worker = WorkerSpec(
        "trocar.video.segmenter:open_segmenter", {"repository": args.repository, "threads": args.threads}
    )
    try:
        summary = (run_live if live else run_offline)(
            source,
            in_process(worker, settings.watchdog),
            draw=Overlay(instrument_palette()).draw,
            display=display,
            inspect=Inspector(),
            settings=settings,
            stop=threading.Event(),
        )
    finally:
        source.close()
    return _row(clip, live, summary, shown_on), stages


def _row(clip: str, live: bool, summary: Summary, shown_on: list[bool]) -> dict[str, Any]:
    return {
        "clip": Path(clip).name,
        "way": "live" if live else "offline",
        "frames": summary.counts.frames,
        "fps": round(summary.fps, 1),
        "dropped": summary.counts.dropped,
        "skipped": summary.counts.skipped,
        "late": summary.counts.late,
        "first overlay": shown_on.index(True) if True in shown_on else len(shown_on),
        "flips/1000": round(summary.flips_per_1000, 1),
    }


def _latencies(timings: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The timings as one table; p99 of few frames is their slowest."""
    return [
        {
            "clip": way.rpartition(" ")[0],
            "way": way.rpartition(" ")[2],
            "stage": name,
            "frames": timing["samples"],
            "p50 ms": round(timing["p50_ms"], 2),
            "p99 ms": round(timing.get("p99_ms", timing["max_ms"]), 2),
        }
        for way, stages in timings.items()
        for name, timing in stages.items()
    ]
