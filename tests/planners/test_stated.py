"""An HDR plan against its own planning system: Vitesse 4.0.1, GammaMed Plus."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from trocar.planners.dose.reference import dose_rate_cgy_h_u
from trocar.planners.dose.source import load_source
from trocar.planners.io.rtdose import read_rtdose
from trocar.planners.io.rtplan import BrachyPlan, BrachySource, Channel, read_rtplan
from trocar.planners.local import evaluate_rtdose
from trocar.planners.requests import CaseInput, Settings
from trocar.planners.stated import compare, dwell_dose_gy
from trocar.planners.types import Grid
from trocar.runtime.errors import InvalidInput

SOURCE = "ir192-gammamedplus"


@pytest.fixture(scope="module")
def files(shared_dir):
    folder = shared_dir / "cases" / "hdr_phantom"
    return {name: (folder / f"{name}001.dcm").read_bytes() for name in ("SS", "PL", "DO")}


@pytest.fixture(scope="module")
def document(files):
    case, asked = CaseInput(name="hdr", rtstruct=files["SS"]), Settings(source=SOURCE)
    return evaluate_rtdose(case, asked, files["PL"], files["DO"])


def test_one_dwell_by_hand():
    """10 000 U for 360 s is 1000 U h: at 1 cm across, 1000 Lambda cGy; decayed by a half-life, half."""
    source = load_source(SOURCE)
    seed = BrachySource(1, "Ir-192", "", 73.83, 10_000.0, datetime(2026, 1, 1))
    across = Channel("1", 1, np.zeros((1, 3)), np.array([360.0]), np.array([[1.0, 0.0, 0.0]]))
    plan = BrachyPlan("HDR", "", 10.0, 1, (seed,), (across,), None, "", "", "")
    grid = Grid((0.0, 0.0, 10.0), (10.0, 1.0, 10.0), (1, 1, 2))
    dose = dwell_dose_gy(plan, source, grid)
    assert dose[0, 0, 0] == pytest.approx(10.0 * source.dose_rate_constant_cgy_h_u, rel=1e-4)
    # 1 cm on along the source's axis, which is +x.
    assert dose[0, 0, 1] == pytest.approx(10.0 * float(dose_rate_cgy_h_u(source, 1.0, 1.0)), rel=1e-4)
    later = dwell_dose_gy(plan, source, grid, treated=datetime(2026, 3, 15, 19, 55, 12))
    np.testing.assert_allclose(later, dose / 2, rtol=1e-4)


def test_the_vendors_dose_within_0_6_percent(document):
    found = document["comparison"]
    assert abs(found["median_pct"]) <= 0.6
    assert found["p5_pct"] > -6
    assert found["p95_pct"] < 2.5
    assert found["unlike_planes_mm"] == (-45.0,)
    assert document["validity"]["acceptable"]


def test_times_belong_to_the_reference_strength(document):
    assert document["plan"]["trak_ugy"] == pytest.approx(6222.58, abs=0.01)
    assert document["plan"]["time_s"] == pytest.approx(550.4)


def test_the_plans_own_dvh(document):
    curves = {one["role"]: one for one in document["stated_dvhs"]}
    assert curves["ctv"]["without"] == ["urethra"]
    for role, names, tolerance in (
        ("ctv", ("v100_pct", "v150_pct", "v200_pct"), 0.15),
        ("ctv", ("d90_gy", "d30_gy", "d10_gy", "d2cc_gy"), 0.05),
        ("urethra", ("d90_gy", "d30_gy", "d10_gy", "d0_1cc_gy"), 0.05),
        ("rectum", ("d90_gy", "d30_gy", "d10_gy", "d2cc_gy", "d0_1cc_gy"), 0.1),
    ):
        for name in names:
            one = curves[role]
            assert one["computed"][name] == pytest.approx(one["stated"][name], abs=tolerance), (role, name)


def test_the_vendors_planes_are_labelled_one_off(document):
    said = [one["measured"] for one in document["validity"]["findings"] if one["rule"] == "plane_slip"]
    assert len(said) == 1
    assert "z -1 mm" in said[0]


def test_a_plane_lower_it_is_the_same_dose_and_the_source_points_to_the_tip(files):
    plan, stated = read_rtplan(files["PL"]), read_rtdose(files["DO"])
    x, y, z = stated.grid.origin_xyz_mm

    def found(sign, along_mm, down_mm):
        channels = tuple(
            replace(
                channel,
                positions_xyz_mm=channel.positions_xyz_mm + along_mm * channel.directions_xyz,
                directions_xyz=sign * channel.directions_xyz,
            )
            for channel in plan.channels
        )
        grid = replace(stated.grid, origin_xyz_mm=(x, y, z - down_mm))
        return compare(dwell_dose_gy(replace(plan, channels=channels), load_source(SOURCE), grid), stated, 16)

    right = found(1.0, 0.0, 1.0)
    assert abs(right.median_pct) < 0.01
    assert (right.p5_pct > -0.1, right.p95_pct < 0.1) == (True, True)
    halves = found(1.0, 0.5, 0.5)
    assert abs(halves.median_pct) < 0.06
    for other in (halves, found(-1.0, 0.0, 1.0)):
        assert other.p95_pct - other.p5_pct > 2 * (right.p95_pct - right.p5_pct)


def test_files_of_another_plan_are_refused(files):
    case, asked = CaseInput(rtstruct=files["SS"]), Settings(source=SOURCE)
    stem = b"1.2.246.352.91.5.20240227134555."
    for name, ours, message in (
        ("PL", b"2.1", "RTPLAN: structure set"),
        ("PL", b"1.1", "RTPLAN: frame of reference"),
        ("DO", b"1.1", "RTDOSE: frame of reference"),
        ("DO", b"3.1", "RTDOSE: plan"),
    ):
        strange = files | {name: files[name].replace(stem + ours, stem + ours[:2] + b"9")}
        with pytest.raises(InvalidInput, match=f"{message}.* is not the one given"):
            evaluate_rtdose(case, asked, strange["PL"], strange["DO"])
    with pytest.raises(InvalidInput, match="expected --source"):
        evaluate_rtdose(case, Settings(), files["PL"], files["DO"])
    with pytest.raises(InvalidInput, match="expected a DICOM RTSTRUCT"):
        evaluate_rtdose(CaseInput(phantom_seed=1), asked, files["PL"], files["DO"])


def test_the_command_line(trocar, shared_dir):
    folder = shared_dir / "cases" / "hdr_phantom"
    three = (folder / "SS001.dcm", folder / "PL001.dcm", "--rtdose", folder / "DO001.dcm")
    done = trocar("evaluate", *three, "--source", SOURCE)
    assert done.returncode == 0
    assert "median -0.56 %" in done.stdout
    assert trocar("evaluate", *three, "--source", "i125-6711").returncode == 2
    # Three half-lives on, an eighth of the dose: the check fails.
    late = trocar("evaluate", *three, "--source", SOURCE, "--treated", "2017-02-06")
    assert late.returncode == 1
