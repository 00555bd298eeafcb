"""Limits that a measurement has to keep: a customer's acceptance test, as TOML."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trocar.bench.report.document import facts, timings
from trocar.runtime.config import limits, parse_table, refuse_unknown
from trocar.runtime.errors import InvalidInput

# Of a case: how far a percentile, or its ratio to the floor, may go.
_AT_MOST = ("p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms", "cpu_ms", "over_floor")


@dataclass(frozen=True, slots=True)
class Limit:
    """One `[[limit]]` table; a bound that is absent is not a number.

    Parameters
    ----------
    workload : whose measurement.
    case : a timing, as `trocar bench report` names it; the `..._ms` and `over_floor` are its largest values.
    to, ratio_at_most, ratio_at_least : another timing, and bounds on p50 of `case` over p50 of it.
    fact : or a plain value of the measurement, with `at_most` and `at_least`.
    """

    workload: str = ""
    case: str = ""
    fact: str = ""
    to: str = ""
    p50_ms: float = field(default=math.nan, metadata=limits(0))
    p90_ms: float = field(default=math.nan, metadata=limits(0))
    p99_ms: float = field(default=math.nan, metadata=limits(0))
    p99_9_ms: float = field(default=math.nan, metadata=limits(0))
    max_ms: float = field(default=math.nan, metadata=limits(0))
    cpu_ms: float = field(default=math.nan, metadata=limits(0))
    over_floor: float = field(default=math.nan, metadata=limits(0))
    ratio_at_most: float = field(default=math.nan, metadata=limits(0))
    ratio_at_least: float = field(default=math.nan, metadata=limits(0))
    at_most: float = math.nan
    at_least: float = math.nan


def read_gate(path: str) -> tuple[Limit, ...]:
    """The limits of a file.

    Raises
    ------
    InvalidInput : it cannot be read, is not TOML, has an unknown key, or a limit that limits nothing.
    """
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"--gate {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not TOML: {error}") from None
    refuse_unknown(document, ("limit",), path)
    tables = document.get("limit")
    if not isinstance(tables, list) or not tables:
        raise InvalidInput(f"{path}: expected at least one [[limit]], got none")
    return tuple(_limit(table, f"{path}: [[limit]] {number}") for number, table in enumerate(tables, 1))


def violations(gate: Sequence[Limit], measurements: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the measurements do not keep, a line each; what they do not have is not kept either."""
    lines = []
    for limit in gate:
        mine = [document for document in measurements if document.get("workload") == limit.workload]
        if not mine:
            lines.append(f"{limit.workload} {limit.case or limit.fact}: expected a measurement, got none")
        for document in mine:
            lines += _broken(limit, document)
    return lines


def _limit(table: Any, where: str) -> Limit:
    limit = parse_table(Limit, table, where=where)
    given = {item.name for item in dataclasses.fields(Limit) if item.name in table}
    ratios = given & {"ratio_at_most", "ratio_at_least"}
    if not limit.workload:
        raise InvalidInput(f"{where}: expected a workload")
    if bool(limit.case) == bool(limit.fact):
        raise InvalidInput(f"{where}: expected either a case or a fact")
    if bool(limit.to) != bool(ratios):
        raise InvalidInput(f"{where}: expected `to` with ratio_at_most or ratio_at_least, got one alone")
    allowed = {"at_most", "at_least"} if limit.fact else {*_AT_MOST, "ratio_at_most", "ratio_at_least"}
    bounds = given - {"workload", "case", "fact", "to"}
    if not bounds or not bounds <= allowed:
        kind = "fact" if limit.fact else "case"
        raise InvalidInput(f"{where}: expected for a {kind} some of {', '.join(sorted(allowed))}")
    return limit


def _broken(limit: Limit, document: Mapping[str, Any]) -> Iterator[str]:
    for what, value, least, most in _measured(limit, document):
        name = f"{limit.workload} {limit.case or limit.fact}: {what}"
        if value is None:
            yield f"{name} was not measured"
        elif not value <= most:  # also what is no number
            yield f"{name} is {value:.4g}, expected at most {most:g}"
        elif not value >= least:
            yield f"{name} is {value:.4g}, expected at least {least:g}"


def _measured(limit: Limit, document: Mapping[str, Any]) -> Iterator[tuple[str, float | None, float, float]]:
    """Each bounded value with its name and both bounds; None where the measurement does not have it."""
    if limit.fact:
        value = dict(facts(document)).get(limit.fact)
        number = float(value) if isinstance(value, int | float) else None
        yield "it", number, _or(limit.at_least, -math.inf), _or(limit.at_most, math.inf)
        return
    found = dict(timings(document))
    case = found.get(limit.case, {})
    for name in _AT_MOST:
        if not math.isnan(bound := getattr(limit, name)):
            yield name, case.get(name), -math.inf, bound
    if limit.to:
        pair = (case.get("p50_ms"), found.get(limit.to, {}).get("p50_ms"))
        ratio = pair[0] / pair[1] if pair[0] is not None and pair[1] else None
        least, most = _or(limit.ratio_at_least, -math.inf), _or(limit.ratio_at_most, math.inf)
        yield f"ratio to {limit.to}", ratio, least, most


def _or(bound: float, otherwise: float) -> float:
    return otherwise if math.isnan(bound) else bound
