"""Files that go wrong in one way each, written by hand so that no writer of ours stands between."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from trocar.v1 import planning_pb2_grpc

# One target of 32 x 32 x 40 mm on 1 x 1 x 5 mm voxels.
SIZES_XYZ = (40, 40, 10)
DIRECTIONS = "(1,0,0) (0,1,0) (0,0,5)"


def box_xyz() -> np.ndarray[Any, Any]:
    data = np.zeros(SIZES_XYZ, dtype=np.uint8)
    data[4:36, 4:36, 1:9] = 1
    return data


def seg_nrrd(
    *,
    name: str = "CTV",
    sizes: str = " ".join(map(str, SIZES_XYZ)),
    directions: str | None = DIRECTIONS,
    spacings: str | None = None,
    origin: str = "(0,0,0)",
    label: int = 1,
    data: bytes | None = None,
) -> bytes:
    """A segmentation of one segment, as 3D Slicer writes it."""
    body = box_xyz().tobytes(order="F") if data is None else data
    header = [
        "NRRD0004",
        "type: uint8",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {sizes}",
        *([f"space directions: {directions}"] if directions else []),
        *([f"spacings: {spacings}"] if spacings else []),
        "kinds: domain domain domain",
        "encoding: gzip",
        f"space origin: {origin}",
        f"Segment0_ID:={name}",
        f"Segment0_Name:={name}",
        f"Segment0_LabelValue:={label}",
        "Segment0_Layer:=0",
        "",
        "",
    ]
    return "\n".join(header).encode() + gzip.compress(body, mtime=0)


def rtstruct(
    *, kind: str = "CLOSED_PLANAR", frame: str = "1.2.3", points: int = 4, z_mm: float | str = 0.0
) -> bytes:
    """A structure set of one target; `frame` is what the ROI claims, the file's own is 1.2.3."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian

    plan = Dataset()
    plan.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    plan.SOPInstanceUID = "1.2.3.4"
    plan.Modality = "RTSTRUCT"
    reference = Dataset()
    reference.FrameOfReferenceUID = "1.2.3"
    plan.ReferencedFrameOfReferenceSequence = Sequence([reference])
    roi = Dataset()
    roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = 1, "CTV", frame
    plan.StructureSetROISequence = Sequence([roi])
    square = [(-15, -15), (15, -15), (15, 15), (-15, 15)][:points]
    contours = []
    for step in range(8):
        contour = Dataset()
        contour.ContourGeometricType = kind
        contour.NumberOfContourPoints = len(square)
        z = f"{step * 5.0}" if z_mm == 0.0 else f"{z_mm}"
        contour.ContourData = [text for x, y in square for text in (f"{x}", f"{y}", z)]
        contours.append(contour)
    item = Dataset()
    item.ReferencedROINumber, item.ContourSequence = 1, Sequence(contours)
    plan.ROIContourSequence = Sequence([item])
    plan.file_meta = FileMetaDataset()
    plan.file_meta.MediaStorageSOPClassUID = plan.SOPClassUID
    plan.file_meta.MediaStorageSOPInstanceUID = plan.SOPInstanceUID
    plan.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = io.BytesIO()
    plan.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@pytest.fixture(scope="session")
def make_seg_nrrd() -> Callable[..., bytes]:
    return seg_nrrd


@pytest.fixture(scope="session")
def make_rtstruct() -> Callable[..., bytes]:
    return rtstruct


@pytest.fixture
def stub(server: Any) -> Iterator[planning_pb2_grpc.PlanningServiceStub]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.target, options=options) as channel:
        yield planning_pb2_grpc.PlanningServiceStub(channel)
