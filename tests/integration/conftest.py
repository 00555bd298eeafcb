import numpy as np
import pytest


@pytest.fixture(scope="session")
def rtstruct_file(tmp_path_factory):
    """A patient's structure set with a prostate and a rectum, of a planning system without images."""
    from pydicom.dataset import Dataset, FileMetaDataset

    def item(**fields):
        made = Dataset()
        for name, value in fields.items():
            setattr(made, name, value)
        return made

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
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path = tmp_path_factory.mktemp("case") / "RS.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path
