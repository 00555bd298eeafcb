"""The structure set as written: read back to the same volumes, tied to the input, derived ROIs said to be."""

import io
from dataclasses import replace

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trocar.planners.case import case_from_bytes
from trocar.planners.geometry import slab_volume_cc
from trocar.planners.io.dicom_out import rtplan_bytes
from trocar.planners.io.rtstruct import read_rtstruct
from trocar.planners.io.rtstruct_out import outlines, rtstruct_bytes, written_structures
from trocar.planners.report import render_artifacts
from trocar.planners.requests import DICOM_OUTPUTS, CaseInput
from trocar.planners.types import Structure


def read(data):
    return pydicom.dcmread(io.BytesIO(data))


def read_back(result):
    """Our reader's structures, in the order of the file's ROIs."""
    named = read_rtstruct(rtstruct_bytes(result))
    built = named.build({str(index): index for index in range(len(named.names))}).structures
    return named.names, [built[str(index)] for index in range(len(named.names))]


def assert_same_volumes(result):
    names, found = read_back(result)
    written = list(written_structures(result).values())
    assert list(names) == [one.name for one in written]
    for one, back in zip(written, found, strict=True):
        # A tube of 5 mm on pixels of 1 mm loses its corners.
        within = 0.05 if one.role == "urethra" else 0.005
        assert slab_volume_cc(back) == pytest.approx(slab_volume_cc(one), rel=within), one.name
        np.testing.assert_allclose(centre_xy_mm(back), centre_xy_mm(one), atol=0.1, err_msg=one.name)


def centre_xy_mm(one):
    _, ny, nx = one.occupancy_zyx.shape
    (x0, y0), (dy, dx) = one.origin_xy_mm, one.spacing_yx_mm
    flat = one.occupancy_zyx.sum(axis=0, dtype=float)
    x, y = x0 + dx * np.arange(nx), y0 + dy * np.arange(ny)
    return flat.sum(axis=0) @ x / flat.sum(), flat.sum(axis=1) @ y / flat.sum()


def test_a_phantoms_structures_come_back_and_are_all_there(phantom):
    assert [one.role for one in written_structures(phantom).values()] == list(phantom.case.structures)
    assert_same_volumes(phantom)
    again = case_from_bytes(rtstruct_bytes(phantom), filename_hint="structures.dcm")
    assert set(again.structures) == set(phantom.case.structures)
    assert again.derived == {}


def test_only_what_was_derived_is_written_beside_an_input(patient):
    assert_same_volumes(patient)
    dataset = read(rtstruct_bytes(patient))
    regions = list(dataset.StructureSetROISequence)
    assert [(one.ROINumber, one.ROIName) for one in regions] == [
        (2, "PTV (derived)"), (3, "urethra (assumed)"),
    ]  # fmt: skip
    assert {one.ROIGenerationAlgorithm for one in regions} == {"AUTOMATIC"}
    assert "grown by 3 mm, 0 mm posterior" in regions[0].ROIDescription
    assert "a straight tube of 5 mm" in regions[1].ROIDescription
    assert all("not contoured" in one.ROIGenerationDescription for one in regions)
    kinds = {one.ReferencedROINumber: one.RTROIInterpretedType for one in dataset.RTROIObservationsSequence}
    assert kinds == {2: "PTV", 3: "ORGAN"}
    assert dataset.ApprovalStatus == "UNAPPROVED"


