"""What a person sees of `trocar annotate` in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from trocar.video.digest import remarks

_PIPED_WIDTH = 110
_STAGES = ("preprocess", "model", "postprocess", "overlay", "total")


@contextmanager
def progress(text: str) -> Iterator[Callable[[float | None], None]]:
    """Show a bar on stderr while the body runs, where a person watches; yields what moves it.

    The share is None where nobody knows how long the stream is.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True, markup=False), transient=True
    ) as bar:
        task = bar.add_task(text, total=None)
        yield lambda share: bar.update(task, total=None if share is None else 1.0, completed=share or 0.0)


def show(document: Mapping[str, Any]) -> None:
    """Print a document's figures and files."""
    console = Console(
        width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False, markup=False, emoji=False
    )
    frames = document["frames"]
    way = "live" if document["live"] else "offline"
    console.print(f"{document['input']}  {document['model']}  {way}, {document['device']}")
    console.print(
        f"{frames['frames']} frames in {document['duration_s']:.1f} s ({document['fps']:.1f} a second): "
        f"{frames['annotated']} annotated, {frames['skipped']} skipped, {frames['failed']} failed, "
        f"{frames['clean']} shown clean, {frames['dropped']} dropped"
    )
    for remark in remarks(document):
        console.print(remark)
    console.print(_latency(document["latency_ms"]))
    console.print(_quality(document["quality"]))
    if document["motion"]["tracks"]:
        console.print(_motion(document["motion"]))
    for path in document["files"]:
        console.print(f"wrote {path}")


def _latency(latency_ms: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="latency, ms", title_justify="left")
    for heading in ("stage", "p50", "p99", "max"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in _STAGES:
        if stage in latency_ms:
            row = latency_ms[stage]
            table.add_row(stage, *(f"{row[key]:.2f}" for key in ("p50", "p99", "max")))
    return table


def _quality(quality: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="picture, 0 to 1", title_justify="left")
    for heading in ("measure", "mean", "worst"):
        table.add_column(heading, justify="left" if heading == "measure" else "right")
    for name, row in quality.items():
        table.add_row(name.replace("_", " "), f"{row['mean']:.2f}", f"{row['worst']:.2f}")
    return table


def _motion(motion: Mapping[str, Any]) -> Table:
    title = f"motion of the tips, {motion['unit']}; {motion['tool_switches']} switches"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    keys = ("in_view_s", "path_length", "mean_speed", "peak_speed", "idle_s", "ldlj", "sparc")
    for heading in ("track", *(key.replace("_", " ") for key in keys)):
        table.add_column(heading, justify="right")
    longest = sorted(motion["tracks"].items(), key=lambda one: -one[1]["in_view_s"])[:8]
    for number, row in longest:
        table.add_row(number, *("-" if row[key] is None else f"{row[key]:.2f}" for key in keys))
    return table
