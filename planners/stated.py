"""An HDR plan of another planning system: its dose computed anew on its own grid, and compared."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from trocar.planners.dose.engine import DoseEngine
from trocar.planners.dose.reference import total_dose_factor_h
from trocar.planners.dose.source import SourceModel
from trocar.planners.dvh import dvh, role_metrics
from trocar.planners.geometry import anatomy, extent_mm
from trocar.planners.io.rtdose import MAX_VOXELS, StatedDose, StatedDvh
from trocar.planners.io.rtplan import BrachyPlan
from trocar.planners.protocol import same_isotope
from trocar.planners.types import Anatomy, Case, Finding, Float32Array, Grid, Identity, Validity, require
from trocar.runtime.command import INTENDED_USE

# Far from every dwell a large part of nothing is nothing.
LEAST_DOSE_SHARE = 0.1
MEDIAN_LIMIT_PCT = 2.0
MEDIAN_SOURCE = "TG-43U1 (Rivard 2004): an independent dose agrees within 2 %"
TRAK_LIMIT_PCT = 0.5
# A plane whose own median is so far off is another kind of error than the rest.
UNLIKE_PLANE_PCT = 10.0
# Planes labelled one off show as differences that all but vanish when the labels are moved.
SLIP_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Comparison:
    """Our dose minus the stated one, % of the stated, at voxels of a tenth of the prescription or more.

    `unlike_planes_mm` are the z of planes that differ by more than 10 % in their own median; they count.
    """

    points: int
    median_pct: float
    p5_pct: float
    p95_pct: float
    unlike_planes_mm: tuple[float, ...]


def dwell_dose_gy(
    plan: BrachyPlan, source: SourceModel, grid: Grid, *, treated: datetime | None = None
) -> Float32Array:
    """Dose of one fraction at a grid's voxel centres, (nz, ny, nx) Gy: TG-43 rate times dwell time.

    Parameters
    ----------
    treated : when the dwell times are meant for; the source decays to then. Absent, they are meant for the
        reference strength, as DICOM has it.

    Raises
    ------
    InvalidInput
        No HDR plan, another isotope, or no date to decay from.
    """
    require(plan.kind == "HDR", f"RTPLAN: expected HDR dwells, got {plan.kind}")
    used = plan.source
    strength_u = used.strength_u if treated is None else used.strength_on(treated)
    engine = DoseEngine(source)
    z, y, x = np.meshgrid(*grid.axes_zyx_mm, indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)
    dose = np.zeros(len(points))
    # The engine's dose is that of complete decay: this strength decays to the dose of one second at 1 U.
    per_second_u = strength_u / 3600.0 / total_dose_factor_h(source)
    for channel in plan.channels:
        stays = zip(channel.positions_xyz_mm, channel.times_s, channel.directions_xyz, strict=True)
        for place, time_s, axis in stays:
            if time_s > 0:
                dose += engine.points_gy([place], per_second_u * time_s, points, directions_xyz=[axis])
    return dose.reshape(grid.shape_zyx).astype(np.float32)


def holding(grid: Grid, case: Case) -> Grid:
    """Extend a grid by whole voxels until it holds every structure.

    Raises
    ------
    InvalidInput
        It would hold more than 5e7 voxels.
    """
    boxes = [extent_mm(item) for item in case.structures.values()]
    origin_zyx, shape = [], []
    sides = zip(grid.axes_zyx_mm, grid.spacing_zyx_mm, ("z_mm", "y_mm", "x_mm"), strict=True)
    for axis, step, name in sides:
        low = min(getattr(box, name)[0] for box in boxes)
        high = max(getattr(box, name)[1] for box in boxes)
        before = max(0, math.ceil((axis[0] - low) / step))
        after = max(0, math.ceil((high - axis[-1]) / step))
        origin_zyx.append(float(axis[0]) - before * step)
        shape.append(axis.size + before + after)
    require(math.prod(shape) <= MAX_VOXELS, f"a grid of {shape} voxels is more than {MAX_VOXELS}")
    z, y, x = origin_zyx
    return Grid((x, y, z), grid.spacing_zyx_mm, (shape[0], shape[1], shape[2]))


def compare(dose_gy: Float32Array, stated: StatedDose, prescription_gy: float) -> Comparison:
    """Compare two doses on one grid.

    Raises
    ------
    InvalidInput
        The stated dose reaches a tenth of the prescription nowhere.
    """
    counted = stated.dose_gy >= LEAST_DOSE_SHARE * prescription_gy
    require(bool(counted.any()), "RTDOSE: no voxel reaches a tenth of the prescription")
    reference = np.where(counted, stated.dose_gy, 1.0)
    difference = 100.0 * (dose_gy / reference - 1.0)
    low, middle, high = np.percentile(difference[counted], (5, 50, 95))
    unlike = tuple(
        float(z_mm)
        for z_mm, plane, inside in zip(stated.grid.axes_zyx_mm[0], difference, counted, strict=True)
        if inside.any() and abs(float(np.median(plane[inside]))) > UNLIKE_PLANE_PCT
    )
    return Comparison(int(counted.sum()), float(middle), float(low), float(high), unlike)


def plane_slip_mm(
    dose_gy: Float32Array, stated: StatedDose, prescription_gy: float, found: Comparison
) -> float:
    """Return by how much each stated plane's true z seems to differ from its label: 0 or one plane."""
    step = stated.grid.spacing_zyx_mm[0]
    width = found.p95_pct - found.p5_pct
    for ours, theirs, slip_mm in ((slice(-1), slice(1, None), -step), (slice(1, None), slice(-1), step)):
        shape = (stated.grid.shape_zyx[0] - 1, *stated.grid.shape_zyx[1:])
        part = replace(stated, dose_gy=stated.dose_gy[theirs], grid=replace(stated.grid, shape_zyx=shape))
        if not bool((part.dose_gy >= LEAST_DOSE_SHARE * prescription_gy).any()):
            continue
        moved = compare(dose_gy[ours], part, prescription_gy)
        if moved.p95_pct - moved.p5_pct < SLIP_SHARE * width:
            return slip_mm
    return 0.0


