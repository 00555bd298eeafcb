"""From a decoded frame to a drawn overlay: live at the clip's own pace, and offline as fast as it goes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trocar.video.frames import Shown
    from trocar.video.pipeline import Summary

NAME = "video"
HELP = "decode-to-overlay latency and drops of real or rendered clips, live and offline"

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
    from rich.console import Console
    from rich.progress import Progress

    rows: list[dict[str, Any]] = []
    latencies: list[dict[str, Any]] = []
    clips = args.clip or ["rendered:7"]
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("playing", total=2 * args.rounds * len(clips))
        for _ in range(args.rounds):
            for clip in clips:
                for live in (True, False):
                    counts, stages = _played(clip, live, args)
                    rows.append(counts)
                    latencies += stages
                    bar.advance(task)
    return {"threads": args.threads, "tables": {"clips": rows, "latency": latencies}}


def _played(clip: str, live: bool, args: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    import threading

    from trocar.video.gate import GateSettings
    from trocar.video.overlay import Overlay, instrument_palette
    from trocar.video.pipeline import VideoSettings, in_process, run_live, run_offline
    from trocar.video.quality import inspect
    from trocar.video.remote import WorkerSpec
    from trocar.video.source import open_source

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
            inspect=inspect,
            settings=settings,
            stop=threading.Event(),
        )
    finally:
        source.close()
    return _row(clip, live, summary, stages, shown_on)


def _row(
    clip: str, live: bool, summary: Summary, stages: dict[str, list[float]], shown_on: list[bool]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    import numpy as np

    first = shown_on.index(True) if True in shown_on else len(shown_on)
    same = {"clip": Path(clip).name, "way": "live" if live else "offline"}
    counts = {
        **same,
        "frames": summary.counts.frames,
        "fps": round(summary.fps, 1),
        "dropped": summary.counts.dropped,
        "skipped": summary.counts.skipped,
        "late": summary.counts.late,
        "first overlay": first,
        "flips/1000": round(summary.flips_per_1000, 1),
    }
    latencies = [
        {
            **same,
            "stage": name,
            "frames": len(values),
            "p50 ms": round(float(np.percentile(values, 50)), 2),
            "p99 ms": round(float(np.percentile(values, 99)), 2),
        }
        for name, values in stages.items()
        # Offline frames wait for each other: their total is the queue's.
        if values and (live or name != "total")
    ]
    return counts, latencies
