"""A measurement, and a comparison of two, as tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from trocar.bench.report.document import cell, facts, floors, rows, where

COLUMNS = {
    "p50_ms": "p50 ms",
    "p90_ms": "p90 ms",
    "p99_ms": "p99 ms",
    "p99_9_ms": "p99.9 ms",
    "max_ms": "max ms",
    "min_ms": "min ms",
    "cpu_ms": "CPU ms",
    "samples": "samples",
    "limit_ms": "limit ms",
    "floor_ms": "floor ms",
    "over_floor": "times floor",
}


def render(document: Mapping[str, Any]) -> Group:
    """One measurement: its environment, a row a case, and what else was found."""
    title = Text(str(document.get("command", document.get("workload"))), style="bold")
    found = list(rows(document, list(COLUMNS)))
    used = [index for index in range(len(COLUMNS)) if any(values[index] is not None for _, values in found)]
    table = _table("", ["case", *(list(COLUMNS.values())[index] for index in used)])
    for case, values in found:
        table.add_row(case, *(cell(values[index]) for index in used))
    lines = [Text(f"{name}: {cell(value)}") for name, value in facts(document)]
    lines += map(Text, floors(document))
    return Group(title, *([table] if found else []), *_tables(document), *lines, *map(Text, where(document)))


def render_comparison(comparison: Mapping[str, Any]) -> Group:
    """Each case's verdict with its interval, and in what the two runs' environments differ."""
    table = _table(
        f"{comparison['workload']}: after / before",
        ["case", "before p50 ms", "after p50 ms", "ratio", "95 % interval", "verdict"],
    )
    for name, case in comparison["cases"].items():
        interval = case.get("ratio_interval")
        between = "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
        figures = (cell(case[key]) for key in ("before_p50_ms", "after_p50_ms", "ratio"))
        table.add_row(name, *figures, between, case["verdict"])
    return Group(table, *(Text(note) for note in comparison["notes"]))


def show(renderable: Group) -> None:
    """Print to stdout, wide enough that no figure is cut."""
    Console(width=max(Console().width, 160)).print(renderable, highlight=False)


def _tables(document: Mapping[str, Any]) -> Iterator[Table]:
    """Every table of a measurement: `tables` maps a name to rows, each a mapping of column to value."""
    for name, content in document.get("tables", {}).items():
        columns = list(dict.fromkeys(column for row in content for column in row))
        table = _table(name, columns)
        for row in content:
            table.add_row(*(cell(row.get(column)) for column in columns))
        yield table


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=title or None, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in (columns[0], "verdict") else "right")
    return table
