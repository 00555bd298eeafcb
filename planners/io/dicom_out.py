"""A proved plan as DICOM RT: the RT Plan and its RT Dose, in the frame and the study of the structure set."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from trocar.planners.io.dicom import RT_DOSE, RT_PLAN, RT_STRUCTURE_SET
from trocar.planners.io.plans import plan_document
from trocar.planners.io.sealed import add_plan, seal
from trocar.planners.types import Needle

if TYPE_CHECKING:
    from trocar.planners.dose.source import SourceModel
    from trocar.planners.pipeline import PlanResult

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
# Derived from a UUID (PS3.5 B.2): the digest's first 128 bits, so that equal plans have equal UIDs.
UUID_ROOT = "2.25."
MAX_DESCRIPTION = 1024
DVH_POINTS = 500
# The usual implant needle: a length is required, and no plan says one.
NEEDLE_MM = "200"


def decimal(value: float) -> str:
    """Give a figure as a decimal string: at most 16 characters, as many digits as fit."""
    for digits in range(16, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    raise AssertionError(f"no decimal string for {value}")


def rtplan_bytes(result: PlanResult) -> bytes:
    """Encode the plan: permanent seeds, a channel a needle, two control points a seed; never approved."""
    plan, source = result.plan, result.source
    dataset, created = _dataset(result, RT_PLAN, "RTPLAN", "plan")
    identity = result.case.identity
    dataset.RTPlanLabel = "trocar"
    dataset.RTPlanDescription = plan_description(result)
    dataset.RTPlanDate, dataset.RTPlanTime = f"{created:%Y%m%d}", f"{created:%H%M%S}"
    # PATIENT needs a structure set to refer to.
    dataset.RTPlanGeometry = "PATIENT" if identity and identity.sop_uid else "TREATMENT_DEVICE"
    if identity and identity.sop_uid:
        dataset.ReferencedStructureSetSequence = [reference(RT_STRUCTURE_SET, identity.sop_uid)]
    dataset.DoseReferenceSequence = [
        _item(
            DoseReferenceNumber=1,
            DoseReferenceStructureType="SITE",
            DoseReferenceDescription="CTV",
            DoseReferenceType="TARGET",
            TargetPrescriptionDose=decimal(plan.prescription_gy),
        )
    ]
    dataset.FractionGroupSequence = [
        _item(
            FractionGroupNumber=1,
            NumberOfFractionsPlanned=1,
            NumberOfBeams=0,
            NumberOfBrachyApplicationSetups=1,
            ReferencedBrachyApplicationSetupSequence=[_item(ReferencedBrachyApplicationSetupNumber=1)],
        )
    ]
    dataset.BrachyTreatmentTechnique = "INTERSTITIAL"
    dataset.BrachyTreatmentType = "PERMANENT"
    dataset.TreatmentMachineSequence = [_item(TreatmentMachineName="")]
    dataset.SourceSequence = [_source(source, plan.strength_u, created)]
    needles = [needle for needle in plan.needles if needle.seeds_z_mm]
    dataset.ApplicationSetupSequence = [
        _item(
            ApplicationSetupType="PERINEAL",
            ApplicationSetupNumber=1,
            TemplateNumber=1,
            TemplateType="PERINEAL",
            TemplateName="template",
            TotalReferenceAirKerma=decimal(plan.total_strength_u * source.half_life_days * 24 / np.log(2)),
            ChannelSequence=[_channel(number, needle) for number, needle in enumerate(needles, 1)],
        )
    ]
    dataset.ApprovalStatus = "UNAPPROVED"
    add_plan(dataset, plan_document(plan))
    return seal(encoded(dataset))


def rtdose_bytes(result: PlanResult) -> bytes:
    """Encode the dose: 16 bits, Gy, on its own grid, with the cumulative DVHs where ROIs have numbers."""
    grid = result.anatomy.grid
    dataset, _ = _dataset(result, RT_DOSE, "RTDOSE", "dose")
    dataset.ImagePositionPatient = [decimal(value) for value in grid.origin_xyz_mm]
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    dz, dy, dx = grid.spacing_zyx_mm
    dataset.PixelSpacing = [decimal(dy), decimal(dx)]
    dataset.SliceThickness = ""
    dataset.InstanceNumber = 1
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = grid.shape_zyx
    dataset.FrameIncrementPointer = 0x3004000C
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.DoseUnits, dataset.DoseType, dataset.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    dataset.GridFrameOffsetVector = [decimal(dz * index) for index in range(grid.shape_zyx[0])]
    scaling = decimal(max(float(result.dose_gy.max()), 1e-6) / 65_535)
    pixels = np.rint(result.dose_gy.astype(np.float64) / float(scaling))
    dataset.DoseGridScaling = scaling
    dataset.PixelData = np.minimum(pixels, 65_535).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.ReferencedRTPlanSequence = [reference(RT_PLAN, _uid(result, "plan"))]
    identity = result.case.identity
    if identity and identity.sop_uid:
        curves = list(_dvhs(result))
        if curves:
            dataset.ReferencedStructureSetSequence = [reference(RT_STRUCTURE_SET, identity.sop_uid)]
            dataset.DVHSequence = curves
    return encoded(dataset)


def _dvhs(result: PlanResult) -> Any:
    """The DVHs of contoured structures; what was derived has no number to refer to."""
    identity = result.case.identity
    numbers = {name: number for number, name in identity.roi_names.items()} if identity else {}
    for role, curve in result.dvhs.items():
        number = numbers.get(result.case.structures[role].name)
        if number is None:
            continue
        step_gy = max(curve.max_gy, 1e-6) / (DVH_POINTS - 1)
        data: list[str] = []
        for index in range(DVH_POINTS):
            data += [decimal(step_gy), decimal(curve.v_cc(index * step_gy))]
        yield _item(
            DVHReferencedROISequence=[_item(ReferencedROINumber=number, DVHROIContributionType="INCLUDED")],
            DVHType="CUMULATIVE",
            DoseUnits="GY",
            DoseType="PHYSICAL",
            DVHDoseScaling="1",
            DVHVolumeUnits="CM3",
            DVHNumberOfBins=DVH_POINTS,
            DVHData=data,
            DVHMinimumDose=decimal(curve.min_gy),
            DVHMaximumDose=decimal(curve.max_gy),
            DVHMeanDose=decimal(curve.mean_gy),
        )


def _source(source: SourceModel, strength_u: float, created: datetime) -> Any:
    return _item(
        SourceNumber=1,
        SourceType="LINE",
        SourceManufacturer="",
        SourceModelID=source.key[:16],
        SourceDescription=source.name[:64],
        ActiveSourceDiameter="",
        ActiveSourceLength=decimal(10 * source.length_cm),
        SourceIsotopeName=source.isotope,
        SourceIsotopeHalfLife=decimal(source.half_life_days),
        ReferenceAirKermaRate=decimal(strength_u),
        # For beta sources, says the standard; dciodvfy wants them of every source.
        SourceStrengthUnits="AIR_KERMA_RATE",
        SourceStrength=decimal(strength_u),
        SourceStrengthReferenceDate=f"{created:%Y%m%d}",
        SourceStrengthReferenceTime=f"{created:%H%M%S}",
    )


def _channel(number: int, needle: Needle) -> Any:
    """A needle: its seeds from the tip (superior) down; a seed arrives and stays."""
    seeds = sorted(needle.seeds_z_mm, reverse=True)
    points = []
    for index in range(2 * len(seeds)):
        z = seeds[index // 2]
        points.append(
            _item(
                ControlPointIndex=index,
                ControlPointRelativePosition=decimal(seeds[0] - z),
                ControlPoint3DPosition=[decimal(value) for value in (needle.x_mm, needle.y_mm, z)],
                CumulativeTimeWeight=decimal((index + 1) // 2),
                ControlPointOrientation=[0.0, 0.0, 1.0],
            )
        )
    return _item(
        ChannelNumber=number,
        ChannelLength="",
        TransferTubeNumber="",
        ReferencedROINumber="",
        ChannelTotalTime="0",
        SourceMovementType="FIXED",
        SourceApplicatorNumber=number,
        SourceApplicatorID=needle.label[:16],
        SourceApplicatorType="RIGID",
        SourceApplicatorLength=NEEDLE_MM,
        SourceApplicatorName=needle.label[:64],
        ReferencedSourceNumber=1,
        NumberOfControlPoints=len(points),
        FinalCumulativeTimeWeight=decimal(len(seeds)),
        BrachyControlPointSequence=points,
    )


def plan_description(result: PlanResult, approval: str = "not approved") -> str:
    """Say acceptability, approval and every finding that is no pass, as far as 1024 characters go."""
    acceptable = "acceptable" if result.validity.acceptable else "NOT ACCEPTABLE"
    parts = [f"trocar {version('trocar')}: {acceptable} by {result.protocol.key}; {approval}."]
    order = {"fail": 0, "warn": 1, "note": 2}
    found = [one for one in result.validity.findings if one.severity in order]
    for one in sorted(found, key=lambda one: order[one.severity]):
        measured = f"{one.measured:.4g}" if isinstance(one.measured, float) else str(one.measured)
        limit = f" ({one.limit} {one.unit})".replace(" )", ")") if one.limit else ""
        parts.append(f"{one.severity} {one.rule}: {measured}{limit}.")
    text = " ".join(" ".join(parts).split()).encode("ascii", "replace").decode()
    return text if len(text) <= MAX_DESCRIPTION else text[: MAX_DESCRIPTION - 3] + "..."


def _dataset(result: PlanResult, sop_class: str, modality: str, what: str) -> tuple[Any, datetime]:
    identity = result.case.identity
    created = datetime.fromisoformat(str(result.provenance["created"]))
    dataset = _item(
        SpecificCharacterSet="ISO_IR 192",
        SOPClassUID=sop_class,
        SOPInstanceUID=_uid(result, what),
        Modality=modality,
        PatientName=identity.patient_name if identity else "",
        PatientID=identity.patient_id if identity else _marked_id(result),
        PatientBirthDate=identity.birth_date if identity else "",
        PatientSex=identity.sex if identity else "",
        StudyInstanceUID=(identity.study_uid if identity else "") or _uid(result, "study"),
        SeriesInstanceUID=_uid(result, f"{what} series"),
        FrameOfReferenceUID=(identity.frame_uid if identity else "") or _uid(result, "frame"),
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
    return dataset, created


def _marked_id(result: PlanResult) -> str:
    """An ID for a case without one, which says where it comes from."""
    seed = result.case.phantom_seed
    return f"TROCAR-{result.case.input_sha256[:12]}" if seed is None else f"TROCAR-PHANTOM-{seed}"


def _uid(result: PlanResult, what: str) -> str:
    """A UID of this plan and purpose; study and frame are the case's."""
    own = {"case": result.case.input_sha256, "name": result.case.name, "what": what}
    if what not in ("study", "frame"):
        own["plan"] = json.dumps(plan_document(result.plan), sort_keys=True)
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).digest()
    return UUID_ROOT + str(int.from_bytes(digest[:16], "big"))


def reference(sop_class: str, uid: str) -> Any:
    """Make an item that refers to an instance."""
    return _item(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=uid)


def _item(**fields: Any) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    for name, value in fields.items():
        setattr(item, name, value)
    return item


def encoded(dataset: Any) -> bytes:
    """Encode a data set as a DICOM file, explicit little endian."""
    from pydicom.dataset import FileMetaDataset

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = EXPLICIT_LITTLE
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
