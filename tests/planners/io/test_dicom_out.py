"""RT Plan and RT Dose as written: read back, tied to what they came from. Other tools: test_dicom_peers."""

import io
import math
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR

from trocar.planners.io.dicom_out import rtdose_bytes, rtplan_bytes
from trocar.planners.io.dicom_write import decimal, own_uid
from trocar.planners.io.rtdose import read_rtdose
from trocar.planners.io.rtplan import read_rtplan
from trocar.planners.io.rtstruct_out import rtstruct_bytes
from trocar.planners.report import render_artifacts
from trocar.planners.requests import DICOM_OUTPUTS
from trocar.planners.types import Needle


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


def _written(result):
    return {
        name: pydicom.dcmread(io.BytesIO(data))
        for name, data in render_artifacts(result, DICOM_OUTPUTS).items()
    }


def _every(dataset):
    """Each element of a data set and of its items."""
    for element in dataset:
        yield element
        for item in element.value if element.VR == "SQ" else ():
            yield from _every(item)


@pytest.mark.parametrize("which", ["phantom", "patient"])
def test_every_reference_leads_somewhere(which, request, patient_rtstruct):
    """Objects, ROIs, sources, setups, frames: walked through all three files and the input."""
    result = request.getfixturevalue(which)
    files = _written(result)
    assert list(files) == list(DICOM_OUTPUTS)
    known = {str(one.SOPInstanceUID): str(one.SOPClassUID) for one in files.values()}
    regions = {int(one.ROINumber) for one in files["structures.dcm"].StructureSetROISequence}
    if which == "patient":
        given = pydicom.dcmread(io.BytesIO(patient_rtstruct))
        known |= {str(given.SOPInstanceUID): str(given.SOPClassUID), "1.2.77": "1.2.840.10008.3.1.2.3.1"}
        known |= {f"1.2.77.8.{z + 1}": "1.2.840.10008.5.1.4.1.1.2" for z in range(0, 31, 5)}
        contoured = {int(one.ROINumber) for one in given.StructureSetROISequence}
        assert not contoured & regions
    for dataset in files.values():
        for element in _every(dataset):
            for item in element.value if element.VR == "SQ" else ():
                if "ReferencedSOPInstanceUID" in item:
                    assert known[str(item.ReferencedSOPInstanceUID)] == str(item.ReferencedSOPClassUID)
    frames = {
        str(element.value)
        for dataset in files.values()
        for element in _every(dataset)
        if element.keyword in ("FrameOfReferenceUID", "ReferencedFrameOfReferenceUID")
    }
    assert len(frames) == 1
    for shared in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID"):
        assert len({str(dataset.get(shared)) for dataset in files.values()}) == 1
    assert len({str(dataset.SeriesInstanceUID) for dataset in files.values()}) == 3
    plan, dose = files["plan.dcm"], files["dose.dcm"]
    referred = [str(one.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID) for one in (plan, dose)]
    own = str(files["structures.dcm"].SOPInstanceUID)
    assert referred == (["1.2.3.4.5"] * 2 if which == "patient" else [own] * 2)
    charted = {int(one.DVHReferencedROISequence[0].ReferencedROINumber) for one in dose.DVHSequence}
    assert charted == (contoured if which == "patient" else regions)
    assert {int(one.ReferencedROINumber) for one in files["structures.dcm"].ROIContourSequence} == regions
    sources = {int(one.SourceNumber) for one in plan.SourceSequence}
    channels = plan.ApplicationSetupSequence[0].ChannelSequence
    assert {int(one.ReferencedSourceNumber) for one in channels} == sources


@settings(max_examples=6, deadline=None)
@given(
    st.lists(st.tuples(MM, MM, st.lists(MM, min_size=1, max_size=4)), min_size=1, max_size=3),
    st.floats(1e-3, 1e3),
    st.floats(1e-3, 1e3),
    st.tuples(MM, MM, MM),
    st.floats(0.5, 5.0),
)
def test_every_decimal_string_fits(phantom, places, strength_u, prescription_gy, origin, step):
    """Whatever the plan, the grid and the shapes: 16 characters at most, and figures."""
    needles = tuple(Needle(f"n{i}", x, y, tuple(z)) for i, (x, y, z) in enumerate(places))
    plan = replace(phantom.plan, needles=needles, strength_u=strength_u, prescription_gy=prescription_gy)
    grid = replace(phantom.anatomy.grid, origin_xyz_mm=origin, spacing_zyx_mm=(step, step / 3, step / 7))
    urethra = phantom.case.structures["urethra"]
    moved = replace(
        urethra, z_mm=urethra.z_mm * step, origin_xy_mm=origin[:2], spacing_yx_mm=(step / 3, step / 7)
    )
    result = replace(
        phantom,
        plan=plan,
        anatomy=replace(phantom.anatomy, grid=grid),
        case=replace(phantom.case, structures={**phantom.case.structures, "urethra": moved}),
        dose_gy=phantom.dose_gy * np.float32(strength_u),
    )
    count = 0
    for data in (rtplan_bytes(result), rtdose_bytes(result), rtstruct_bytes(result)):
        for element in _raw(pydicom.dcmread(io.BytesIO(data))):
            for text in element.split(b"\\"):
                assert len(text.strip()) <= 16
                assert not text.strip() or math.isfinite(float(text))
                count += 1
    assert count > 3000


def _raw(dataset):
    """The bytes of each decimal-string element, as they stand in the file."""
    for tag in tuple(dataset.keys()):
        element = dataset.get_item(tag)
        vr = element.VR or dictionary_VR(tag)
        if vr == "DS" and element.value:
            yield element.value
        elif vr == "SQ":
            for item in dataset[tag].value:
                yield from _raw(item)


def test_what_differs_has_other_uids(phantom):
    """An archive keeps the first object of a UID, and drops the next."""

    def uids(result):
        return {own_uid(result, what) for what in ("structures", "plan", "dose")}

    assert len(uids(phantom)) == 3
    assert uids(phantom) == uids(replace(phantom))
    coarser = replace(phantom.anatomy.grid, spacing_zyx_mm=(2.0, 2.0, 2.0))
    later = {**phantom.provenance, "created": "2026-01-31T12:00:00+00:00"}
    for other in (
        replace(phantom, anatomy=replace(phantom.anatomy, grid=coarser)),
        replace(phantom, provenance=later),
        replace(phantom, plan=replace(phantom.plan, strength_u=0.5)),
    ):
        assert not uids(other) & uids(phantom)
        assert own_uid(other, "frame") == own_uid(phantom, "frame")