def test_images_are_referred_to_as_the_input_does(patient):
    dataset = read(rtstruct_bytes(patient))
    assert dataset.PredecessorStructureSetSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5"
    (frame,) = dataset.ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == "1.2.3.4"
    (series,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.77.8"
    images = {one.ReferencedSOPInstanceUID for one in series.ContourImageSequence}
    assert len(images) == 7
    at = {
        float(contour.ContourData[2]): contour.ContourImageSequence[0].ReferencedSOPInstanceUID
        for drawn in dataset.ROIContourSequence
        for contour in drawn.ContourSequence
        if "ContourImageSequence" in contour
    }
    assert all(uid == f"1.2.77.8.{round(z) + 1}" for z, uid in at.items())


def test_a_plane_of_the_input_has_the_inputs_image(patient):
    """The assumed urethra moved onto the input's planes."""
    tube = patient.case.structures["urethra"]
    moved = replace(tube, z_mm=np.arange(len(tube.z_mm)) * 5.0)
    case = replace(patient.case, structures={**patient.case.structures, "urethra": moved})
    drawn = read(rtstruct_bytes(replace(patient, case=case))).ROIContourSequence[1].ContourSequence
    for contour in drawn:
        (image,) = contour.ContourImageSequence
        assert image.ReferencedSOPInstanceUID == f"1.2.77.8.{int(contour.ContourData[2]) + 1}"


def test_nothing_derived_is_no_file(planned, make_rtstruct, make_circle):
    def disc(radius, planes):
        xy = make_circle(0, 0, radius)
        return [("CLOSED_PLANAR", np.column_stack([xy, np.full(len(xy), float(z))])) for z in planes]

    planes = range(0, 31, 5)
    rois = {"CTV": disc(15, planes), "PTV": disc(18, planes), "Urethra": disc(2.5, planes)}
    result = planned(CaseInput(rtstruct=make_rtstruct(rois)))
    assert list(render_artifacts(result, DICOM_OUTPUTS)) == ["plan.dcm", "dose.dcm"]
    plan = read(rtplan_bytes(result))
    assert plan.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5"


def test_what_is_no_uid_is_not_carried_on(planned, make_rtstruct, make_circle):
    def damage(dataset):
        dataset.StudyInstanceUID, dataset.PatientSex, dataset.PatientBirthDate = "1.02.x", "male", "1950"

    disc = make_circle(0, 0, 15)
    rois = {"CTV": [("CLOSED_PLANAR", np.column_stack([disc, np.full(90, z)])) for z in range(0, 31, 5)]}
    plan = read(rtplan_bytes(planned(CaseInput(rtstruct=make_rtstruct(rois, change=damage)))))
    assert plan.StudyInstanceUID.startswith("2.25.")
    assert (plan.PatientSex, plan.PatientBirthDate) == ("", "")


def structure(occupancy, pixel=1.0):
    return Structure("s", "ctv", occupancy.astype(np.float32), np.arange(len(occupancy)) * 5.0, (3.0, -7.0),
                     (pixel, pixel))  # fmt: skip


def area(loop):
    x, y = loop.T
    return abs(0.5 * float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def test_outlines_by_hand():
    """A block of 3 x 4 pixels: the outline is half a pixel out, its corners cut by 1/8 pixel each."""
    plane = np.zeros((1, 5, 6))
    plane[0, 1:4, 1:5] = 1
    ((z_mm, (loop,)),) = outlines(structure(plane))
    assert z_mm == 0.0
    assert area(loop) == pytest.approx(12 - 4 / 8)
    np.testing.assert_allclose(loop.mean(axis=0), (3 + 2.5, -7 + 2))
    # Cover of a half at the right edge moves it in by half a pixel.
    plane[0, 1:4, 4] = 0.5
    ((_, (loop,)),) = outlines(structure(plane))
    assert loop[:, 0].max() == pytest.approx(3 + 4.0)


def test_holes_become_key_holes():
    plane = np.zeros((2, 20, 30))
    plane[:, 2:18, 2:28] = 1
    plane[:, 6:10, 5:9] = 0
    plane[:, 8:14, 15:22] = 0
    # An island in a hole is an outline of its own.
    plane[:, 10:12, 17:20] = 1
    for _, loops in outlines(structure(plane)):
        assert sorted(round(area(loop), 3) for loop in loops) == [
            6 - 0.5, 16 * 26 - 0.5 - (16 - 0.5) - (42 - 0.5),
        ]  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 2.0))
def test_any_shape_comes_back(phantom, seed, pixel):
    """Blobs with holes and islands, through the file and our reader."""
    noise = np.random.default_rng(seed).normal(size=(4, 40, 44))
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), 3.0) for plane in noise])
    # A slope of a pixel or so at the edge, as partly covered pixels have it.
    occupancy = np.clip(0.5 + 3 * smooth / np.abs(smooth).max(), 0, 1)
    drawn = structure(occupancy, pixel)
    case = replace(phantom.case, structures={"ctv": drawn})
    ((found,),) = [read_back(replace(phantom, case=case))[1]]
    np.testing.assert_allclose(found.z_mm, drawn.z_mm)
    for plane, back in zip(occupancy, found.occupancy_zyx, strict=True):
        found_mm2 = back.sum(dtype=float) * np.prod(found.spacing_yx_mm)
        assert found_mm2 == pytest.approx((plane >= 0.5).sum() * pixel**2, rel=0.04)
