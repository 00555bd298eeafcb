"""Measurements as files, and what is in one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trocar.runtime.errors import InvalidInput

SCHEMA = "trocar.bench/1"
# Of the document itself, not of what was measured.
_FRAME = ("schema", "workload", "command")
_NOT_FACTS = ("environment", "conditions", "machine", "usage")


def read(path: str) -> dict[str, Any]:
    """A single measurement that `trocar bench run` wrote.

    Raises
    ------
    InvalidInput : no such file, no JSON, another schema, or several measurements.
    """
    found = read_all(path)
    if len(found) != 1:
        raise InvalidInput(f"{path}: expected one measurement, got {len(found)}")
    return found[0]


def read_all(path: str) -> list[dict[str, Any]]:
    """The measurements of a file: one, or what a run of several workloads wrote.

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
    found = document.get("measurements", [document]) if isinstance(document, dict) else [document]
    if not isinstance(found, list) or not found or not all(_is_measurement(one) for one in found):
        raise InvalidInput(f"{path}: expected a measurement with schema {SCHEMA}")
    return found


def together(measurements: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """One document of the measurements; of a single one, itself."""
    return (
        measurements[0] if len(measurements) == 1 else {"schema": SCHEMA, "measurements": list(measurements)}
    )


def dumps(document: Mapping[str, Any]) -> str:
    """Return the document as JSON that a person can read, each series of samples on one line."""
    text = json.dumps(document, indent=2)
    return re.sub(r'"series_ms": \[[^\]]*\]', lambda found: re.sub(r"\s+", " ", found[0]), text)


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
    """Every plain value in a measurement that is no timing and says nothing of where it was made."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            if "p50_ms" not in value and name not in _NOT_FACTS:
                yield from facts(value, f"{prefix}{name}.")
        elif not isinstance(value, list) and name not in _FRAME:
            yield f"{prefix}{name}", value


def where(document: Mapping[str, Any]) -> list[str]:
    """Lines that say what the measurement was made on, with what, and what it used."""
    environment = document.get("environment", {})
    gpus = ", ".join(environment.get("gpu") or ["no GPU"])
    lines = [
        f"{environment.get('cpu')}, {environment.get('cores')} cores, {gpus}, load "
        f"{environment.get('load_1min')}, commit {environment.get('commit')}, {environment.get('created')}"
    ]
    lines += [
        f"{name}: " + ", ".join(f"{key} {value}" for key, value in document[name].items())
        for name in ("conditions", "machine", "usage")
        if name in document
    ]
    if document.get("interrupted"):
        lines.append("interrupted: what was measured until then")
    return lines


def rows(document: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """Every timing with the entries of these names, None where it has none."""
    for case, timing in timings(document):
        yield case, [timing.get(name) for name in names]


def floors(document: Mapping[str, Any]) -> list[str]:
    """What the floors are, a line each, with the cases that have it."""
    held: dict[str, list[str]] = {}
    for case, (floor,) in rows(document, ["floor"]):
        if floor is not None:
            held.setdefault(floor, []).append(case)
    return [f"floor, {floor}: {', '.join(cases)}" for floor, cases in held.items()]


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_measurement(document: Any) -> bool:
    return isinstance(document, dict) and document.get("schema") == SCHEMA
