"""Plan files: `plan.json` (schema trocar.plan/1) both ways, and bare seed lists one way."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trocar.planners.geometry.lattice import check_planes, check_template
from trocar.planners.io.named import clean_name
from trocar.planners.types import Lattice, Needle, Plan, Planes, Template, require
from trocar.runtime.canonical import sha256_of
from trocar.runtime.errors import InvalidInput

SCHEMA = "trocar.plan/1"
FRAME = "patient-lps-mm"
MAX_PLAN_BYTES = 16 * 1024 * 1024
MAX_SEEDS = 1000
MAX_COORDINATE_MM = 10_000.0
# A needle farther than this from a template hole is not in it.
ON_HOLE_MM = 0.05


def plan_document(plan: Plan) -> dict[str, Any]:
    """Give a plan as the `plan.json` document: plain JSON types, millimetres and U."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "source": plan.source,
        "strength_u": plan.strength_u,
        "prescription_gy": plan.prescription_gy,
        "frame": FRAME,
    }
    if plan.lattice is not None:
        template, planes = plan.lattice.template, plan.lattice.planes
        document["template"] = {
            "origin_xy_mm": list(template.origin_xy_mm),
            "pitch_mm": template.pitch_mm,
            "columns": template.columns,
            "rows": template.rows,
        }
        document["planes"] = {"z0_mm": planes.z0_mm, "pitch_mm": planes.pitch_mm, "count": planes.count}
    document["needles"] = [
        {
            "label": needle.label,
            "x_mm": needle.x_mm,
            "y_mm": needle.y_mm,
            "seeds_z_mm": list(needle.seeds_z_mm),
        }
        for needle in plan.needles
    ]
    document["provenance"] = dict(plan.provenance)
    return document


def plan_sha256(document: Mapping[str, Any]) -> str:
    """Return the digest of a `plan.json` document, without the digest it states and without its approval.

    Raises
    ------
    InvalidInput
        The document holds what JSON cannot.
    """
    rest = {key: value for key, value in document.items() if key != "approval"}
    provenance = _object(rest.get("provenance") or {}, "provenance")
    rest["provenance"] = {key: value for key, value in provenance.items() if key != "plan_sha256"}
    try:
        return sha256_of(rest)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"plan: expected finite figures, got {clean_name(str(error))}") from None


def with_digest(plan: Plan) -> Plan:
    """Have a plan's provenance state the digest of its document."""
    digest = plan_sha256(plan_document(plan))
    return replace(plan, provenance={**plan.provenance, "plan_sha256": digest})


def parse_plan(data: bytes) -> Mapping[str, Any]:
    """Parse a plan file's JSON, without looking at what it says.

    Raises
    ------
    InvalidInput
        Too large, or no JSON object.
    """
    return _parsed(data)


def read_plan(
    plan_file: str | Path | bytes | Mapping[str, Any],
    *,
    index: int = 0,
    source: str | None = None,
    strength_u: float | None = None,
    prescription_gy: float | None = None,
) -> Plan:
    """Read a plan: `plan.json`, or `*_seeds.json` (lists of seed positions).

    Parameters
    ----------
    plan_file : a path, the file's bytes, or the parsed document.
    index : which plan of a seed list.
    source, strength_u, prescription_gy : the source's key, U and Gy, for a seed list, which says none
        of them. What a `plan.json` says itself stands.

    Raises
    ------
    InvalidInput
        The document is malformed; the line names the field.
    """
    document = plan_file if isinstance(plan_file, Mapping) else _parsed(plan_file)
    if "schema" not in document and "plans_seed_xyz_mm" in document:
        needles, lattice = _seed_list(document, index)
    else:
        schema = document.get("schema")
        require(schema == SCHEMA, f'plan: schema: expected "{SCHEMA}", got {_shown(schema)}')
        require(index == 0, f"plan: a plan.json holds one plan, number {index} was asked for")
        frame = document.get("frame", FRAME)
        require(frame == FRAME, f'plan: frame: expected "{FRAME}", got {_shown(frame)}')
        source = _text(document, "source")
        strength_u = _figure(document, "strength_u", "")
        prescription_gy = _figure(document, "prescription_gy", "")
        lattice = _lattice(document)
        needles = _needles(document, lattice)
    if source is None or strength_u is None or prescription_gy is None:
        raise InvalidInput("plan: a seed list says no source, strength or prescription; give all three")
    for name, value in (("strength_u", strength_u), ("prescription_gy", prescription_gy)):
        require(math.isfinite(value) and value > 0, f"plan: {name}: expected a figure > 0, got {value:g}")
    seeds = sum(len(needle.seeds_z_mm) for needle in needles)
    require(0 < seeds <= MAX_SEEDS, f"plan: needles: expected 1 to {MAX_SEEDS} seeds, got {seeds}")
    provenance = _object(document.get("provenance") or {}, "provenance")
    return Plan(source, float(strength_u), float(prescription_gy), needles, lattice, dict(provenance))


