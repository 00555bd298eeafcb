"""Protocols: prescriptions, limits, search goals and geometric rules, as data with a source each.

A protocol is a TOML file. Four are shipped in `planners/protocols`; a centre's own file is read the
same way and just as strictly, since a mistyped key would otherwise switch a limit off in silence.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from trocar.planners.metric import parse_metric
from trocar.planners.types import ROLES
from trocar.runtime.errors import InvalidInput, ModelNotFound

OPERATORS = ("<", "<=", ">", ">=")
LIMIT_SEVERITIES = ("fail", "warn")
NEEDLE_PATTERNS = ("row3", "column4", "tee", "block2x2")
MAX_PROTOCOL_BYTES = 1 << 20
# Units a limit may be given in, by what the metric is measured in.
LIMIT_UNITS = {"pct": ("%",), "gy": ("Gy", "% of prescription"), "cc": ("cc",)}


@dataclass(frozen=True, slots=True)
class Limit:
    """One dose-volume limit: `metric` of `role` `op` `value`.

    `metric` is a name as in `trocar.planners.metric` (`v100_pct`, `d90_gy`, `d0_1cc_gy`, `v100_cc`).
    A dose metric may be limited in `Gy` or in `% of prescription`. `severity` is what a breach means.
    """

    role: str
    metric: str
    op: str
    value: float
    unit: str
    severity: str
    source: str


@dataclass(frozen=True, slots=True)
class Goal:
    """A search goal: at least / at most `volume` of `role` receives `dose_pct` % of the prescription or more.

    Every clinical criterion has this form: D10 <= 150 % is "at most 10 % receives 150 %", and
    D2cc <= 100 % is "at most 2 cc receives 100 %". `weight` is the cost of missing by one `unit`;
    `hinge_weight` is the cost of each 1 % of the prescription, averaged over the structure, by which points
    lie on the wrong side of the dose: it shows the search the way where volumes do not change yet.
    """

    role: str
    kind: str
    dose_pct: float
    volume: float
    unit: str
    weight: float
    hinge_weight: float


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """What the search works towards; `needle_cost` and `seed_cost` are in the goals' cost unit, each."""

    goals: tuple[Goal, ...]
    needle_cap: int
    needle_cost: float
    seed_cost: float


@dataclass(frozen=True, slots=True)
class GeometryRules:
    """Where needles and seeds may stand. `forbidden_patterns` are names of `NEEDLE_PATTERNS`.

    Seeds keep within `candidate_margin_mm` of the PTV; needles keep `urethra_clearance_mm` away from the
    urethra's outline as it is seen along them.
    """

    min_spacing_along_needle_mm: float
    no_adjacent_in_plane: bool
    forbidden_patterns: tuple[str, ...]
    max_needles: int
    candidate_margin_mm: float
    urethra_clearance_mm: float
    source: str


