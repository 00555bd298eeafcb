"""What the DICOM RT writers share: whose an object is, its UIDs, and figures as decimal strings."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from trocar.planners.io.dicom import RT_STRUCTURE_SET
from trocar.planners.io.plans import plan_document
from trocar.planners.types import Identity

if TYPE_CHECKING:
    from trocar.planners.pipeline import PlanResult

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
# Derived from a UUID (PS3.5 B.2): the digest's first 128 bits, so that equal objects have equal UIDs.
UUID_ROOT = "2.25."


def decimal(value: float) -> str:
    """Give a figure as a decimal string: at most 16 characters, as many digits as fit."""
    for digits in range(16, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    raise AssertionError(f"no decimal string for {value}")


def item(**fields: Any) -> Any:
    """Make a data set of these elements."""
    from pydicom.dataset import Dataset

    made = Dataset()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def add_decimals(target: Any, keyword: str, texts: Iterable[str]) -> None:
    """Add many decimal strings as they are; pydicom would make an object of each, slowly."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataelem import DataElement

    tag = tag_for_keyword(keyword)
    assert tag is not None
    target.add(DataElement(tag, "DS", "\\".join(texts), already_converted=True))


def reference(sop_class: str, uid: str) -> Any:
    """Make the item that refers to an object."""
    return item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=uid)


def encoded(dataset: Any, syntax: str = EXPLICIT_LITTLE) -> bytes:
    """Encode a DICOM file."""
    from pydicom.dataset import FileMetaDataset

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def created_at(result: PlanResult) -> datetime:
    """When the plan was proved."""
    return datetime.fromisoformat(str(result.provenance["created"]))


def header(result: PlanResult, sop_class: str, modality: str, what: str) -> Any:
    """Begin an object: patient, study and frame of reference are the input's, or made and marked as such."""
    identity = result.case.identity
    created = created_at(result)
    return item(
        SpecificCharacterSet="ISO_IR 192",
        SOPClassUID=sop_class,
        SOPInstanceUID=own_uid(result, what),
        Modality=modality,
        PatientName=identity.patient_name if identity else "",
        PatientID=identity.patient_id if identity else _marked_id(result),
        PatientBirthDate=identity.birth_date if identity else "",
        PatientSex=identity.sex if identity else "",
        StudyInstanceUID=(identity.study_uid if identity else "") or own_uid(result, "study"),
        SeriesInstanceUID=own_uid(result, f"{what} series"),
        FrameOfReferenceUID=frame_uid(result),
        StudyDate="",
        StudyTime="",
        StudyID="",
        AccessionNumber="",
        ReferringPhysicianName="",
        SeriesNumber="",
        OperatorsName="",
        PositionReferenceIndicator="",
        Manufacturer="trocar",
        ManufacturerModelName="trocar, research software",
        SoftwareVersions=version("trocar"),
        InstanceCreationDate=f"{created:%Y%m%d}",
        InstanceCreationTime=f"{created:%H%M%S}",
    )


def frame_uid(result: PlanResult) -> str:
    """Return the frame of reference of everything written."""
    identity = result.case.identity
    return (identity.frame_uid if identity else "") or own_uid(result, "frame")


def input_structure_set(result: PlanResult) -> Identity | None:
    """Return the structure set that the case came from, where there is one to refer to."""
    identity = result.case.identity
    return identity if identity and identity.sop_uid else None


def structure_set(result: PlanResult) -> Any:
    """Refer to the structure set of plan and dose: the input's, or the one written here where there is none.

    With an input the one written here only adds what was derived, and whoever approved the contours
    approved the input's.
    """
    given = input_structure_set(result)
    return reference(RT_STRUCTURE_SET, given.sop_uid if given else own_uid(result, "structures"))


def own_uid(result: PlanResult, what: str) -> str:
    """Make a UID: study and frame are the case's, all else belongs to one proof of one plan.

    Objects that differ at all need UIDs that differ: an archive keeps the first of equal ones.
    """
    own: dict[str, object] = {"case": result.case.input_sha256, "name": result.case.name, "what": what}
    if what not in ("study", "frame"):
        own |= {"version": version("trocar"), "created": str(result.provenance["created"])}
        own |= {"plan": plan_document(result.plan), "protocol": result.protocol.key}
        own["grid"] = repr(result.anatomy.grid)
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).digest()
    return UUID_ROOT + str(int.from_bytes(digest[:16], "big"))


def _marked_id(result: PlanResult) -> str:
    """An ID for a case without one, which says where it comes from."""
    seed = result.case.phantom_seed
    return f"TROCAR-{result.case.input_sha256[:12]}" if seed is None else f"TROCAR-PHANTOM-{seed}"
