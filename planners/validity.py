"""Is the plan fit to be looked at? Every rule checked, with what was measured and where its limit comes from.

Nothing in here shares code with the search, and the second dose shares none with the native engine: a report
that repeats the planner's own mistake would prove nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from trocar.planners.dose.reference import dose_gy as reference_dose_gy
from trocar.planners.dose.source import SourceModel
from trocar.planners.dvh import Dvh
from trocar.planners.protocol import Checks, GeometryRules, Limit, Protocol, same_isotope
from trocar.planners.rules import geometry_findings
from trocar.planners.types import (
    Anatomy,
    Case,
    Finding,
    Float32Array,
    Float64Array,
    Plan,
    Validity,
)
from trocar.runtime.command import INTENDED_USE

IndexArray = npt.NDArray[np.intp]
SecondDose = Callable[[SourceModel, Float64Array, Float64Array, float], Float64Array]
GeometryCheck = Callable[[Plan, Anatomy, GeometryRules], tuple[Finding, ...]]

OPERATIONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
# Sets the points of the second dose apart from whatever else a plan's seed number seeds.
SECOND_DOSE_STREAM = 0x5EC0DD05E
# Differences are relative to the dose, but not to less than this part of the prescription: far from the
# seeds, a large part of nothing is nothing.
LEAST_DOSE_SHARE = 0.01


def check(
    plan: Plan,
    case: Case,
    anatomy: Anatomy,
    dvhs: Mapping[str, Dvh],
    dose_gy: Float32Array,
    source: SourceModel,
    protocol: Protocol,
    *,
    seed: int,
    second_dose: SecondDose = reference_dose_gy,
    geometry: GeometryCheck = geometry_findings,
) -> Validity:
    """Check a plan against its protocol, its geometry and an independent dose.

    Parameters
    ----------
    anatomy, dvhs : what the plan was judged on.
    dose_gy : (z, y, x) float32, the plan's dose on the grid of `anatomy`.
    source : the source the dose was computed with.
    seed : of the plan; the points of the second dose come from a stream of their own.
    second_dose : computes (n,) Gy from source, points (n, 3) mm, seeds (m, 3) mm and strength.
    geometry : checks needles and seeds.

    Returns
    -------
    Findings in the order of a report: dose-volume limits, geometry, the second dose, seeds and prescription,
    and notes: what was assumed, what was not checked, and what the method leaves out.
    """
    findings = (
        *_limit_findings(plan, dvhs, protocol.limits),
        *geometry(plan, anatomy, protocol.geometry),
        *_second_dose_findings(plan, anatomy, dose_gy, source, protocol.checks, seed, second_dose),
        *_seed_findings(plan, source, protocol),
        *_notes(case, dvhs, protocol),
    )
    return Validity(findings)


def _limit_findings(plan: Plan, dvhs: Mapping[str, Dvh], limits: tuple[Limit, ...]) -> Iterator[Finding]:
    for limit in limits:
        if limit.role not in dvhs:
            continue
        measured = dvhs[limit.role].metric(limit.metric, plan.prescription_gy)
        if limit.unit == "% of prescription":
            measured *= 100.0 / plan.prescription_gy
        # Written so that a NaN fails.
        met = OPERATIONS[limit.op](measured, limit.value)
        yield Finding(
            rule=_rule(limit),
            measured=measured,
            limit=f"{limit.op} {limit.value:g}",
            unit=limit.unit,
            severity="pass" if met else limit.severity,
            source=limit.source,
        )


def _rule(limit: Limit) -> str:
    """Name a limit's rule: `ctv_v100`, and `ctv_v100_goal` where a breach only warns."""
    goal = "_goal" if limit.severity == "warn" else ""
    metric = limit.metric.removesuffix("_pct").removesuffix("_gy")
    return f"{limit.role}_{metric}{goal}"