@dataclass(frozen=True, slots=True)
class Checks:
    """The checks that are not dose-volume limits, and how far they may be off."""

    prescription_tolerance_pct: float
    prescription_source: str
    strength_source: str
    second_dose_points: int
    second_dose_limit_pct: float
    second_dose_source: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something every report under this protocol must say, with its source."""

    rule: str
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Protocol:
    """One way of treating: what is prescribed, with which seeds, and what makes a plan acceptable."""

    key: str
    title: str
    prescription_gy: float
    isotope: str
    source: str
    strength_u: float
    strength_range_u: tuple[float, float]
    limits: tuple[Limit, ...]
    search: SearchSettings
    geometry: GeometryRules
    checks: Checks
    notes: tuple[Note, ...]

    def require_sane(self, *, strength_u: float, prescription_gy: float) -> None:
        """Refuse a strength or prescription that cannot be meant.

        Raises
        ------
        InvalidInput
            The strength lies outside `strength_range_u`, or the prescription is not a positive dose.
        """
        low, high = self.strength_range_u
        if not low <= strength_u <= high:
            raise InvalidInput(
                f"expected a seed strength of {low:g} to {high:g} U for {self.isotope} "
                f"({self.key}), got {strength_u:g} U"
            )
        if not (math.isfinite(prescription_gy) and prescription_gy > 0):
            raise InvalidInput(f"expected a prescription above 0 Gy, got {prescription_gy:g}")


def protocol_keys() -> tuple[str, ...]:
    """Keys of the shipped protocols, sorted."""
    folder = resources.files("trocar.planners").joinpath("protocols")
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_protocol(name_or_path: str | Path) -> Protocol:
    """Read a shipped protocol by key, or a centre's own `.toml` file by path.

    Raises
    ------
    ModelNotFound
        Neither a shipped key nor an existing file.
    InvalidInput
        The file is not a valid protocol; the message names the key at fault.
    """
    name = str(name_or_path)
    if name in protocol_keys():
        entry = resources.files("trocar.planners").joinpath("protocols", f"{name}.toml")
        return parse_protocol(entry.read_text(encoding="utf-8"), where=name)
    path = Path(name)
    if path.suffix != ".toml" or not path.is_file():
        known = ", ".join(protocol_keys())
        raise ModelNotFound(
            f"expected one of the protocols {known} or the path of a .toml file, got {name!r}"
        )
    if path.stat().st_size > MAX_PROTOCOL_BYTES:
        raise InvalidInput(f"{name}: expected a protocol of at most {MAX_PROTOCOL_BYTES} bytes")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{name}: expected a readable UTF-8 file, got {error}") from error
    return parse_protocol(text, where=name)


def parse_protocol(text: str, *, where: str = "protocol") -> Protocol:
    """Read a protocol from TOML text; `where` names it in messages.

    Raises
    ------
    InvalidInput
        Not TOML, or a key is unknown, missing, of the wrong type or out of range.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{where}: expected TOML, got {error}") from error
    table = _Table(where, document)
    protocol = Protocol(
        key=table.text("key"),
        title=table.text("title"),
        prescription_gy=table.number("prescription_gy", 1.0, 1000.0),
        isotope=table.text("isotope"),
        source=table.text("source"),
        strength_u=table.number("strength_u", 1e-3, 1e6),
        strength_range_u=table.pair("strength_range_u"),
        limits=tuple(_limit(entry) for entry in table.tables("limit")),
        search=_search(table.table("search")),
        geometry=_geometry(table.table("geometry")),
        checks=_checks(table.table("checks")),
        notes=tuple(_note(entry) for entry in table.tables("note", optional=True)),
    )
    table.finish()
    low, high = protocol.strength_range_u
    table.check(0 < low < high, "strength_range_u", "0 < low < high", [low, high])
    table.check(low <= protocol.strength_u <= high, "strength_u", f"{low:g} to {high:g}", protocol.strength_u)
    cap, most = protocol.search.needle_cap, protocol.geometry.max_needles
    table.check(cap <= most, "search.needle_cap", f"at most geometry.max_needles = {most}", cap)
    return protocol


def same_isotope(first: str, second: str) -> bool:
    """Whether two spellings (I-125, 125I, i125) name one isotope."""

    def parts(text: str) -> tuple[str, str]:
        return "".join(re.findall(r"[a-z]", text.lower())), "".join(re.findall(r"\d", text))

    return parts(first) == parts(second)


def _limit(table: _Table) -> Limit:
    limit = Limit(
        role=table.choice("role", ROLES),
        metric=table.text("metric"),
        op=table.choice("op", OPERATORS),
        value=table.number("value", 0.0, 1e6),
        unit=table.text("unit"),
        severity=table.choice("severity", LIMIT_SEVERITIES),
        source=table.text("source"),
    )
    table.finish()
    try:
        units = LIMIT_UNITS[parse_metric(limit.metric).unit]
    except InvalidInput as error:
        raise table.fault("metric", str(error)) from error
    table.check(limit.unit in units, "unit", " or ".join(units), limit.unit)
    return limit


def _search(table: _Table) -> SearchSettings:
    settings = SearchSettings(
        goals=tuple(_goal(entry) for entry in table.tables("goal")),
        needle_cap=table.integer("needle_cap", 1, 1000),
        needle_cost=table.number("needle_cost", 0.0, 1e6),
        seed_cost=table.number("seed_cost", 0.0, 1e6),
    )
    table.finish()
    return settings


def _goal(table: _Table) -> Goal:
    unit = table.choice("unit", ("pct", "cc"))
    goal = Goal(
        role=table.choice("role", ROLES),
        kind=table.choice("kind", ("at_least", "at_most")),
        dose_pct=table.number("dose_pct", 1.0, 1000.0),
        volume=table.number("volume", 0.0, 100.0 if unit == "pct" else 1e4),
        unit=unit,
        weight=table.number("weight", 0.0, 1e6),
        hinge_weight=table.number("hinge_weight", 0.0, 1e6),
    )
    table.finish()
    return goal


