"""A build's events as a bar on stderr."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def shown(events: Iterable[dict[str, Any]], show: bool) -> dict[str, Any]:
    """Follow a worker's events to their end.

    Parameters
    ----------
    events : as `compile_network` and the worker give them.
    show : whether to draw bars: one a phase, inner phases below outer ones, gone when done.

    Returns
    -------
    The last event that is no progress; empty where the worker ended without one.
    """
    last: dict[str, Any] = {}
    bars = _bars(show)
    tasks: dict[str, Any] = {}
    with bars:
        for event in events:
            match event["event"]:
                case "start":
                    indent = "  " if event["parent"] else ""
                    tasks[event["phase"]] = bars.add_task(indent + event["phase"], total=event["steps"])
                case "step":
                    bars.update(tasks[event["phase"]], completed=event["step"] + 1)
                case "finish":
                    bars.remove_task(tasks.pop(event["phase"]))
                case _:
                    last = event
    return last


def _bars(show: bool) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not show,
    )