def _second_dose_findings(
    plan: Plan,
    anatomy: Anatomy,
    dose_gy: Float32Array,
    source: SourceModel,
    checks: Checks,
    seed: int,
    second_dose: SecondDose,
) -> Iterator[Finding]:
    """Compare the plan's dose with a float64 calculation seed by seed, at voxels of every structure."""
    index_zyx = check_points(anatomy, checks.second_dose_points, seed)
    first = dose_gy[tuple(index_zyx.T)].astype(np.float64)
    points_xyz_mm = anatomy.grid.points_xyz_mm(index_zyx)
    second = second_dose(source, points_xyz_mm, plan.seeds_xyz_mm, plan.strength_u)
    least_gy = LEAST_DOSE_SHARE * plan.prescription_gy
    difference_pct = 100.0 * np.abs(first - second) / np.maximum(second, least_gy)
    limit = checks.second_dose_limit_pct
    where = f"{checks.second_dose_source}; float64 reference at {len(index_zyx)} points of {source.name}"
    for rule, measured in (
        ("second_dose_max", float(difference_pct.max())),
        ("second_dose_p95", float(np.percentile(difference_pct, 95))),
    ):
        severity = "pass" if measured <= limit else "fail"
        yield Finding(rule, measured, f"<= {limit:g}", "%", severity, where)


def check_points(anatomy: Anatomy, count: int, seed: int) -> IndexArray:
    """Draw voxels for the second dose: (n, 3) indices z, y, x.

    Every structure gives an equal share; one with fewer voxels gives all of them, and the voxels of any
    structure make up the count. n is less than `count` only where the grid holds no more.
    """
    stream = np.random.default_rng([abs(seed), SECOND_DOSE_STREAM])
    covered = [np.flatnonzero(fraction) for _, fraction in sorted(anatomy.fractions.items())]
    share = -(-count // max(len(covered), 1))
    chosen = np.unique(np.concatenate([_draw(stream, voxels, share) for voxels in covered]))
    if chosen.size < count:
        left = np.zeros(anatomy.grid.shape_zyx, dtype=bool)
        for voxels in covered:
            left.flat[voxels] = True
        left.flat[chosen] = False
        chosen = np.concatenate([chosen, _draw(stream, np.flatnonzero(left), count - chosen.size)])
    return np.stack(np.unravel_index(chosen, anatomy.grid.shape_zyx), axis=1)


def _draw(stream: np.random.Generator, voxels: IndexArray, count: int) -> IndexArray:
    """Draw voxels, none of them twice."""
    chosen = stream.choice(voxels.size, min(count, voxels.size), replace=False, shuffle=False)
    return voxels[chosen]


def _seed_findings(plan: Plan, source: SourceModel, protocol: Protocol) -> Iterator[Finding]:
    """Check that source, strength and prescription are the protocol's and the plan's own."""
    checks = protocol.checks
    matching = same_isotope(source.isotope, protocol.isotope)
    yield Finding(
        "isotope",
        source.isotope,
        protocol.isotope,
        "",
        "pass" if matching else "fail",
        checks.strength_source,
    )
    named = plan.source.strip().casefold() in (source.key.casefold(), source.name.casefold())
    yield Finding(
        "source_model", plan.source, source.key, "", "pass" if named else "warn",
        "the plan's own source against the one its dose was computed with",
    )  # fmt: skip
    low, high = protocol.strength_range_u
    sane = low <= plan.strength_u <= high
    yield Finding(
        "seed_strength", plan.strength_u, f"{low:g} to {high:g}", "U", "pass" if sane else "fail",
        checks.strength_source,
    )  # fmt: skip
    off_pct = 100.0 * abs(plan.prescription_gy / protocol.prescription_gy - 1.0)
    tolerance = checks.prescription_tolerance_pct
    yield Finding(
        "prescription", plan.prescription_gy, f"{protocol.prescription_gy:g} within {tolerance:g} %", "Gy",
        "pass" if off_pct <= tolerance else "fail", checks.prescription_source,
    )  # fmt: skip


def _notes(case: Case, dvhs: Mapping[str, Dvh], protocol: Protocol) -> Iterator[Finding]:
    """Say what no number shows: what was assumed or not contoured, what TG-43 omits, the intended use."""
    limited = dict.fromkeys(limit.role for limit in protocol.limits)
    for role in limited:
        said = any(text.startswith(f"No {role} was contoured") for text in case.assumptions)
        if role not in dvhs and not said:
            yield _note(f"{role}_unchecked", f"no {role} contour: {role} not checked", case.name)
    for assumption in case.assumptions:
        yield _note("assumption", assumption, case.name)
    for note in protocol.notes:
        yield _note(note.rule, note.text, note.source)
    yield _note("intended_use", INTENDED_USE, "trocar")


def _note(rule: str, text: str, source: str) -> Finding:
    return Finding(rule, text, "", "", "note", source)
