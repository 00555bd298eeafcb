"""The validity report: a sound plan passes, and every kind of wrong shows as the finding it is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from trocar.planners.dose import reference
from trocar.planners.dose.engine import DoseEngine
from trocar.planners.dose.source import load_source
from trocar.planners.dvh import dvh
from trocar.planners.protocol import load_protocol
from trocar.planners.types import Anatomy, Case, Finding, Grid, Needle, Plan
from trocar.planners.validity import check, check_points

GRID = Grid((-30.0, -30.0, -30.0), (1.0, 1.0, 1.0), (61, 61, 61))
SOURCE = load_source("i125-6711")
PROTOCOL = load_protocol("ldr-i125-145")


def ball(centre_xyz_mm, radius_mm):
    z, y, x = GRID.axes_zyx_mm
    cx, cy, cz = centre_xyz_mm
    distance = np.sqrt((z[:, None, None] - cz) ** 2 + (y[:, None] - cy) ** 2 + (x - cx) ** 2)
    return np.clip(radius_mm - distance + 0.5, 0, 1).astype(np.float32)


ANATOMY = Anatomy(
    GRID,
    {
        "ctv": ball((0, 0, 0), 15),
        "ptv": ball((0, 0, 0), 17),
        "urethra": ball((0, 0, 0), 3),
        "rectum": ball((0, 26, 0), 7),
    },
)


def plan_of(strength_u=0.42, prescription_gy=145.0, source="i125-6711"):
    needles = tuple(
        Needle(f"{x},{y}", float(x), float(y), tuple(float(z) for z in range(-10, 11, 10)))
        for x in (-10, 0, 10)
        for y in (-10, 0, 10)
    )
    return Plan(source, strength_u, prescription_gy, needles)


def no_geometry(plan, anatomy, rules):  # noqa: ARG001
    return ()


def report(
    plan=None, *, anatomy=ANATOMY, case=None, source=SOURCE, protocol=PROTOCOL, dose_gy=None, seed=3, **checks
):
    plan = plan_of() if plan is None else plan
    if dose_gy is None:
        dose_gy = DoseEngine(source).grid_gy(plan.seeds_xyz_mm, plan.strength_u, anatomy.grid)
    found = check(
        plan,
        case or Case("a phantom", {}),
        anatomy,
        dvh(dose_gy, anatomy, prescription_gy=plan.prescription_gy),
        dose_gy,
        source,
        protocol,
        seed=seed,
        **({"geometry": no_geometry} | checks),
    )
    return found, {(finding.rule, finding.limit): finding for finding in found.findings}


def only(found, rule) -> Finding:
    [finding] = [finding for (name, _), finding in found.items() if name == rule]
    return finding


def uniform(percent):
    """A dose that is flat at so many per cent of 145 Gy: every D metric is exactly that."""
    return np.full(GRID.shape_zyx, percent / 100 * 145.0, dtype=np.float32)


def exactly(dose_gy):
    """A second dose that agrees with a flat one."""
    return {"second_dose": lambda source, points, seeds, strength_u: np.full(len(points), dose_gy)}  # noqa: ARG005


# Dose-volume limits


def test_a_flat_dose_at_120_percent_is_acceptable_but_for_the_rectum():
    without = Anatomy(GRID, {role: f for role, f in ANATOMY.fractions.items() if role != "rectum"})
    validity, found = report(anatomy=without, dose_gy=uniform(120), **exactly(174.0))
    assert validity.acceptable
    assert only(found, "ctv_v100").measured == 100
    assert only(found, "ctv_v100").limit == ">= 95"
    assert only(found, "ctv_v100").unit == "%"
    assert found["ctv_d90", ">= 100"].measured == pytest.approx(120, abs=1e-4)
    assert found["urethra_d30", "< 130"].severity == "pass"
    validity, found = report(dose_gy=uniform(120), **exactly(174.0))
    assert not validity.acceptable
    failed = [finding.rule for finding in validity.findings if finding.severity == "fail"]
    assert failed == ["rectum_d2cc"]


@pytest.mark.parametrize(
    ("percent", "rule", "limit", "severity"),
    [
        (99.9, "ctv_v100", ">= 95", "fail"),
        (99.9, "ctv_d90", ">= 100", "fail"),
        (99.9, "ctv_v100_goal", ">= 99", "warn"),
        (105, "ctv_d90_goal", ">= 110", "warn"),
        (105, "ctv_d90_goal", "<= 130", "pass"),
        (131, "ctv_d90_goal", "<= 130", "warn"),
        (149.9, "ctv_v150", "<= 65", "pass"),
        (150.1, "ctv_v150", "<= 65", "fail"),
        (150.1, "ctv_v150_goal", "<= 60", "warn"),
        (150.1, "urethra_d10", "< 150", "fail"),
        (150.1, "urethra_d5_goal", "< 150", "warn"),
        (130.1, "urethra_d30", "< 130", "fail"),
        (129.9, "urethra_d30", "< 130", "pass"),
        (200.1, "ctv_v200", "<= 20", "fail"),
        (100.1, "rectum_d2cc", "<= 100", "fail"),
        (99.9, "rectum_d2cc", "<= 100", "pass"),
        (99.9, "rectum_v100_cc_goal", "< 1", "pass"),
        (100.1, "rectum_v100_cc_goal", "< 1", "warn"),
        (138.1, "rectum_d0_1cc_goal", "< 200", "warn"),
        (137.8, "rectum_d0_1cc_goal", "< 200", "pass"),
        (150.1, "rectum_d0_1cc", "<= 150", "fail"),
    ],
)
def test_each_limit_on_both_sides(percent, rule, limit, severity):
    _, found = report(dose_gy=uniform(percent), **exactly(percent / 100 * 145.0))
    assert found[rule, limit].severity == severity


def test_every_limit_of_the_protocol_is_in_the_report_with_its_source():
    validity, _ = report()
    rows = [(finding.limit, finding.unit, finding.source) for finding in validity.findings]
    for limit in PROTOCOL.limits:
        assert (f"{limit.op} {limit.value:g}", limit.unit, limit.source) in rows
    assert len({(finding.rule, finding.limit) for finding in validity.findings}) == len(validity.findings)
    assert {finding.severity for finding in validity.findings} <= {"pass", "warn", "fail", "note"}


def test_a_nan_metric_fails():
    class Broken:
        def metric(self, name, prescription_gy):  # noqa: ARG002
            return float("nan")

    dose_gy = uniform(120)
    found = check(
        plan_of(), Case("x", {}), ANATOMY, {"ctv": Broken()}, dose_gy, SOURCE, PROTOCOL, seed=0,
        geometry=no_geometry, **exactly(174.0),
    )  # fmt: skip
    assert [f.severity for f in found.findings if f.rule == "ctv_v100"] == ["fail"]


# The second dose


def test_native_and_reference_dose_agree():
    _, found = report()
    assert only(found, "second_dose_max").measured < 0.5
    assert only(found, "second_dose_p95").measured < 0.1
    assert only(found, "second_dose_max").severity == "pass"
    assert "2000 points" in only(found, "second_dose_max").source


@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_a_second_dose_that_is_3_percent_off_fails_both_checks(factor):
    def wrong(source, points, seeds, strength_u):
        return factor * reference.dose_gy(source, points, seeds, strength_u)

    validity, found = report(second_dose=wrong)
    assert only(found, "second_dose_max").severity == "fail"
    assert only(found, "second_dose_p95").severity == "fail"
    assert only(found, "second_dose_p95").measured == pytest.approx(100 * abs(1 / factor - 1), abs=0.2)
    assert not validity.acceptable


def test_a_local_error_fails_the_maximum_alone():
    dose_gy = DoseEngine(SOURCE).grid_gy(plan_of().seeds_xyz_mm, 0.42, GRID)
    rectum = np.argwhere(ANATOMY.fractions["rectum"] > 0)
    dose_gy[tuple(rectum[: len(rectum) // 8].T)] *= 1.05
    _, found = report(dose_gy=dose_gy)
    assert only(found, "second_dose_max").severity == "fail"
    assert only(found, "second_dose_p95").severity == "pass"


def test_a_seed_the_native_dose_forgot_fails():
    plan = plan_of()
    dose_gy = DoseEngine(SOURCE).grid_gy(plan.seeds_xyz_mm[:-1], plan.strength_u, GRID)
    _, found = report(plan, dose_gy=dose_gy)
    assert only(found, "second_dose_max").measured > 10
    assert only(found, "second_dose_max").severity == "fail"


def test_a_nan_second_dose_fails():
    validity, found = report(**exactly(np.nan))
    assert only(found, "second_dose_max").severity == "fail"
    assert only(found, "second_dose_p95").severity == "fail"
    assert not validity.acceptable


def test_a_plan_without_seeds_is_reported_not_raised():
    empty = dataclasses.replace(plan_of(), needles=())
    validity, found = report(empty, dose_gy=np.zeros(GRID.shape_zyx, dtype=np.float32))
    assert not validity.acceptable
    assert only(found, "ctv_v100").measured == 0
    assert only(found, "second_dose_max").severity == "pass"


def test_points_are_drawn_in_every_structure_and_only_there():
    index = check_points(ANATOMY, 2400, seed=5)
    assert len(index) == 2400
    assert len(np.unique(index, axis=0)) == 2400
    held = {role: (fraction[tuple(index.T)] > 0).sum() for role, fraction in ANATOMY.fractions.items()}
    urethra = (ANATOMY.fractions["urethra"] > 0).sum()
    assert urethra < 600
    assert held["urethra"] == urethra
    assert held["rectum"] >= 600
    assert held["ptv"] >= held["ctv"] >= 600
    covered = sum(fraction[tuple(index.T)] for fraction in ANATOMY.fractions.values())
    assert (covered > 0).all()


def test_points_repeat_for_a_seed_and_differ_between_seeds():
    assert np.array_equal(check_points(ANATOMY, 2400, 5), check_points(ANATOMY, 2400, 5))
    assert not np.array_equal(check_points(ANATOMY, 2400, 5), check_points(ANATOMY, 2400, 6))
    assert len(check_points(ANATOMY, 2400, -1)) == 2400


def test_a_coarse_grid_gives_every_voxel_it_has():
    small = Anatomy(GRID, {"ctv": ball((0, 0, 0), 3), "ptv": ball((0, 0, 0), 4)})
    index = check_points(small, 2400, 0)
    assert len(index) == (small.fractions["ptv"] > 0).sum()


# Seeds, prescription and notes


def test_geometry_findings_are_part_of_the_verdict():
    calls = []

    def broken(plan, anatomy, rules):
        calls.append((plan, anatomy, rules))
        return (Finding("seed_spacing", 5.0, ">= 10", "mm", "fail", "a rule"),)

    plan = plan_of()
    validity, found = report(plan, geometry=broken)
    assert calls == [(plan, ANATOMY, PROTOCOL.geometry)]
    assert only(found, "seed_spacing").measured == 5.0
    assert not validity.acceptable


def test_the_geometry_rules_themselves_are_the_default():
    validity = check(
        plan_of(), Case("x", {}), ANATOMY, dvh(uniform(120), ANATOMY, prescription_gy=145.0), uniform(120),
        SOURCE, PROTOCOL, seed=0,
    )  # fmt: skip
    assert any(finding.source == PROTOCOL.geometry.source for finding in validity.findings)


def test_another_isotope_fails():
    palladium = load_source("pd103-theragenics200")
    _, found = report(plan_of(source="pd103-theragenics200"), source=palladium)
    assert only(found, "isotope").severity == "fail"
    assert (only(found, "isotope").measured, only(found, "isotope").limit) == ("Pd-103", "I-125")


def test_a_plan_for_another_model_of_the_isotope_warns():
    _, found = report(plan_of(source="i125-best2301"))
    assert only(found, "source_model").severity == "warn"
    for name in ("i125-6711", "I125-6711", SOURCE.name):
        _, found = report(plan_of(source=name))
        assert only(found, "source_model").severity == "pass"


@pytest.mark.parametrize(("strength_u", "severity"), [(0.42, "pass"), (0.1, "fail"), (2.0, "fail")])
def test_strength_is_held_against_the_protocols_range(strength_u, severity):
    _, found = report(plan_of(strength_u=strength_u))
    assert only(found, "seed_strength").severity == severity
    assert only(found, "seed_strength").limit == "0.15 to 1.5"


@pytest.mark.parametrize(
    ("prescription_gy", "severity"), [(145, "pass"), (144, "pass"), (110, "fail"), (160, "fail")]
)
def test_prescription_is_held_against_the_protocols(prescription_gy, severity):
    _, found = report(plan_of(prescription_gy=float(prescription_gy)))
    assert only(found, "prescription").severity == severity
    assert only(found, "prescription").measured == prescription_gy


def test_a_missing_rectum_is_said_and_not_judged():
    without = Anatomy(GRID, {role: f for role, f in ANATOMY.fractions.items() if role != "rectum"})
    _, found = report(anatomy=without)
    note = only(found, "rectum_unchecked")
    assert (note.measured, note.severity) == ("no rectum contour: rectum not checked", "note")
    assert not any(rule.startswith("rectum_d") for rule, _ in found)
    _, found = report()
    assert not any(rule == "rectum_unchecked" for rule, _ in found)


def test_assumptions_and_what_the_method_leaves_out_are_notes():
    case = Case("a phantom", {}, ("ptv: ctv + 3 mm", "urethra: assumed axis"))
    validity, _ = report(case=case)
    notes = [(finding.rule, finding.measured) for finding in validity.findings if finding.severity == "note"]
    assert ("assumption", "ptv: ctv + 3 mm") in notes
    assert ("assumption", "urethra: assumed axis") in notes
    assert any(rule == "interseed_attenuation" and "3 %" in text for rule, text in notes)
    assert any(rule == "intended_use" and "not a medical device" in text for rule, text in notes)
