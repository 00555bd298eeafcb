"""A model card's parts: facts and measured tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def facts_table(facts: Mapping[str, Any]) -> str:
    """Names and values, a row each."""
    if not facts:
        return "Not recorded."
    rows = [f"| {name.replace('_', ' ')} | {shown(value)} |" for name, value in facts.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def measured_table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A section with a table, each row an object with the same keys; without rows it says so."""
    if not rows:
        return f"## {title}\n\nNot measured yet."
    names = list(rows[0])
    lines = [
        "| " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "|" + "---|" * len(names),
        *("| " + " | ".join(shown(row.get(name, "")) for name in names) + " |" for row in rows),
    ]
    return f"## {title}\n\n" + "\n".join(lines)


def shown(value: Any) -> str:
    """A value in one table cell."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {shown(held)}" for key, held in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(shown(held) for held in value)
    return " ".join(str(value).replace("|", "/").split())
