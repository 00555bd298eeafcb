"""The DICOM files that a DVH tool reads: round structures in a dose."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from trocar.planners.types import Float32Array, Grid

_FRAME = "1.2.826.0.1.3680043.8.498.1"
_POINTS = 120
# Name to centre x, y, z and radius, mm.
Balls = Mapping[str, tuple[float, float, float, float]]


def rtstruct(balls: Balls, spacing_mm: float) -> bytes:
    """An RT Structure Set of balls, a contour every `spacing_mm`; ROI numbers count from 1."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    dataset = _dataset("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT")
    dataset.StructureSetLabel = "balls"
    regions, drawn = [], []
    for number, (name, ball) in enumerate(balls.items(), 1):
        region, shape = Dataset(), Dataset()
        region.ROINumber = shape.ReferencedROINumber = number
        region.ROIName = name
        region.ReferencedFrameOfReferenceUID = _FRAME
        shape.ROIDisplayColor = [255, 0, 0]
        shape.ContourSequence = Sequence(_contours(ball, spacing_mm))
        regions.append(region)
        drawn.append(shape)
    frame = Dataset()
    frame.FrameOfReferenceUID = _FRAME
    dataset.ReferencedFrameOfReferenceSequence = Sequence([frame])
    dataset.StructureSetROISequence = Sequence(regions)
    dataset.ROIContourSequence = Sequence(drawn)
    dataset.RTROIObservationsSequence = Sequence([])
    return _bytes(dataset)


def rtdose(dose_gy: Float32Array, grid: Grid) -> bytes:
    """An RT Dose of 16 bits a voxel, Gy."""
    dataset = _dataset("1.2.840.10008.5.1.4.1.1.481.2", "RTDOSE")
    nz, ny, nx = grid.shape_zyx
    dz, dy, dx = grid.spacing_zyx_mm
    dataset.ImagePositionPatient = list(grid.origin_xyz_mm)
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [dy, dx]
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = nz, ny, nx
    dataset.GridFrameOffsetVector = [dz * k for k in range(nz)]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.DoseUnits, dataset.DoseType, dataset.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    scale = float(dose_gy.max()) / 65535
    dataset.DoseGridScaling = f"{scale:.10g}"
    dataset.PixelData = np.rint(dose_gy / scale).astype("<u2").tobytes()
    return _bytes(dataset)


def _contours(ball: tuple[float, float, float, float], spacing_mm: float) -> list[Any]:
    from pydicom.dataset import Dataset

    x, y, z, radius = ball
    turn = np.linspace(0, 2 * np.pi, _POINTS, endpoint=False)
    first, last = np.ceil((z - radius) / spacing_mm), np.floor((z + radius) / spacing_mm)
    found = []
    for at in spacing_mm * np.arange(first, last + 1):
        across = np.sqrt(max(radius**2 - (at - z) ** 2, 0.01))
        points = np.stack(
            [x + across * np.cos(turn), y + across * np.sin(turn), np.full(_POINTS, at)], axis=1
        )
        contour = Dataset()
        contour.ContourGeometricType = "CLOSED_PLANAR"
        contour.NumberOfContourPoints = _POINTS
        contour.ContourData = [f"{value:.3f}" for value in points.ravel()]
        found.append(contour)
    return found


def _dataset(sop_class: str, modality: str) -> Any:
    from pydicom.dataset import Dataset
    from pydicom.uid import generate_uid

    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = sop_class, generate_uid(), modality
    dataset.FrameOfReferenceUID = _FRAME
    dataset.PatientName = dataset.PatientID = "balls"
    return dataset


def _bytes(dataset: Any) -> bytes:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