def _parsed(plan_file: str | Path | bytes) -> Mapping[str, Any]:
    data = plan_file if isinstance(plan_file, bytes) else _read(Path(plan_file))
    require(len(data) <= MAX_PLAN_BYTES, f"plan: {len(data)} bytes, more than {MAX_PLAN_BYTES}")
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"plan: not a JSON document ({clean_name(str(error))})") from None
    return _object(document, "document")


def _read(path: Path) -> bytes:
    name = clean_name(str(path))
    try:
        require(path.is_file(), f'no such plan: "{name}"')
        with path.open("rb") as stream:
            return stream.read(MAX_PLAN_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InvalidInput(f'plan "{name}" cannot be read: {getattr(error, "strerror", error)}') from None


def _shown(value: object) -> str:
    return clean_name(json.dumps(value, default=str)) if value is not None else "nothing"


def _field(document: Mapping[str, Any], key: str, path: str) -> Any:
    require(key in document, f"plan: {path}{key}: missing")
    return document[key]


def _text(document: Mapping[str, Any], key: str, path: str = "") -> str:
    value = _field(document, key, path)
    require(isinstance(value, str) and value != "", f"plan: {path}{key}: expected text, got {_shown(value)}")
    return clean_name(str(value))


def _number(value: object, path: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            figure = float(value)
        except OverflowError:  # JSON has whole numbers of any length
            figure = math.inf
        if math.isfinite(figure):
            return figure
    raise InvalidInput(f"plan: {path}: expected a finite figure, got {_shown(value)}")


def _figure(document: Mapping[str, Any], key: str, path: str) -> float:
    return _number(_field(document, key, path), f"{path}{key}")


def _position(value: object, path: str) -> float:
    figure = _number(value, path)
    require(
        abs(figure) <= MAX_COORDINATE_MM,
        f"plan: {path}: {figure:g} mm is beyond {MAX_COORDINATE_MM:g} mm",
    )
    return figure


def _count(document: Mapping[str, Any], key: str, path: str) -> int:
    value = _figure(document, key, path)
    require(value == int(value), f"plan: {path}{key}: expected a whole number, got {value:g}")
    return int(value)


def _list(value: object, path: str) -> Sequence[Any]:
    require(isinstance(value, list | tuple), f"plan: {path}: expected a list, got {_shown(value)}")
    return value  # type: ignore[return-value]


def _object(value: object, path: str) -> Mapping[str, Any]:
    require(isinstance(value, Mapping), f"plan: {path}: expected an object, got {_shown(value)}")
    return value  # type: ignore[return-value]


def _lattice(document: Mapping[str, Any]) -> Lattice | None:
    """The template and planes, where the document has both."""
    if document.get("template") is None or document.get("planes") is None:
        return None
    template = _object(document["template"], "template")
    origin = _list(_field(template, "origin_xy_mm", "template."), "template.origin_xy_mm")
    require(len(origin) == 2, f"plan: template.origin_xy_mm: expected 2 figures, got {len(origin)}")
    x, y = (_position(value, f"template.origin_xy_mm[{i}]") for i, value in enumerate(origin))
    planes = _object(document["planes"], "planes")
    lattice = Lattice(
        Template(
            (x, y),
            _figure(template, "pitch_mm", "template."),
            _count(template, "columns", "template."),
            _count(template, "rows", "template."),
        ),
        Planes(
            _position(_field(planes, "z0_mm", "planes."), "planes.z0_mm"),
            _figure(planes, "pitch_mm", "planes."),
            _count(planes, "count", "planes."),
        ),
    )
    try:
        check_template(lattice.template)
        check_planes(lattice.planes)
    except InvalidInput as error:
        raise InvalidInput(f"plan: {error}") from None
    return lattice


def _needles(document: Mapping[str, Any], lattice: Lattice | None) -> tuple[Needle, ...]:
    entries = _list(_field(document, "needles", ""), "needles")
    require(len(entries) <= MAX_SEEDS, f"plan: needles: {len(entries)} needles, more than {MAX_SEEDS}")
    needles = []
    for i, raw in enumerate(entries):
        path = f"needles[{i}]."
        entry = _object(raw, f"needles[{i}]")
        x = _position(_field(entry, "x_mm", path), f"{path}x_mm")
        y = _position(_field(entry, "y_mm", path), f"{path}y_mm")
        seeds = _list(_field(entry, "seeds_z_mm", path), f"{path}seeds_z_mm")
        require(len(seeds) <= MAX_SEEDS, f"plan: {path}seeds_z_mm: {len(seeds)} seeds, more than {MAX_SEEDS}")
        z = sorted(_position(value, f"{path}seeds_z_mm[{j}]") for j, value in enumerate(seeds))
        label = _text(entry, "label", path) if entry.get("label") else ""
        if lattice is not None:
            label = _checked_label(label, x, y, lattice.template, path)
        needles.append(Needle(label or f"{i + 1}", x, y, tuple(z)))
    return tuple(needles)


def _hole(x_mm: float, y_mm: float, template: Template) -> tuple[int, int] | None:
    """Column and row of the hole at a position, or None off the template."""
    column = round((x_mm - template.origin_xy_mm[0]) / template.pitch_mm)
    row = round((y_mm - template.origin_xy_mm[1]) / template.pitch_mm)
    if not (0 <= column < template.columns and 0 <= row < template.rows):
        return None
    hole_x, hole_y = template.hole_xy_mm(column, row)
    return (column, row) if math.hypot(x_mm - hole_x, y_mm - hole_y) <= ON_HOLE_MM else None


def _checked_label(label: str, x_mm: float, y_mm: float, template: Template, path: str) -> str:
    hole = _hole(x_mm, y_mm, template)
    if hole is None:
        raise InvalidInput(f"plan: {path}x_mm, y_mm: ({x_mm:g}, {y_mm:g}) mm is not a hole of the template")
    expected = template.label(*hole)
    require(
        label in ("", expected), f'plan: {path}label: the hole at its x, y is "{expected}", got "{label}"'
    )
    return expected


def _seed_list(document: Mapping[str, Any], index: int) -> tuple[tuple[Needle, ...], Lattice | None]:
    """Needles of a seed list: seeds that share x and y are one needle."""
    plans = _list(document["plans_seed_xyz_mm"], "plans_seed_xyz_mm")
    require(0 <= index < len(plans), f"plan: the file holds {len(plans)} plans, number {index} was asked for")
    path = f"plans_seed_xyz_mm[{index}]"
    seeds = _list(plans[index], path)
    require(len(seeds) <= MAX_SEEDS, f"plan: {path}: {len(seeds)} seeds, more than {MAX_SEEDS}")
    columns: dict[tuple[float, float], list[float]] = {}
    for i, raw in enumerate(seeds):
        seed = _list(raw, f"{path}[{i}]")
        require(len(seed) == 3, f"plan: {path}[{i}]: expected x, y, z, got {len(seed)} figures")
        x, y, z = (_position(value, f"{path}[{i}][{axis}]") for axis, value in enumerate(seed))
        columns.setdefault((round(x, 3), round(y, 3)), []).append(z)
    lattice = _seed_lattice(document, columns)
    needles = []
    for number, ((x, y), z_mm) in enumerate(sorted(columns.items(), key=lambda item: item[0][::-1]), start=1):
        hole = _hole(x, y, lattice.template) if lattice is not None else None
        label = lattice.template.label(*hole) if lattice is not None and hole is not None else f"{number}"
        needles.append(Needle(label, x, y, tuple(sorted(z_mm))))
    return tuple(needles), lattice


def _seed_lattice(
    document: Mapping[str, Any], columns: Mapping[tuple[float, float], Sequence[float]]
) -> Lattice | None:
    """The lattice a seed list lies on, where its template's pitch and size are given and all seeds agree.

    The first hole is the smallest non-negative position that the seeds' phase allows.
    """
    keys = ("template_pitch_mm", "template_cols", "template_rows")
    if not columns or any(document.get(key) is None for key in keys):
        return None
    pitch = _figure(document, keys[0], "")
    template_at = tuple(next(iter(columns))[axis] % pitch if pitch > 0 else 0.0 for axis in (0, 1))
    template = Template(
        (template_at[0], template_at[1]), pitch, _count(document, keys[1], ""), _count(document, keys[2], "")
    )
    check_template(template)
    z = [at for seeds in columns.values() for at in seeds]
    low = min(z)
    on_planes = all(abs((at - low) / pitch - round((at - low) / pitch)) * pitch <= ON_HOLE_MM for at in z)
    count = round((max(z) - low) / pitch) + 1
    if not on_planes or count > 60 or any(_hole(x, y, template) is None for x, y in columns):
        return None
    return Lattice(template, Planes(low, pitch, count))
