"""Whose an RT Structure Set is: the references that tie a plan and a dose to it."""

from __future__ import annotations

from trocar.planners.io.dicom import RT_STRUCTURE_SET, open_dicom, refusing, text
from trocar.planners.types import Identity


def read_identity(data: bytes) -> Identity:
    """Read the references of an RT Structure Set.

    Raises
    ------
    InvalidInput
        Not such a file, or damaged.
    """
    with refusing("RTSTRUCT"):
        dataset = open_dicom(data, "RTSTRUCT", RT_STRUCTURE_SET)
        frames = [
            frame
            for item in (dataset, *(dataset.get("ReferencedFrameOfReferenceSequence") or ()))
            if (frame := text(item, "FrameOfReferenceUID"))
        ]
        regions = dataset.get("StructureSetROISequence") or ()
        return Identity(
            sop_uid=text(dataset, "SOPInstanceUID"),
            study_uid=text(dataset, "StudyInstanceUID"),
            frame_uid=frames[0] if frames else "",
            frame_uids=frozenset(frames),
            patient_name=text(dataset, "PatientName"),
            patient_id=text(dataset, "PatientID"),
            birth_date=text(dataset, "PatientBirthDate"),
            sex=text(dataset, "PatientSex"),
            roi_names={int(item.ROINumber): text(item, "ROIName") for item in regions},
        )
