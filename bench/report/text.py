"""Measurements as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from trocar.bench.report.document import cell, facts, floors, rows, timings, where
from trocar.bench.report.terminal import COLUMNS

# What CSV has besides the columns of the tables.
_MORE = ("p50_low_ms", "p50_high_ms", "floor", "scenario", "rate_per_s", "failures")


def markdown(measurements: Sequence[Mapping[str, Any]]) -> str:
    """A section a measurement: its command, a table of its cases, its other tables and facts."""
    return "\n\n".join("\n\n".join(_section(document)) for document in measurements) + "\n"


def comma_separated(measurements: Sequence[Mapping[str, Any]]) -> str:
    """A row a timing, with full precision; the first line names the columns."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [*COLUMNS, *_MORE]
    writer.writerow(["workload", "case", *names, "cpu", "created", "commit"])
    for document in measurements:
        environment = document.get("environment", {})
        place = [environment.get(name, "") for name in ("cpu", "created", "commit")]
        for case, timing in timings(document):
            values = [timing.get(name, "") for name in names]
            writer.writerow([document.get("workload", ""), case, *values, *place])
    return out.getvalue()


def used_columns(document: Mapping[str, Any]) -> dict[str, str]:
    """The columns of which some case has a value."""
    found = [timing for _, timing in timings(document)]
    return {name: title for name, title in COLUMNS.items() if any(name in timing for timing in found)}


def _section(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {document.get('workload')}"
    yield f"`{document.get('command', '')}`"
    columns = used_columns(document)
    if columns:
        body = ([case, *map(cell, values)] for case, values in rows(document, list(columns)))
        yield _table(["case", *columns.values()], body)
        if lines := floors(document):
            yield "\n".join(f"- {line}" for line in lines)
    for name, content in document.get("tables", {}).items():
        titles = list(dict.fromkeys(column for row in content for column in row))
        yield f"{name}:"
        yield _table(titles, ([cell(row.get(title)) for title in titles] for row in content))
    if found := [f"- {name}: {cell(value)}" for name, value in facts(document)]:
        yield "\n".join(found)
    yield "\n".join(f"- {line}" for line in where(document))


def _table(titles: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *body]
    return "\n".join("| " + " | ".join(_escaped(str(text)) for text in line) + " |" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
