"""RT Plan and RT Dose as written: read back, checked by dciodvfy, tied to what they came from."""

import io
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trocar.planners import intake, pipeline
from trocar.planners.io.dicom_out import decimal, rtdose_bytes, rtplan_bytes
from trocar.planners.io.rtdose import read_rtdose
from trocar.planners.io.rtplan import read_rtplan
from trocar.planners.requests import CaseInput, Search, Settings
from trocar.planners.types import Needle


def _planned(case):
    request = intake.plan_request(Settings(), Search(moves=2000, chains=1, start="random"))
    return pipeline.plan_case(intake.read_case(case), request)


@pytest.fixture(scope="module")
def phantom():
    return _planned(CaseInput(phantom_seed=4))


@pytest.fixture(scope="module")
def patient(make_rtstruct, make_circle):
    def name(dataset):
        dataset.PatientName, dataset.PatientID = "Doe^J", "42"
        dataset.StudyInstanceUID = "1.2.77"

    disc = make_circle(0, 0, 15)
    rois = {"Prostate": [("CLOSED_PLANAR", np.column_stack([disc, np.full(90, z)])) for z in range(0, 31, 5)]}
    return _planned(CaseInput(rtstruct=make_rtstruct(rois, change=name), name="p.dcm"))


@pytest.mark.parametrize("which", ["phantom", "patient"])
@pytest.mark.parametrize("write", [rtplan_bytes, rtdose_bytes])
def test_dciodvfy_finds_no_error(which, write, request, tmp_path):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian dicom3tools) is not installed")
    path = tmp_path / "file.dcm"
    path.write_bytes(write(request.getfixturevalue(which)))
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=60, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert any(line in ("RTPlan", "RTDose") for line in said)
    assert not [line for line in said if line.startswith("Error")]


def test_the_dose_reads_back_within_half_a_step(patient):
    found = read_rtdose(rtdose_bytes(patient))
    np.testing.assert_allclose(found.dose_gy, patient.dose_gy, atol=patient.dose_gy.max() / 65535)
    np.testing.assert_allclose(found.grid.origin_xyz_mm, patient.anatomy.grid.origin_xyz_mm)
    (curve,) = found.dvhs
    assert curve.d_cc_gy(5.0) == pytest.approx(patient.dvhs["ctv"].d_cc_gy(5.0), rel=0.02)


MM = st.floats(-300, 300, allow_nan=False, allow_infinity=False)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(MM, MM, st.lists(MM, min_size=1, max_size=4, unique_by=lambda v: round(v, 2))),
        min_size=1,
        max_size=6,
        unique_by=lambda v: (round(v[0], 2), round(v[1], 2)),
    ),
    st.floats(0.1, 5.0),
)
def test_our_reader_finds_the_same_seeds(phantom, places, strength_u):
    needles = tuple(Needle(f"n{i}", x, y, tuple(sorted(z))) for i, (x, y, z) in enumerate(places))
    plan = replace(phantom.plan, needles=needles, strength_u=strength_u)
    found = read_rtplan(rtplan_bytes(replace(phantom, plan=plan))).seed_plan(plan.source)
    assert [needle.label for needle in found.needles] == [needle.label for needle in needles]
    np.testing.assert_allclose(found.seeds_xyz_mm, plan.seeds_xyz_mm, atol=0.01)
    assert found.strength_u == pytest.approx(strength_u, rel=1e-12)
    assert found.prescription_gy == plan.prescription_gy


@given(st.floats(-1e12, 1e12, allow_nan=False))
def test_decimal_strings_fit(value):
    assert len(decimal(value)) <= 16
    assert float(decimal(value)) == pytest.approx(value, rel=1e-8)


def test_a_patient_keeps_name_study_and_frame(patient):
    plan = pydicom.dcmread(io.BytesIO(rtplan_bytes(patient)))
    dose = pydicom.dcmread(io.BytesIO(rtdose_bytes(patient)))
    for one in (plan, dose):
        assert (one.PatientName, one.PatientID) == ("Doe^J", "42")
        assert (one.StudyInstanceUID, one.FrameOfReferenceUID) == ("1.2.77", "1.2.3.4")
    assert plan.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5"
    assert dose.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == plan.SOPInstanceUID
    assert plan.SeriesInstanceUID != dose.SeriesInstanceUID


def test_a_phantom_has_no_name_and_a_marked_id(phantom):
    plan = pydicom.dcmread(io.BytesIO(rtplan_bytes(phantom)))
    assert str(plan.PatientName) == ""
    assert plan.PatientID == "TROCAR-PHANTOM-4"


def test_a_plan_leaves_unapproved_with_its_findings(phantom):
    plan = pydicom.dcmread(io.BytesIO(rtplan_bytes(phantom)))
    assert plan.ApprovalStatus == "UNAPPROVED"
    assert ("NOT ACCEPTABLE" in plan.RTPlanDescription) is not phantom.validity.acceptable
    assert len(plan.RTPlanDescription) <= 1024
    failed = [one.rule for one in phantom.validity.findings if one.severity == "fail"]
    assert all(f"fail {rule}" in plan.RTPlanDescription for rule in failed[:3])
