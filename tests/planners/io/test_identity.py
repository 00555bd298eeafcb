"""Whose a structure set is, and which of its frames of reference counts."""

import numpy as np
from pydicom.dataset import Dataset

from trocar.planners.case import case_from_bytes
from trocar.planners.io.identity import read_identity


def test_images_and_the_planes_that_contours_lie_on(patient_rtstruct):
    found = read_identity(patient_rtstruct)
    (series,) = found.series
    assert (series.study[1], series.series_uid, len(series.images)) == ("1.2.77", "1.2.77.8", 7)
    assert found.image_at[15.0] == ("1.2.840.10008.5.1.4.1.1.2", "1.2.77.8.16")
    assert sorted(found.image_at) == [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]


def test_the_frame_is_that_of_the_structures_in_use(make_rtstruct, make_circle):
    """The first frame that a file declares may be another image's."""
    disc = make_circle(0, 0, 15)
    planes = [("CLOSED_PLANAR", np.column_stack([disc, np.full(90, z)])) for z in range(0, 31, 5)]

    def second(dataset):
        other = Dataset()
        other.FrameOfReferenceUID = "5.6"
        dataset.ReferencedFrameOfReferenceSequence.append(other)
        dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "5.6"

    data = make_rtstruct({"Prostate": planes}, change=second)
    assert read_identity(data).frame_uid == "1.2.3.4"
    identity = case_from_bytes(data).identity
    assert identity.frame_uid == "5.6"
    assert identity.frame_uids == {"1.2.3.4", "5.6"}


def test_damage_in_a_contour_that_nobody_uses_does_not_matter(patient_rtstruct):
    whole = b"15.0000\\0.0000\\0.0000"
    assert whole in patient_rtstruct
    found = read_identity(patient_rtstruct.replace(whole, b"abcdefg" + whole[7:], 1))
    assert sorted(found.image_at) == [5.0, 10.0, 15.0, 20.0, 25.0, 30.0]
