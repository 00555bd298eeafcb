"""TG-43 source models: the eight that ship, and any file of the same shape."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trocar.planners.types import Float64Array, require
from trocar.runtime.errors import InvalidInput, ModelNotFound

DATA_DIR = Path(__file__).parent / "data"
MAX_FILE_BYTES = 4_000_000
MAX_LDR_STRENGTH_U = 10.0
MAX_HDR_STRENGTH_U = 100_000.0


@dataclass(frozen=True, slots=True, eq=False)
class SourceModel:
    """One source's TG-43 line-source parameters. Lengths in cm, angles in degrees, +z is theta = 0.

    Parameters
    ----------
    name : the maker's name of the source.
    key : the shipped key, such as `i125-6711`; for a file, its stem.
    isotope : such as `I-125`.
    half_life_days : physical half-life.
    dose_rate_constant_cgy_h_u : Lambda, cGy/h per U of air-kerma strength.
    length_cm : active length L.
    g_r_cm, g : (n,) float64, radial dose function g_L.
    f_r_cm, f_theta_deg : (nr,), (nt,) float64, axes of the anisotropy table; a table that ends at
        90 degrees is mirrored.
    f : (nr, nt) float64, anisotropy function F.
    reference : the publication.
    """

    name: str
    key: str
    isotope: str
    half_life_days: float
    dose_rate_constant_cgy_h_u: float
    length_cm: float
    g_r_cm: Float64Array
    g: Float64Array
    f_r_cm: Float64Array
    f_theta_deg: Float64Array
    f: Float64Array
    reference: str

    @property
    def symmetric(self) -> bool:
        """Whether F is given for one half only, and holds for the other."""
        return bool(self.f_theta_deg[-1] <= 90.0)

    def strength_limit_u(self) -> float:
        """The largest believable air-kerma strength, U: a seed of 10 U, an HDR source of 100 000 U."""
        return MAX_HDR_STRENGTH_U if self.isotope == "Ir-192" else MAX_LDR_STRENGTH_U


def source_keys() -> tuple[str, ...]:
    """Keys of the sources that ship, sorted."""
    return tuple(sorted(path.stem for path in DATA_DIR.glob("*.json")))


def load_source(name_or_path: str) -> SourceModel:
    """A shipped source by key or usual name, or a source read from a JSON file.

    Parameters
    ----------
    name_or_path : a key, a usual name (case, spaces and dashes do not matter: `6711`), or a path
        that ends in `.json`.

    Raises
    ------
    ModelNotFound : no such source, or no such file.
    InvalidInput : the file is no usable source.
    """
    path = Path(name_or_path)
    if path.suffix.lower() == ".json":
        if not path.is_file():
            raise ModelNotFound(f"source file {name_or_path}: no such file")
        return _read_source(path)
    key = _aliases().get(_plain(name_or_path))
    if key is None:
        raise ModelNotFound(f"unknown source {name_or_path!r}: expected one of {', '.join(source_keys())}")
    return _shipped(key)


def source_from_document(document: Mapping[str, Any], key: str = "") -> SourceModel:
    """A source from a parsed JSON document (`name, isotope, half_life_days, ..., g_r, F`).

    A null in F (a point inside the capsule) takes the value of the next larger radius at that angle.

    Raises
    ------
    InvalidInput : a field is missing, out of range, unsorted or not finite.
    """
    require(isinstance(document, Mapping), "source: expected a JSON object")
    radial, anisotropy = _section(document, "g_r"), _section(document, "F")
    f_r_cm = _axis(anisotropy, "F.r_cm", upper=200.0)
    f_theta_deg = _axis(anisotropy, "F.theta_deg", upper=180.0)
    g_r_cm = _axis(radial, "g_r.r_cm", upper=200.0)
    g = _vector(radial, "g_r.g")
    require(g.shape == g_r_cm.shape, f"source g_r: expected {g_r_cm.size} values of g, got {g.size}")
    require(g.size >= 2, "source g_r: expected at least 2 radii")
    require(bool(np.all((g > 0) & (g < 1e3))), "source g_r.g: expected values between 0 and 1000")
    g_at_1_cm = float(np.interp(1.0, g_r_cm, g))
    require(
        g_r_cm[0] <= 1.0 <= g_r_cm[-1] and abs(g_at_1_cm - 1.0) <= 0.05,
        f"source g_r: expected g = 1 at 1 cm (radii in cm), got {g_at_1_cm:g}",
    )
    symmetric = anisotropy.get("symmetric", bool(f_theta_deg[-1] <= 90.0))
    require(
        symmetric is bool(f_theta_deg[-1] <= 90.0),
        f"source F: symmetric is {symmetric}, but theta_deg ends at {f_theta_deg[-1]:g}",
    )
    return SourceModel(
        name=_text(document, "name"),
        key=key or _plain(_text(document, "name")),
        isotope=_text(document, "isotope"),
        half_life_days=_number(document, "half_life_days", 1e-3, 1e6),
        dose_rate_constant_cgy_h_u=_number(document, "dose_rate_constant_cGy_per_h_per_U", 1e-3, 10.0),
        length_cm=_number(document, "length_cm", 1e-3, 10.0),
        g_r_cm=g_r_cm,
        g=g,
        f_r_cm=f_r_cm,
        f_theta_deg=f_theta_deg,
        f=_anisotropy_table(anisotropy, f_r_cm.size, f_theta_deg.size),
        reference=str(document.get("reference", "not stated")),
    )


def require_strength_u(source: SourceModel, strength_u: float) -> None:
    """Refuse an air-kerma strength that no such source has.

    Raises
    ------
    InvalidInput : not finite, not positive, or beyond `strength_limit_u`.
    """
    limit = source.strength_limit_u()
    require(
        math.isfinite(strength_u) and 0.0 < strength_u <= limit,
        f"strength: expected 0 < U <= {limit:g} for {source.isotope}, got {strength_u:g}",
    )


@functools.cache
def _shipped(key: str) -> SourceModel:
    return _read_source(DATA_DIR / f"{key}.json")


@functools.cache
def _aliases() -> dict[str, str]:
    names: dict[str, str] = {}
    for key in source_keys():
        document = json.loads((DATA_DIR / f"{key}.json").read_text(encoding="utf-8"))
        names |= {_plain(name): key for name in (key, document["name"], *document["aliases"])}
    return names


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _read_source(path: Path) -> SourceModel:
    try:
        size = path.stat().st_size
        require(size <= MAX_FILE_BYTES, f"expected at most {MAX_FILE_BYTES} bytes, got {size}")
        document = json.loads(path.read_text(encoding="utf-8"))
        return source_from_document(document, key=path.stem)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput(f"source file {path}: expected JSON text: {error}") from None
    except InvalidInput as error:
        raise InvalidInput(f"source file {path}: {error}") from None


def _section(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = document.get(name)
    if not isinstance(section, Mapping):
        raise InvalidInput(f"source {name}: expected an object, got {type(section).__name__}")
    return section


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(f"source {name}: expected text, got {value!r:.40}")
    return value


def _number(document: Mapping[str, Any], name: str, low: float, high: float) -> float:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidInput(f"source {name}: expected a number from {low:g} to {high:g}, got {value!r:.40}")
    return float(value)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and -1e30 < value < 1e30  # type: ignore[operator]


def _vector(section: Mapping[str, Any], name: str) -> Float64Array:
    values = section.get(name.rpartition(".")[2])
    require(
        isinstance(values, list) and len(values) > 0 and all(_is_number(value) for value in values),
        f"source {name}: expected a list of finite numbers",
    )
    return np.array(values, dtype=np.float64)


def _axis(section: Mapping[str, Any], name: str, *, upper: float) -> Float64Array:
    axis = _vector(section, name)
    require(bool(np.all(np.diff(axis) > 0)), f"source {name}: expected strictly increasing values")
    require(
        axis[0] >= 0 and axis[-1] <= upper,
        f"source {name}: expected values from 0 to {upper:g}, got {axis[0]:g} to {axis[-1]:g}",
    )
    return axis


def _anisotropy_table(section: Mapping[str, Any], radii: int, angles: int) -> Float64Array:
    rows = section.get("F")
    if not (
        isinstance(rows, list)
        and len(rows) == radii
        and all(isinstance(row, list) and len(row) == angles for row in rows)
        and all(value is None or _is_number(value) for row in rows for value in row)
    ):
        raise InvalidInput(f"source F.F: expected {radii} rows (radii) of {angles} finite numbers (angles)")
    table = np.array(
        [[np.nan if value is None else value for value in row] for row in rows], dtype=np.float64
    )
    # A null lies inside the capsule, where nobody measures: the next larger radius stands in for it,
    # so that a table lookup just outside the capsule interpolates between values that exist.
    for row in range(radii - 2, -1, -1):
        missing = np.array([value is None for value in rows[row]])
        table[row, missing] = table[row + 1, missing]
    require(bool(np.isfinite(table).all()), "source F.F: expected no null at the largest radius")
    require(bool(np.all((table >= 0) & (table < 100))), "source F.F: expected values between 0 and 100")
    return table
