"""Measurements as tables, and two of them side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from trocar.runtime.errors import InvalidInput

SCHEMA = "trocar.bench/1"


def read(path: str) -> dict[str, Any]:
    """A measurement that `trocar bench run` wrote.

    Raises
    ------
    InvalidInput : no such file, no JSON, or another schema.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise InvalidInput(f"{path}: expected JSON: {error}") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InvalidInput(f"{path}: expected a measurement with schema {SCHEMA}")
    return document


def timings(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every timing in a measurement, however deep, with its dotted name (without `timings`)."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            path = prefix if name in ("timings", "results") else f"{prefix}{name}."
            if "p50_ms" in value:
                yield f"{prefix}{name}", value
            elif name != "environment":
                yield from timings(value, path)


def facts(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value in a measurement that is no timing and no environment."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            if "p50_ms" not in value and name != "environment":
                yield from facts(value, f"{prefix}{name}.")
        elif not isinstance(value, list) and name not in ("schema", "workload", "command"):
            yield f"{prefix}{name}", value


def tables(document: Mapping[str, Any]) -> Iterator[Table]:
    """Every table of a measurement: `tables` maps a name to rows, each a mapping of column to value."""
    for name, rows in document.get("tables", {}).items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        table = Table(title=name, title_justify="left")
        for column in columns:
            table.add_column(column, justify="left" if column == columns[0] else "right")
        for row in rows:
            table.add_row(*(_cell(row.get(column)) for column in columns))
        yield table


def render(document: Mapping[str, Any]) -> Group:
    """One measurement: its environment, a row a case, and what else was found."""
    environment = document.get("environment", {})
    title = Text(str(document.get("command", document.get("workload"))), style="bold")
    table = Table()
    for heading in ("case", "p50 ms", "p99 ms", "min ms", "samples", "limit ms"):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for name, timing in timings(document):
        table.add_row(
            name, *(_cell(timing.get(k)) for k in ("p50_ms", "p99_ms", "min_ms", "samples", "limit_ms"))
        )
    where = (
        f"{environment.get('cpu')}, {environment.get('cores')} cores, load {environment.get('load_1min')}, "
    )
    where += f"commit {environment.get('commit')}, {environment.get('created')}"
    lines = [Text(f"{name}: {_cell(value)}") for name, value in facts(document)]
    return Group(title, *([table] if table.rows else []), *tables(document), *lines, Text(where))


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """p50 of every case that both measured, and second / first.

    Raises
    ------
    InvalidInput : the two are of different workloads, or share no case.
    """
    if first.get("workload") != second.get("workload"):
        raise InvalidInput(f"expected one workload, got {first.get('workload')} and {second.get('workload')}")
    before, after = dict(timings(first)), dict(timings(second))
    cases = {
        name: {
            "before_p50_ms": before[name]["p50_ms"],
            "after_p50_ms": after[name]["p50_ms"],
            "ratio": after[name]["p50_ms"] / before[name]["p50_ms"],
        }
        for name in before
        if name in after
    }
    if not cases:
        raise InvalidInput("expected at least one case in both measurements")
    same = first.get("environment", {}).get("cpu") == second.get("environment", {}).get("cpu")
    return {"workload": first.get("workload"), "same_cpu": same, "cases": cases}


def render_comparison(comparison: Mapping[str, Any]) -> Group:
    """The comparison as a table, with a warning where the processors differ."""
    table = Table(title=f"{comparison['workload']}: after / before", title_justify="left")
    for heading in ("case", "before p50 ms", "after p50 ms", "ratio"):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for name, case in comparison["cases"].items():
        table.add_row(name, *(_cell(case[key]) for key in ("before_p50_ms", "after_p50_ms", "ratio")))
    warning = (
        [] if comparison["same_cpu"] else [Text("different processors: the ratios compare machines too")]
    )
    return Group(table, *warning)


def show(renderable: Group) -> None:
    """Print to stdout, wide enough that no figure is cut."""
    Console(width=max(Console().width, 160)).print(renderable, highlight=False)


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
