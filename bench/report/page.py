"""Measurements as one HTML page with nothing to fetch and nothing to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trocar.bench.report.document import cell, facts, floors, rows, timings, where
from trocar.bench.report.plots import LINES, distributions_svg, series_svg
from trocar.bench.report.text import used_columns
from trocar.planners.report.markup import Markup, element, image, joined, table

# Scripts, pictures and fonts from anywhere are refused, whatever a name in a file says.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
body { margin: 0 auto; padding: 8mm; max-width: 270mm; color: #1b1f24;
  font: 10pt/1.45 Helvetica, Arial, sans-serif;
  font-variant-numeric: tabular-nums; }
h1 { font-size: 19pt; } h2 { margin-top: 12mm; border-bottom: 1px solid #1b1f24; font-size: 14pt; }
h3 { margin: 6mm 0 1mm; font-size: 11pt; } code { font-size: 9pt; word-break: break-all; }
table { border-collapse: collapse; font-size: 9pt; }
th, td { padding: 1mm 4mm 1mm 0; border-bottom: 1px solid #e3e6ea; }
th { text-align: left; color: #6b7480; font-weight: 500; } td + td { text-align: right; }
svg { max-width: 100%; height: auto; } .faint { color: #6b7480; font-size: 9pt; }
@media print { body { padding: 0; max-width: none; } h3, tr, svg { break-inside: avoid; } }
"""


def html(measurements: Sequence[Mapping[str, Any]]) -> str:
    """Return the page: tables, distributions, series, floors and what it was measured on."""
    title = "trocar bench: " + ", ".join(dict.fromkeys(str(one.get("workload")) for one in measurements))
    head = element(
        "head",
        image("meta", charset="utf-8"),
        image("meta", name="viewport", content="width=device-width, initial-scale=1"),
        image("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", title),
        element("style", Markup(_STYLE)),
    )
    body = element("body", element("h1", title), *(_section(document) for document in measurements))
    return Markup("<!doctype html>") + element("html", head, body, lang="en") + "\n"


def _section(document: Mapping[str, Any]) -> Markup:
    columns = used_columns(document)
    parts: list[Markup] = [
        element("h2", document.get("workload")),
        element("p", element("code", document.get("command", ""))),
        *(element("p", line, class_="faint") for line in where(document)),
    ]
    if columns:
        parts.append(_table(["case", *columns.values()], rows(document, list(columns))))
        parts += [element("p", line, class_="faint") for line in floors(document)]
        parts += _plots(document)
    for name, content in document.get("tables", {}).items():
        titles = list(dict.fromkeys(column for row in content for column in row))
        body = ((row.get(titles[0]), [row.get(title) for title in titles[1:]]) for row in content)
        parts += [element("h3", name), _table(titles, body)]
    if found := list(facts(document)):
        parts += [element("h3", "also"), _table(["what", "is"], ((name, [value]) for name, value in found))]
    parts += [element("h3", "environment"), _table(["what", "is"], _environment(document))]
    return element("section", joined(parts))


def _plots(document: Mapping[str, Any]) -> list[Markup]:
    """A pair of plots for every few cases whose samples were kept."""
    drawn = [(name, timing) for name, timing in timings(document) if timing.get("series_ms")]
    parts: list[Markup] = []
    for first in range(0, len(drawn), LINES):
        some = drawn[first : first + LINES]
        # matplotlib writes the cases' names as escaped text.
        parts += [
            element("h3", "distribution"),
            Markup(distributions_svg(some)),
            element("h3", "over time"),
            Markup(series_svg(some)),
        ]
    return parts


def _environment(document: Mapping[str, Any]) -> list[tuple[str, list[Any]]]:
    found = []
    for name, value in document.get("environment", {}).items():
        if isinstance(value, Mapping):
            found += [(package, [version]) for package, version in value.items()]
        else:
            found.append((name, [", ".join(value) if isinstance(value, list) else value]))
    return found


def _table(titles: Sequence[str], body: Iterable[tuple[Any, Sequence[Any]]]) -> Markup:
    return table(titles, ([cell(first), *map(cell, values)] for first, values in body))