def _geometry(table: _Table) -> GeometryRules:
    rules = GeometryRules(
        min_spacing_along_needle_mm=table.number("min_spacing_along_needle_mm", 0.0, 100.0),
        no_adjacent_in_plane=table.flag("no_adjacent_in_plane"),
        forbidden_patterns=table.texts("forbidden_patterns", NEEDLE_PATTERNS),
        max_needles=table.integer("max_needles", 1, 1000),
        candidate_margin_mm=table.number("candidate_margin_mm", 0.0, 50.0),
        urethra_clearance_mm=table.number("urethra_clearance_mm", 0.0, 50.0),
        source=table.text("source"),
    )
    table.finish()
    return rules


def _checks(table: _Table) -> Checks:
    checks = Checks(
        prescription_tolerance_pct=table.number("prescription_tolerance_pct", 0.0, 100.0),
        prescription_source=table.text("prescription_source"),
        strength_source=table.text("strength_source"),
        second_dose_points=table.integer("second_dose_points", 2000, 1_000_000),
        second_dose_limit_pct=table.number("second_dose_limit_pct", 0.0, 100.0),
        second_dose_source=table.text("second_dose_source"),
    )
    table.finish()
    return checks


def _note(table: _Table) -> Note:
    note = Note(rule=table.text("rule"), text=table.text("text"), source=table.text("source"))
    table.finish()
    return note


class _Table:
    """A TOML table read key by key; every message names the key in full, and no key may be left over."""

    def __init__(self, where: str, values: Mapping[str, Any], prefix: str = "") -> None:
        self._where, self._values, self._prefix = where, values, prefix
        self._left = set(values)

    def check(self, condition: bool, key: str, expected: str, actual: object) -> None:
        if not condition:
            raise self.fault(key, f"expected {expected}, got {actual!r}")

    def fault(self, key: str, message: str) -> InvalidInput:
        return InvalidInput(f"{self._where}: {self._prefix}{key}: {message}")

    def finish(self) -> None:
        for key in sorted(self._left):
            self.check(False, key, "no such key", self._values[key])

    def _take(self, key: str) -> Any:
        if key not in self._values:
            raise self.fault(key, "expected this key, it is missing")
        self._left.discard(key)
        return self._values[key]

    def text(self, key: str) -> str:
        value = self._take(key)
        self.check(isinstance(value, str) and value.strip() != "", key, "a non-empty string", value)
        return str(value)

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.text(key)
        self.check(value in choices, key, " or ".join(choices), value)
        return value

    def texts(self, key: str, choices: tuple[str, ...]) -> tuple[str, ...]:
        value = self._take(key)
        valid = isinstance(value, list) and all(item in choices for item in value)
        self.check(valid, key, f"a list out of {', '.join(choices)}", value)
        return tuple(value)

    def number(self, key: str, low: float, high: float) -> float:
        return self._number(key, self._take(key), low, high)

    def _number(self, key: str, value: Any, low: float, high: float) -> float:
        # TOML has nan and inf, and Python counts True as 1: none of them is a dose.
        valid = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        self.check(valid, key, f"a number from {low:g} to {high:g}", value)
        return float(value)

    def integer(self, key: str, low: int, high: int) -> int:
        value = self._take(key)
        valid = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        self.check(valid, key, f"an integer from {low} to {high}", value)
        return int(value)

    def pair(self, key: str) -> tuple[float, float]:
        value = self._take(key)
        self.check(isinstance(value, list) and len(value) == 2, key, "two numbers", value)
        return self._number(key, value[0], 0.0, 1e6), self._number(key, value[1], 0.0, 1e6)

    def flag(self, key: str) -> bool:
        value = self._take(key)
        self.check(isinstance(value, bool), key, "true or false", value)
        return bool(value)

    def table(self, key: str) -> _Table:
        value = self._take(key)
        self.check(isinstance(value, dict), key, f"a table [{key}]", value)
        return _Table(self._where, value, f"{self._prefix}{key}.")

    def tables(self, key: str, *, optional: bool = False) -> list[_Table]:
        if optional and key not in self._values:
            return []
        value = self._take(key)
        valid = isinstance(value, list) and all(isinstance(item, dict) for item in value)
        self.check(valid and (optional or bool(value)), key, f"tables [[{key}]]", value)
        return [
            _Table(self._where, item, f"{self._prefix}{key}[{index}].") for index, item in enumerate(value)
        ]