def evaluate_stated(
    case: Case,
    identity: Identity,
    plan: BrachyPlan,
    stated: StatedDose,
    source: SourceModel,
    *,
    prescription_gy: float | None = None,
    treated: datetime | None = None,
) -> dict[str, Any]:
    """Prove an HDR plan against its own dose and DVHs, as the document of `trocar evaluate --json`.

    Raises
    ------
    InvalidInput
        The files do not belong together, or state no prescription.
    """
    _require_related(identity, plan, stated)
    prescribed = plan.prescription_gy if prescription_gy is None else prescription_gy
    if prescribed is None:
        prescribed = 0.0
    require(prescribed > 0, "RTPLAN: the plan states no prescription for a target: give --prescription-gy")
    dose_gy = dwell_dose_gy(plan, source, stated.grid, treated=treated)
    comparison = compare(dose_gy, stated, prescribed)
    slip_mm = plane_slip_mm(dose_gy, stated, prescribed, comparison)
    # A stated dose may end within a structure that its DVH counts in full.
    volumes = anatomy(case, holding(stated.grid, case))
    dose_gy = dwell_dose_gy(plan, source, volumes.grid, treated=treated)
    validity = Validity(tuple(_findings(case, plan, comparison, slip_mm, source)))
    return {
        "plan": {
            "kind": plan.kind,
            "label": plan.label,
            "source": source.key,
            "strength_u": plan.source.strength_u,
            "prescription_gy": prescribed,
            "channels": len(plan.channels),
            "dwells": sum(int((channel.times_s > 0).sum()) for channel in plan.channels),
            "time_s": sum(float(channel.times_s.sum()) for channel in plan.channels),
            "trak_ugy": plan.trak_ugy,
        },
        "comparison": {name: getattr(comparison, name) for name in comparison.__slots__},
        "metrics": role_metrics(dvh(dose_gy, volumes, prescription_gy=prescribed), prescribed),
        "stated_dvhs": list(_against_stated(case, identity, volumes, dose_gy, stated.dvhs, prescribed)),
        "validity": {
            "acceptable": validity.acceptable,
            "findings": [
                {name: getattr(finding, name) for name in finding.__slots__} for finding in validity.findings
            ],
        },
    }


