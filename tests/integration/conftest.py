import io

import numpy as np
import pytest


def item(**fields):
    from pydicom.dataset import Dataset

    made = Dataset()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def file_of(dataset):
    from pydicom.dataset import FileMetaDataset

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@pytest.fixture(scope="session")
def rtstruct_file(tmp_path_factory):
    """A patient's structure set with a prostate and a rectum, of a planning system without images."""

    def drawn(number, x, y, radius):
        turn = np.linspace(0, 2 * np.pi, 80, endpoint=False)
        contours = []
        for z in np.arange(-20.0, 21.0, 5.0):
            points = np.column_stack([x + radius * np.cos(turn), y + radius * np.sin(turn), np.full(80, z)])
            figures = [f"{value:.3f}" for value in points.ravel()]
            contours.append(
                item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=80, ContourData=figures)
            )
        return item(ReferencedROINumber=number, ContourSequence=contours)

    names = {1: "Prostate", 2: "Rectum"}
    dataset = item(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3",
        SOPInstanceUID="1.2.3.4.5",
        StudyInstanceUID="1.2.77",
        PatientName="Test^Integration",
        PatientID="T-8",
        Modality="RTSTRUCT",
        ReferencedFrameOfReferenceSequence=[item(FrameOfReferenceUID="1.2.3.4")],
        StructureSetROISequence=[
            item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID="1.2.3.4")
            for number, name in names.items()
        ],
        ROIContourSequence=[drawn(1, 0.0, 0.0, 18.0), drawn(2, 0.0, 36.0, 14.0)],
    )
    path = tmp_path_factory.mktemp("case") / "RS.dcm"
    path.write_bytes(file_of(dataset))
    return path


@pytest.fixture(scope="session")
def hdr_files():
    """An HDR RT Plan on that structure set, three dwells of 40 s, and its RT Dose, 2 % too high."""
    from trocar.planners.dose.source import load_source
    from trocar.planners.io.rtplan import read_rtplan
    from trocar.planners.stated import dwell_dose_gy
    from trocar.planners.types import Grid

    points = []
    for index in range(6):
        place = ["0", "0", str(10 - 10 * (index // 2))]
        points.append(item(ControlPoint3DPosition=place, CumulativeTimeWeight=str(40 * ((index + 1) // 2))))
    channel = item(
        ChannelNumber=1,
        SourceApplicatorID="1",
        ChannelTotalTime="120",
        FinalCumulativeTimeWeight="120",
        ReferencedSourceNumber=1,
        BrachyControlPointSequence=points,
    )
    source = item(
        SourceNumber=1, SourceIsotopeName="Ir-192", SourceIsotopeHalfLife="73.83",
        ReferenceAirKermaRate="40000", SourceStrengthReferenceDate="20260101",
    )  # fmt: skip
    plan = file_of(
        item(
            SOPClassUID="1.2.840.10008.5.1.4.1.1.481.5",
            SOPInstanceUID="1.2.3.4.6",
            FrameOfReferenceUID="1.2.3.4",
            BrachyTreatmentType="HDR",
            ReferencedStructureSetSequence=[item(ReferencedSOPInstanceUID="1.2.3.4.5")],
            SourceSequence=[source],
            ApplicationSetupSequence=[item(ChannelSequence=[channel])],
            DoseReferenceSequence=[item(DoseReferenceType="TARGET", TargetPrescriptionDose="10")],
        )
    )
    grid = Grid((-27.0, -27.0, -27.0), (6.0, 6.0, 6.0), (10, 10, 10))
    dose_gy = 1.02 * dwell_dose_gy(read_rtplan(plan), load_source("ir192-gammamedplus"), grid)
    scaling = float(dose_gy.max()) / 65_000
    dose = item(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2",
        SOPInstanceUID="1.2.3.4.7",
        FrameOfReferenceUID="1.2.3.4",
        ReferencedRTPlanSequence=[item(ReferencedSOPInstanceUID="1.2.3.4.6")],
        ImageOrientationPatient=["1", "0", "0", "0", "1", "0"],
        ImagePositionPatient=["-27", "-27", "-27"],
        PixelSpacing=["6", "6"],
        NumberOfFrames=10,
        Rows=10,
        Columns=10,
        GridFrameOffsetVector=[str(6 * index) for index in range(10)],
        BitsAllocated=16,
        PixelRepresentation=0,
        DoseUnits="GY",
        DoseGridScaling=f"{scaling:.9e}",
        PixelData=np.rint(dose_gy / scaling).astype("<u2").tobytes(),
    )
    dose["PixelData"].VR = "OW"
    return plan, file_of(dose)


@pytest.fixture
def client(inference_server):
    """A tritonclient of the server that all share; modules that need another have their own."""
    from tritons import triton

    with triton.InferenceServerClient(inference_server.target) as opened:
        yield opened


@pytest.fixture(scope="session")
def image_bgr():
    """A rendered picture in the annotator's size; nobody changes it."""
    from trocar.video.annotator.renderer import render_frame

    image = np.ascontiguousarray(render_frame(11, (256, 448)).image_rgb[..., ::-1])
    image.flags.writeable = False
    return image
