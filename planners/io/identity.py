"""Whose an RT Structure Set is: the references that tie a plan and a dose to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trocar.planners.io.dicom import open_dicom, refusing, text
from trocar.planners.io.named import clean_name
from trocar.planners.io.rtstruct import RT_STRUCTURE_SET


@dataclass(frozen=True, slots=True)
class Identity:
    """References of a structure set; what it leaves out is empty. `roi_names` maps ROI numbers to names."""

    sop_uid: str
    frame_uids: frozenset[str]
    roi_names: Mapping[int, str]


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
            text(item, "FrameOfReferenceUID")
            for item in (dataset, *(dataset.get("ReferencedFrameOfReferenceSequence") or ()))
        ]
        regions = dataset.get("StructureSetROISequence") or ()
        return Identity(
            text(dataset, "SOPInstanceUID"),
            frozenset(frame for frame in frames if frame),
            {int(item.ROINumber): clean_name(str(item.get("ROIName", ""))) for item in regions},
        )
