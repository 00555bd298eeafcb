"""A plan's structures as a DICOM RT Structure Set: what was derived, or all where the input was no DICOM."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from trocar.planners.geometry import slab_volume_cc
from trocar.planners.io.dicom import RT_STRUCTURE_SET
from trocar.planners.io.dicom_write import (
    IMPLICIT_LITTLE,
    add_decimals,
    created_at,
    decimal,
    encoded,
    frame_uid,
    header,
    input_structure_set,
    item,
    reference,
)
from trocar.planners.types import Float64Array, Identity, ImageSeries, Structure

if TYPE_CHECKING:
    from trocar.planners.pipeline import PlanResult

# A pixel covered by half is on the outline.
OUTLINE = 0.5
# Loops smaller than this are corners that pixels leave, no shape.
LEAST_AREA_MM2 = 0.01
# Planes nearer than this are one; as the reader has it.
SAME_PLANE_MM = 0.01
INTERPRETED = {"ctv": "CTV", "ptv": "PTV"}
COLOURS = {
    "ctv": (230, 77, 77),
    "ptv": (230, 153, 26),
    "urethra": (230, 230, 51),
    "rectum": (153, 102, 51),
    "bladder": (77, 128, 230),
}


def written_structures(result: PlanResult) -> dict[int, Structure]:
    """Return what the structure set holds, by ROI number.

    Beside an input that can be referred to: the derived structures, numbered after its ROIs. Otherwise all,
    so that there is something to refer to.
    """
    given, case = input_structure_set(result), result.case
    # One structure may play two roles.
    distinct = {one.name: one for role, one in case.structures.items() if not given or role in case.derived}
    first = 1 + max(given.roi_names, default=0) if given else 1
    return dict(enumerate(distinct.values(), start=first))


def rtstruct_bytes(result: PlanResult) -> bytes | None:
    """Encode the structures that a plan was made for, on the planes they were planned on.

    Returns
    -------
    The file in implicit little endian, where a contour may have any number of points; None where nothing
    was derived.
    """
    structures = written_structures(result)
    if not structures:
        return None
    given, created = input_structure_set(result), created_at(result)
    dataset = header(result, RT_STRUCTURE_SET, "RTSTRUCT", "structures")
    dataset.StructureSetLabel = "trocar"
    dataset.StructureSetName = "trocar, derived" if given else "trocar"
    dataset.StructureSetDescription = _description(result)
    dataset.StructureSetDate, dataset.StructureSetTime = f"{created:%Y%m%d}", f"{created:%H%M%S}"
    if given:
        dataset.PredecessorStructureSetSequence = [reference(RT_STRUCTURE_SET, given.sop_uid)]
    frame = item(FrameOfReferenceUID=frame_uid(result))
    if given and given.series:
        frame.RTReferencedStudySequence = [_study(one) for one in given.series]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence = [_region(result, number, one) for number, one in structures.items()]
    dataset.ROIContourSequence = [
        item(
            ROIDisplayColor=list(COLOURS[one.role]),
            ContourSequence=list(_contours(one, given)),
            ReferencedROINumber=number,
        )
        for number, one in structures.items()
    ]
    dataset.RTROIObservationsSequence = [
        item(
            ObservationNumber=count,
            ReferencedROINumber=number,
            RTROIInterpretedType=INTERPRETED.get(one.role, "ORGAN"),
            ROIInterpreter="",
        )
        for count, (number, one) in enumerate(structures.items(), start=1)
    ]
    dataset.ApprovalStatus = "UNAPPROVED"
    return encoded(dataset, IMPLICIT_LITTLE)


def outlines(structure: Structure) -> Iterator[tuple[float, list[Float64Array]]]:
    """Yield each slice's z (mm) and closed outlines, (n, 2) x and y mm without the first point again.

    Slices covered by half nowhere have none. A hole is joined to what it is in by a key-hole, the form of
    `CLOSED_PLANAR` that every reader knows (PS3.3, C.8.8.6.3).
    """
    from contourpy import contour_generator

    (x0, y0), (dy, dx) = structure.origin_xy_mm, structure.spacing_yx_mm
    _, ny, nx = structure.occupancy_zyx.shape
    # One pixel of air all round, so that every outline closes.
    x, y = x0 + dx * np.arange(-1, nx + 1), y0 + dy * np.arange(-1, ny + 1)
    for z_mm, plane in zip(structure.z_mm, structure.occupancy_zyx, strict=True):
        generator = contour_generator(x, y, np.pad(plane, 1), fill_type="OuterOffset")
        filled = cast("tuple[list[Float64Array], list[Any]]", generator.filled(OUTLINE, np.inf))
        loops = [
            _key_holed([np.round(ring[:-1], 3) for ring in np.split(points, starts[1:-1])])
            for points, starts in zip(*filled, strict=True)
        ]
        kept = [loop for loop in loops if len(loop) >= 3 and abs(_area_mm2(loop)) >= LEAST_AREA_MM2]
        if kept:
            yield float(z_mm), kept


def _key_holed(rings: list[Float64Array]) -> Float64Array:
    """Join holes to their outer ring, each by a double edge where it is nearest."""
    joined, *holes = rings
    for hole in holes:
        apart = np.linalg.norm(joined[:, None] - hole[None], axis=2)
        at, start = np.unravel_index(int(apart.argmin()), apart.shape)
        turned = np.roll(hole, -int(start), axis=0)
        joined = np.concatenate([joined[: at + 1], turned, turned[:1], joined[at:]])
    return joined


def _area_mm2(loop: Float64Array) -> float:
    x, y = loop.T
    return 0.5 * float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def _contours(structure: Structure, given: Identity | None) -> Iterator[Any]:
    every = [(z_mm, loop) for z_mm, loops in outlines(structure) for loop in loops]
    for number, (z_mm, loop) in enumerate(every, start=1):
        image = _image_at(z_mm, given)
        contour = item(
            ContourNumber=number,
            ContourGeometricType="CLOSED_PLANAR",
            NumberOfContourPoints=len(loop),
        )
        flat = np.column_stack([loop, np.full(len(loop), z_mm)]).ravel()
        # The reader's largest coordinate, 10 000 mm, has eight figures with three decimals.
        add_decimals(contour, "ContourData", [f"{value:.8g}" for value in np.round(flat, 3).tolist()])
        if image:
            contour.ContourImageSequence = [reference(*image)]
        yield contour


def _image_at(z_mm: float, given: Identity | None) -> tuple[str, str] | None:
    """Return the image of a plane, where the input says one."""
    images = given.image_at if given else {}
    return next((image for at, image in images.items() if abs(at - z_mm) <= SAME_PLANE_MM), None)


def _study(series: ImageSeries) -> Any:
    of_series = item(
        SeriesInstanceUID=series.series_uid,
        ContourImageSequence=[reference(*image) for image in series.images],
    )
    made = reference(*series.study)
    made.RTReferencedSeriesSequence = [of_series]
    return made


def _region(result: PlanResult, number: int, structure: Structure) -> Any:
    case = result.case
    how = case.derived.get(structure.role)
    region = item(
        ROINumber=number,
        ReferencedFrameOfReferenceUID=frame_uid(result),
        ROIName=structure.name[:64],
        ROIVolume=decimal(slab_volume_cc(structure)),
        # A phantom is computed; who contoured another input is not known here.
        ROIGenerationAlgorithm="AUTOMATIC" if how or case.phantom_seed is not None else "",
    )
    if how:
        region.ROIDescription = how[:1024]
        region.ROIGenerationDescription = f"derived by trocar {version('trocar')}, not contoured"[:64]
    elif case.phantom_seed is not None:
        region.ROIGenerationDescription = f"phantom {case.phantom_seed} of trocar {version('trocar')}"[:64]
    return region


def _description(result: PlanResult) -> str:
    given = input_structure_set(result)
    what = "Derived structures; the contoured ones are in the predecessor." if given else "All structures."
    return f"{what} Research software; not approved."
