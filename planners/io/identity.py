"""Whose an RT Structure Set is: the references that tie a plan, a dose and derived structures to it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

from trocar.planners.io.dicom import RT_STRUCTURE_SET, figures, open_dicom, refusing, text
from trocar.planners.types import Identity, ImageSeries

SEXES = ("M", "F", "O")


def read_identity(data: bytes, structures: Collection[str] = ()) -> Identity:
    """Read the references of an RT Structure Set. What cannot be one (a UID of letters) counts as absent.

    Parameters
    ----------
    structures : names of the structures in use: a file may declare several frames of reference, and theirs
        is the one that counts; without them the first.

    Raises
    ------
    InvalidInput
        Not such a file, or damaged.
    """
    with refusing("RTSTRUCT"):
        dataset = open_dicom(data, "RTSTRUCT", RT_STRUCTURE_SET)
        declared = list(dataset.get("ReferencedFrameOfReferenceSequence") or ())
        frames = [uid for item in (dataset, *declared) if (uid := _uid(item, "FrameOfReferenceUID"))]
        regions = list(dataset.get("StructureSetROISequence") or ())
        used = [_uid(one, "ReferencedFrameOfReferenceUID") for one in regions if _name(one) in structures]
        frame = next(filter(None, (*used, *frames)), "")
        held = [item for item in declared if _uid(item, "FrameOfReferenceUID") == frame]
        series = tuple(one for item in held for one in _series(item))
        birth, sex = text(dataset, "PatientBirthDate"), text(dataset, "PatientSex")
        return Identity(
            sop_uid=_uid(dataset, "SOPInstanceUID"),
            study_uid=_uid(dataset, "StudyInstanceUID"),
            frame_uid=frame,
            frame_uids=frozenset(frames),
            patient_name=text(dataset, "PatientName"),
            patient_id=text(dataset, "PatientID"),
            birth_date=birth if re.fullmatch(r"\d{8}", birth) else "",
            sex=sex if sex in SEXES else "",
            roi_names={int(item.ROINumber): _name(item) for item in regions},
            series=series,
            image_at=_images_by_plane(dataset) if series else {},
        )


def _name(region: Any) -> str:
    return text(region, "ROIName")


def _uid(item: Any, keyword: str) -> str:
    """Return a UID, or nothing where the text is none; those of anonymisers may have leading zeros."""
    found = text(item, keyword)
    return found if re.fullmatch(r"\d+(\.\d+)+", found, re.ASCII) and len(found) <= 64 else ""


def _reference(item: Any) -> tuple[str, str] | None:
    """Return SOP class and instance, where both are there."""
    found = _uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID")
    return found if all(found) else None


def _series(frame: Any) -> Iterator[ImageSeries]:
    """The series of a frame of reference; what refers to nothing is passed over."""
    for study in frame.get("RTReferencedStudySequence") or ():
        named = _reference(study)
        for one in study.get("RTReferencedSeriesSequence") or ():
            images = [_reference(image) for image in one.get("ContourImageSequence") or ()]
            kept = tuple(image for image in images if image)
            if named and kept and (uid := _uid(one, "SeriesInstanceUID")):
                yield ImageSeries(named, uid, kept)


def _images_by_plane(dataset: Any) -> dict[float, tuple[str, str]]:
    """The image at each z; contours that name none, or are damaged, matter to whoever uses them."""
    found: dict[float, tuple[str, str]] = {}
    for drawn in dataset.get("ROIContourSequence") or ():
        for contour in drawn.get("ContourSequence") or ():
            with suppress(Exception):
                images = [_reference(image) for image in contour.ContourImageSequence]
                if len(images) == 1 and images[0]:
                    found[float(figures(contour, "ContourData", None, "")[2])] = images[0]
    return found
