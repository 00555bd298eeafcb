"""A planned case made of ellipsoids and an inverse-square dose: every figure in it can be worked by hand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trocar.planners.types import (
    Anatomy,
    Case,
    Finding,
    Grid,
    Lattice,
    Needle,
    Plan,
    Planes,
    Structure,
    Template,
    Validity,
)

PRESCRIPTION_GY = 145.0
GRID = Grid(origin_xyz_mm=(-40.0, -40.0, -10.0), spacing_zyx_mm=(1.0, 1.0, 1.0), shape_zyx=(66, 96, 81))
TEMPLATE = Template(origin_xy_mm=(-30.0, -35.0))
PLANES = Planes(z0_mm=-5.0, pitch_mm=5.0, count=12)


@dataclass(frozen=True)
class Curve:
    """A DVH as a sorted list of voxel doses, weighted by the covered fraction."""

    dose_gy: np.ndarray
    weight_cc: np.ndarray

    @property
    def volume_cc(self) -> float:
        return float(self.weight_cc.sum())

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.dose_gy)
        above = self.weight_cc[order][::-1].cumsum()[::-1]
        levels = np.linspace(0, 400, 401)
        at = np.searchsorted(self.dose_gy[order], levels)
        return levels, 100 * np.append(above, 0.0)[at] / self.volume_cc

    def d_gy(self, percent: float) -> float:
        levels, volume = self.curve()
        return float(levels[np.flatnonzero(volume >= percent - 1e-3)[-1]])


@dataclass(frozen=True)
class Result:
    case: Case
    plan: Plan
    anatomy: Anatomy
    dose_gy: np.ndarray
    dvhs: dict[str, Curve]
    metrics: dict[str, dict[str, float]]
    validity: Validity
    timing_ms: dict[str, float]
    provenance: dict[str, Any]
    protocol: Any
    extra: dict[str, Any] = field(default_factory=dict)


def _ellipsoid(
    centre_xyz_mm: tuple[float, float, float], radii_xyz_mm: tuple[float, float, float]
) -> np.ndarray:
    z, y, x = np.meshgrid(*GRID.axes_zyx_mm, indexing="ij")
    parts = [((axis - c) / r) ** 2 for axis, c, r in zip((x, y, z), centre_xyz_mm, radii_xyz_mm, strict=True)]
    return np.clip(0.5 + (1 - np.sqrt(sum(parts))) * min(radii_xyz_mm), 0, 1).astype(np.float32)


def _fractions() -> dict[str, np.ndarray]:
    z, y, x = np.meshgrid(*GRID.axes_zyx_mm, indexing="ij")
    tube = np.clip(0.5 + 2.5 - np.hypot(x - 1, y + 4 - 0.1 * (z - 22)), 0, 1)
    tube *= (z > 0) & (z < 44)
    return {
        "ctv": _ellipsoid((1, 0, 22), (22, 17, 20)),
        "ptv": _ellipsoid((1, -1, 22), (25, 19, 23)),
        "urethra": tube.astype(np.float32),
        "rectum": np.clip(0.5 + 13 - np.hypot((x - 2) / 1.1, y - 34), 0, 1).astype(np.float32),
        "bladder": _ellipsoid((0, -12, 52), (28, 20, 12)),
    }


def _needles() -> tuple[Needle, ...]:
    needles = []
    loadings = {
        0: (0.0, 10.0, 20.0, 30.0, 40.0),
        1: (5.0, 15.0, 25.0, 35.0),
    }
    for row, columns in (
        (4, (3, 5, 8, 10)),
        (6, (2, 4, 9, 11)),
        (8, (3, 5, 7, 10)),
        (9, (2, 8)),
        (10, (4, 6, 10)),
    ):
        for place, column in enumerate(columns):
            x, y = TEMPLATE.hole_xy_mm(column, row)
            needles.append(Needle(TEMPLATE.label(column, row), x, y, loadings[place % 2]))
    return tuple(needles)


def _dose(plan: Plan) -> np.ndarray:
    z, y, x = np.meshgrid(*GRID.axes_zyx_mm, indexing="ij")
    dose = np.zeros(GRID.shape_zyx, np.float32)
    for sx, sy, sz in plan.seeds_xyz_mm:
        squared = np.maximum((x - sx) ** 2 + (y - sy) ** 2 + (z - sz) ** 2, 4.0)
        dose += (1900.0 / squared * np.exp(-np.sqrt(squared) / 25)).astype(np.float32)
    return dose


def _metrics(curve: Curve) -> dict[str, float]:
    levels, volume = curve.curve()
    percent = {
        f"v{at}_pct": float(np.interp(at / 100 * PRESCRIPTION_GY, levels, volume)) for at in (100, 150, 200)
    }
    doses = {f"d{at}_gy": curve.d_gy(at) for at in (90, 30, 10)}
    small = {
        f"d{name}_gy": curve.d_gy(min(100 * cc / curve.volume_cc, 100))
        for name, cc in (("2cc", 2.0), ("0_1cc", 0.1))
    }
    mean = float((curve.dose_gy * curve.weight_cc).sum() / curve.volume_cc)
    return {"volume_cc": curve.volume_cc, **percent, **doses, **small, "mean_gy": mean}


def _limits() -> tuple[Any, ...]:
    rows = [
        ("ctv", "v100_pct", ">=", 95.0, "%", "fail", "ABS 2012"),
        ("ctv", "d90_gy", ">=", 100.0, "% of prescription", "fail", "AAPM TG-137"),
        ("ctv", "v150_pct", "<=", 60.0, "%", "warn", "MD Anderson preplan"),
        ("ctv", "v200_pct", "<=", 20.0, "%", "fail", "MD Anderson preplan"),
        ("urethra", "d10_gy", "<", 150.0, "% of prescription", "fail", "GEC-ESTRO 2007"),
        ("rectum", "d2cc_gy", "<=", 145.0, "Gy", "fail", "GEC-ESTRO 2007"),
        ("rectum", "v100_cc", "<", 1.0, "cc", "warn", "MD Anderson preplan"),
    ]
    names = ("role", "metric", "op", "value", "unit", "severity", "source")
    return tuple(SimpleNamespace(**dict(zip(names, row, strict=True))) for row in rows)


@pytest.fixture(scope="session")
def result() -> Result:
    """An acceptable plan."""
    fractions = _fractions()
    anatomy = Anatomy(GRID, fractions)
    plan = Plan("i125-6711", 0.42, PRESCRIPTION_GY, _needles(), Lattice(TEMPLATE, PLANES))
    dose_gy = _dose(plan)
    dvhs = {
        role: Curve(dose_gy[fraction > 0], fraction[fraction > 0] * GRID.voxel_cc)
        for role, fraction in fractions.items()
    }
    z, y, x = GRID.axes_zyx_mm
    structures = {
        role: Structure(role.title(), role, fraction, z, (float(x[0]), float(y[0])), (1.0, 1.0))
        for role, fraction in fractions.items()
        if role != "ptv"
    }
    case = Case(
        "phantom 7", structures, ("PTV: CTV + 3 mm, posterior 0 mm (none in the input)",), "0" * 64, 7
    )
    metrics = {role: _metrics(curve) for role, curve in dvhs.items()}
    findings = (
        Finding("ctv_v100", metrics["ctv"]["v100_pct"], ">= 95", "%", "pass", "ABS 2012"),
        Finding("ctv_v150", metrics["ctv"]["v150_pct"], "<= 60", "%", "warn", "MD Anderson preplan"),
        Finding("urethra_d10", metrics["urethra"]["d10_gy"], "< 217.5", "Gy", "pass", "GEC-ESTRO 2007"),
        Finding("needle_count", len(plan.needles), "<= 34", "needles", "pass", "BC Cancer needle rules"),
        Finding("second_dose_max", 0.0004, "<= 2", "%", "pass", "AAPM TG-40"),
        Finding(
            "interseed_attenuation", "not modelled: D90 is about 3 % lower", "", "", "note", "Mason 2013"
        ),
    )
    timing_ms = {
        "read": 41.0,
        "generate": 120.0,
        "refine": 500.0,
        "dose": 3.9,
        "dvh": 2.2,
        "validity": 88.0,
        "total": 760.4,
    }
    provenance = {
        "model": "none",
        "model_sha256": "",
        "input_sha256": "9f2b" * 16,
        "version": "0.1.0",
        "device": "cpu",
        "created": "2026-11-23T12:00:00Z",
    }
    protocol = SimpleNamespace(key="ldr-i125-145", title="I-125 monotherapy, 145 Gy", limits=_limits())
    return Result(
        case, plan, anatomy, dose_gy, dvhs, metrics, Validity(findings), timing_ms, provenance, protocol
    )


@pytest.fixture(scope="session")
def failing(result: Result) -> Result:
    """The same plan with two broken rules and a structure that is named like an attack."""
    findings = (
        Finding("ctv_v100", 91.3, ">= 95", "%", "fail", "ABS 2012"),
        Finding("adjacent_seeds", 3, "0", "pairs", "fail", "BC Cancer needle rules"),
        *result.validity.findings[2:],
    )
    hostile = replace(result.case.structures["ctv"], name="<script>alert(1)</script>\u202eVTC")
    case = replace(
        result.case,
        name='"><img src=x onerror=alert(2)>',
        structures={**result.case.structures, "ctv": hostile},
        assumptions=("urethra: <b>assumed</b> & drawn as a straight tube",),
    )
    return replace(result, case=case, validity=Validity(findings))