def _against_stated(
    case: Case,
    identity: Identity,
    volumes: Anatomy,
    dose_gy: Float32Array,
    stated: Sequence[StatedDvh],
    prescription_gy: float,
) -> Iterator[dict[str, Any]]:
    """Compare each stated DVH of a structure with a role, over the same volume."""
    role_of = {item.name: role for role, item in case.structures.items()}
    for one in stated:
        role = role_of.get(identity.roi_names.get(one.roi, ""))
        without = [role_of.get(identity.roi_names.get(roi, "")) for roi in sorted(one.excluded)]
        if role is None or None in without:
            continue
        fraction = volumes.fractions[role]
        for other in without:
            fraction = fraction * (1 - volumes.fractions[str(other)])
        ours = dvh(dose_gy, Anatomy(volumes.grid, {role: fraction}), prescription_gy=prescription_gy)
        stated_figures = stated_metrics(one, prescription_gy)
        yield {
            "role": role,
            "without": without,
            "stated": stated_figures,
            "computed": {name: ours[role].metric(name, prescription_gy) for name in stated_figures},
        }


def stated_metrics(one: StatedDvh, prescription_gy: float) -> dict[str, float]:
    """Read the figures off a stated DVH; what lies beyond its last bin is left out."""
    volume = float(one.above_cc[0])
    found: dict[str, float | None] = {"volume_cc": volume}
    for percent in (100, 150, 200):
        found[f"v{percent}_pct"] = 100.0 * one.v_cc(percent / 100.0 * prescription_gy) / volume
    for percent in (90, 30, 10):
        found[f"d{percent}_gy"] = one.d_cc_gy(percent / 100.0 * volume)
    found["d2cc_gy"] = one.d_cc_gy(2.0) if volume > 2.0 else None
    found["d0_1cc_gy"] = one.d_cc_gy(0.1)
    return {name: value for name, value in found.items() if value is not None}


def _require_related(identity: Identity, plan: BrachyPlan, stated: StatedDose) -> None:
    for what, uid, allowed in (
        ("RTPLAN: structure set", plan.structure_set_uid, {identity.sop_uid}),
        ("RTPLAN: frame of reference", plan.frame_uid, identity.frame_uids),
        ("RTDOSE: frame of reference", stated.frame_uid, identity.frame_uids),
        ("RTDOSE: plan", stated.plan_uid, {plan.sop_uid}),
    ):
        require(
            not uid or uid in allowed, f"{what}: {uid} is not the one given ({', '.join(sorted(allowed))})"
        )


def _findings(
    case: Case, plan: BrachyPlan, comparison: Comparison, slip_mm: float, source: SourceModel
) -> Iterator[Finding]:
    within = abs(comparison.median_pct) <= MEDIAN_LIMIT_PCT
    yield Finding(
        "stated_dose_median", comparison.median_pct, f"within {MEDIAN_LIMIT_PCT:g}", "%",
        "pass" if within else "fail", MEDIAN_SOURCE,
    )  # fmt: skip
    if plan.stated_trak_ugy:
        off_pct = 100.0 * (plan.trak_ugy / plan.stated_trak_ugy - 1.0)
        yield Finding(
            "stated_trak", off_pct, f"within {TRAK_LIMIT_PCT:g}", "%",
            "pass" if abs(off_pct) <= TRAK_LIMIT_PCT else "fail",
            "strength and dwell times against the plan's own total reference air kerma",
        )  # fmt: skip
    named = plan.source.isotope
    if not same_isotope(named, source.isotope):
        said = f'the plan calls its isotope "{named}"; {source.name} ({source.isotope}) was taken for it'
        yield Finding("isotope", said, "", "", "warn", "RTPLAN")
    if slip_mm:
        said = (
            f"the stated dose agrees far better as that of z {slip_mm:+g} mm: its planes seem to be labelled "
            f"one off; it was compared as labelled"
        )
        yield Finding("plane_slip", said, "", "", "warn", "RTDOSE")
    for z_mm in comparison.unlike_planes_mm:
        said = f"the stated dose of the plane at z = {z_mm:g} mm is unlike its neighbours'"
        yield Finding("unlike_plane", said, "", "", "warn", "RTDOSE")
    for assumption in case.assumptions:
        yield Finding("assumption", assumption, "", "", "note", case.name)
    yield Finding("intended_use", INTENDED_USE, "", "", "note", "trocar")
