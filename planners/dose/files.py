"""The small files of `trocar dose`: a CSV of points, a JSON of seeds."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trocar.planners.dose.reference import vectors
from trocar.planners.types import Float64Array, require
from trocar.runtime.errors import InvalidInput

MAX_FILE_BYTES = 256_000_000
MAX_COORDINATE = 1e5


@dataclass(frozen=True, slots=True)
class Seeds:
    """Seeds from a file. `directions_xyz` and `strength_u` are absent where the file does not say."""

    xyz_mm: Float64Array
    directions_xyz: Float64Array | None = None
    strength_u: float | None = None


def read_points(path: str, headers: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], Float64Array]:
    """Points from a CSV file whose first line is one of the headers.

    Returns
    -------
    The header found, and (n, columns) float64.

    Raises
    ------
    InvalidInput : another header, or a row (its line is named) that is not as many finite numbers.
    """
    name = f"points file {path}"
    reader = csv.reader(_read_text(path, name).splitlines())
    expected = " or ".join(",".join(header) for header in headers)
    columns = tuple(column.strip() for column in next(reader, []))
    if columns not in headers:
        raise InvalidInput(f"{name} line 1: expected header {expected}, got {','.join(columns)!r:.80}")
    width = len(columns)
    try:
        rows = [_row(fields, width, f"{name} line {reader.line_num}") for fields in reader if fields]
    except csv.Error as error:
        raise InvalidInput(f"{name} line {reader.line_num}: {error}") from None
    return columns, np.array(rows, dtype=np.float64).reshape(-1, len(columns))


def read_seeds(path: str) -> Seeds:
    """Seeds from a JSON file: a list of [x, y, z] in mm, `{"seeds_xyz_mm": ...}`, or a plan.json.

    Raises
    ------
    InvalidInput : none of these shapes, or a value that is not a finite number.
    """
    name = f"seeds file {path}"
    try:
        document = json.loads(_read_text(path, name))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput(f"{name}: expected JSON: {error}") from None
    if isinstance(document, list):
        return Seeds(_vectors(document, name))
    if not isinstance(document, Mapping):
        raise InvalidInput(f"{name}: expected a list or an object, got {type(document).__name__}")
    strength_u = _strength(document.get("strength_u"), name)
    if "seeds_xyz_mm" in document:
        directions = document.get("directions_xyz")
        return Seeds(
            _vectors(document["seeds_xyz_mm"], f"{name}: seeds_xyz_mm"),
            None if directions is None else _vectors(directions, f"{name}: directions_xyz"),
            strength_u,
        )
    if "needles" in document:
        return Seeds(_vectors(_needle_seeds(document["needles"], name), name), None, strength_u)
    raise InvalidInput(
        f"{name}: expected seeds_xyz_mm or needles, got {', '.join(map(str, document))[:80]!r}"
    )


def _read_text(path: str, name: str) -> str:
    try:
        size = Path(path).stat().st_size
        require(size <= MAX_FILE_BYTES, f"{name}: expected at most {MAX_FILE_BYTES} bytes, got {size}")
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"{name}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{name}: expected UTF-8 text") from None


def _row(fields: Sequence[str], count: int, where: str) -> list[float]:
    require(len(fields) == count, f"{where}: expected {count} values, got {len(fields)}")
    values = []
    for field in fields:
        try:
            value = float(field.replace("_", "?"))  # Python's digit separators are no CSV
        except ValueError:
            raise InvalidInput(f"{where}: expected a number, got {field!r:.40}") from None
        require(
            math.isfinite(value) and abs(value) <= MAX_COORDINATE,
            f"{where}: expected a finite number within {MAX_COORDINATE:g}, got {field!r:.40}",
        )
        values.append(value)
    return values


def _vectors(values: Any, name: str) -> Float64Array:
    ok = isinstance(values, list) and all(
        isinstance(row, list) and len(row) == 3 and all(type(value) in (int, float) for value in row)
        for row in values
    )
    require(ok, f"{name}: expected a list of [x, y, z] numbers")
    try:
        return vectors(np.array(values, dtype=np.float64).reshape(-1, 3), name)
    except OverflowError:
        raise InvalidInput(f"{name}: expected finite coordinates") from None


def _strength(value: Any, name: str) -> float | None:
    if value is None:
        return None
    require(
        type(value) in (int, float) and abs(value) < 1e30,
        f"{name}: strength_u: expected a finite number, got {value!r:.40}",
    )
    return float(value)


def _needle_seeds(needles: Any, name: str) -> list[list[float]]:
    require(isinstance(needles, list), f"{name}: needles: expected a list")
    seeds = []
    for needle in needles:
        if not isinstance(needle, Mapping) or not isinstance(needle.get("seeds_z_mm"), list):
            raise InvalidInput(f"{name}: needles: expected objects with x_mm, y_mm and seeds_z_mm")
        seeds += [[needle.get("x_mm"), needle.get("y_mm"), z] for z in needle["seeds_z_mm"]]
    return seeds
