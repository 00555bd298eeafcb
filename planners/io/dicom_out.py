"""A proved plan as DICOM RT: the RT Plan and its RT Dose, in the frame and the study of the structure set."""

from __future__ import annotations

from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from trocar.planners.io.dicom import RT_DOSE, RT_PLAN
from trocar.planners.io.dicom_write import (
    add_decimals,
    created_at,
    decimal,
    encoded,
    header,
    input_structure_set,
    item,
    own_uid,
    reference,
    structure_set,
)
from trocar.planners.io.plans import plan_document
from trocar.planners.io.rtstruct_out import written_structures
from trocar.planners.io.sealed import add_plan, seal
from trocar.planners.types import Needle

if TYPE_CHECKING:
    from trocar.planners.dose.source import SourceModel
    from trocar.planners.pipeline import PlanResult

MAX_DESCRIPTION = 1024
DVH_POINTS = 500
# The usual implant needle: a length is required, and no plan says one.
NEEDLE_MM = "200"


def rtplan_bytes(result: PlanResult) -> bytes:
    """Encode the plan: permanent seeds, a channel a needle, two control points a seed; never approved."""
    plan, source = result.plan, result.source
    dataset, created = header(result, RT_PLAN, "RTPLAN", "plan"), created_at(result)
    dataset.RTPlanLabel = "trocar"
    dataset.RTPlanDescription = plan_description(result)
    dataset.RTPlanDate, dataset.RTPlanTime = f"{created:%Y%m%d}", f"{created:%H%M%S}"
    dataset.RTPlanGeometry = "PATIENT"
    dataset.ReferencedStructureSetSequence = [structure_set(result)]
    dataset.DoseReferenceSequence = [
        item(
            DoseReferenceNumber=1,
            DoseReferenceStructureType="SITE",
            DoseReferenceDescription="CTV",
            DoseReferenceType="TARGET",
            TargetPrescriptionDose=decimal(plan.prescription_gy),
        )
    ]
    dataset.FractionGroupSequence = [
        item(
            FractionGroupNumber=1,
            NumberOfFractionsPlanned=1,
            NumberOfBeams=0,
            NumberOfBrachyApplicationSetups=1,
            ReferencedBrachyApplicationSetupSequence=[item(ReferencedBrachyApplicationSetupNumber=1)],
        )
    ]
    dataset.BrachyTreatmentTechnique = "INTERSTITIAL"
    dataset.BrachyTreatmentType = "PERMANENT"
    dataset.TreatmentMachineSequence = [item(TreatmentMachineName="")]
    dataset.SourceSequence = [_source(source, plan.strength_u, created)]
    needles = [needle for needle in plan.needles if needle.seeds_z_mm]
    dataset.ApplicationSetupSequence = [
        item(
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
    dataset = header(result, RT_DOSE, "RTDOSE", "dose")
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
    dataset.ReferencedRTPlanSequence = [reference(RT_PLAN, own_uid(result, "plan"))]
    curves = list(_dvhs(result))
    if curves:
        dataset.ReferencedStructureSetSequence = [structure_set(result)]
        dataset.DVHSequence = curves
    return encoded(dataset)


def _dvhs(result: PlanResult) -> Any:
    """The DVHs of structures in the set that is referred to: an input's does not have the derived ones."""
    given = input_structure_set(result)
    names = given.roi_names if given else {n: one.name for n, one in written_structures(result).items()}
    numbers = {name: number for number, name in names.items()}
    for role, curve in result.dvhs.items():
        number = numbers.get(result.case.structures[role].name)
        if number is None:
            continue
        step_gy = max(curve.max_gy, 1e-6) / (DVH_POINTS - 1)
        data: list[str] = []
        for index in range(DVH_POINTS):
            data += [decimal(step_gy), decimal(curve.v_cc(index * step_gy))]
        made = item(
            DVHReferencedROISequence=[item(ReferencedROINumber=number, DVHROIContributionType="INCLUDED")],
            DVHType="CUMULATIVE",
            DoseUnits="GY",
            DoseType="PHYSICAL",
            DVHDoseScaling="1",
            DVHVolumeUnits="CM3",
            DVHNumberOfBins=DVH_POINTS,
            DVHMinimumDose=decimal(curve.min_gy),
            DVHMaximumDose=decimal(curve.max_gy),
            DVHMeanDose=decimal(curve.mean_gy),
        )
        add_decimals(made, "DVHData", data)
        yield made


def _source(source: SourceModel, strength_u: float, created: datetime) -> Any:
    return item(
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
            item(
                ControlPointIndex=index,
                ControlPointRelativePosition=decimal(seeds[0] - z),
                ControlPoint3DPosition=[decimal(value) for value in (needle.x_mm, needle.y_mm, z)],
                CumulativeTimeWeight=decimal((index + 1) // 2),
                ControlPointOrientation=[0.0, 0.0, 1.0],
            )
        )
    return item(
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
