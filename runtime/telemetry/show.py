"""What `trocar top` draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


def view(found: Mapping[str, Any] | None, target: str, *, lost: str = "") -> RenderableType:
    """Return tables of a document; see `trocar.runtime.telemetry.reading.document`.

    Parameters
    ----------
    found : what was read last; None where nothing was yet.
    target : where.
    lost : why there is nothing newer.
    """
    parts: list[RenderableType] = []
    if lost:
        parts.append(Text(lost, style="bold red"))
    if found is not None:
        parts += [_head(found, target), _methods(found), _stages(found), _models(found)]
        if (
            found["video"]["streams"]
            or any(found["video"]["frames_per_s"].values())
            or found["video"]["dropped"]
        ):
            parts.append(_video(found["video"]))
    return Group(*parts)


def _head(found: Mapping[str, Any], target: str) -> Text:
    queue = found["queue"]
    pieces = [
        f"{target} over {found['interval_s']:.1f} s",
        f"in flight {found['requests_in_flight']}",
        f"running {queue['running']}",
        f"waiting {queue['waiting']}",
        f"resident {_number(found['resident_mib'], 0)} MiB",
        f"CPU {found['cpu_cores']:.2f} cores",
        *(f"GPU {name} {value:.0f} MiB" for name, value in found["device_mib"].items()),
    ]
    return Text(" | ".join(pieces), style="bold")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def _methods(found: Mapping[str, Any]) -> Table:
    table = _table("requests", "method", "all", "/s", "failed/s", "p50 ms", "p99 ms")
    for row in found["methods"]:
        values = (row["requests_per_s"], row["failed_per_s"], row["p50_ms"], row["p99_ms"])
        table.add_row(row["method"], str(row["requests"]), *map(_number, values))
    return table


def _stages(found: Mapping[str, Any]) -> Table:
    table = _table("stages", "stage", "/s", "p50 ms", "p99 ms")
    for row in found["stages"]:
        if row["per_s"]:
            values = (row["per_s"], row["p50_ms"], row["p99_ms"])
            table.add_row(f"{row['part']} {row['stage']}", *map(_number, values))
    return table


def _models(found: Mapping[str, Any]) -> Table:
    table = _table("models", "model", "version", "of", "/s", "compute ms", "newest")
    for row in found["models"]:
        table.add_row(
            row["model"],
            row["version"],
            row["service"],
            _number(row["requests_per_s"]),
            _number(row["compute_ms"]),
            Text("refused", style="bold red") if row["newest_refused"] else "served",
        )
    return table


def _video(video: Mapping[str, Any]) -> Table:
    table = _table(f"video, {video['streams']} stream(s)", "frames", "/s")
    for outcome, rate in video["frames_per_s"].items():
        table.add_row(outcome, _number(rate))
    table.add_row("late", _number(video["late_per_s"]))
    for drop in video["dropped"]:
        table.add_row(f"dropped, {drop['format']}, {drop['reason']}", _number(drop["per_s"]))
    return table


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
