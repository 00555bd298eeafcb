import bz2
import gzip

import numpy as np
import pytest


def seg_nrrd(
    layers_lzyx,
    segments,
    *,
    spacing_zyx=(5.0, 0.8, 1.0),
    origin_xyz=(0.0, 0.0, 0.0),
    space="left-posterior-superior",
    flips=(1, 1, 1),
    axes=(0, 1, 2),
    list_axis=0,
    encoding="gzip",
    fields=None,
    extra="",
):
    """The bytes of an NRRD: `layers_lzyx` in patient LPS, stored flipped, permuted and in another space.

    `flips` reverses the file's x, y, z axes, `axes` is their order in the file, `list_axis` None stores one
    layer as 3D. `fields` replaces or (None) drops header lines.
    """
    layers = np.asarray(layers_lzyx)
    signs = {"left-posterior-superior": (1, 1, 1), "LPS": (1, 1, 1), "RAS": (-1, -1, 1), "LAS": (1, -1, 1)}
    signs = signs.get(space, (-1, -1, 1) if space.startswith("right") else (1, -1, 1))
    count_xyz = layers.shape[:0:-1]
    spacing_xyz = spacing_zyx[::-1]
    array = layers.transpose(0, 3, 2, 1)  # layer, x, y, z
    vectors, origin = [], []
    for axis in range(3):
        vector = np.zeros(3)
        vector[axis] = spacing_xyz[axis] * flips[axis] * signs[axis]
        start = origin_xyz[axis]
        if flips[axis] < 0:
            array = np.flip(array, axis=1 + axis)
            start += spacing_xyz[axis] * (count_xyz[axis] - 1)
        vectors.append(vector)
        origin.append(start * signs[axis])
    array = array.transpose(0, *(1 + axis for axis in axes))
    rows = [f"({','.join(f'{value:.12g}' for value in vectors[axis])})" for axis in axes]
    kinds = ["domain"] * 3
    if list_axis is None:
        array = array[0]
    else:
        array = np.moveaxis(array, 0, list_axis)
        rows.insert(list_axis, "none")
        kinds.insert(list_axis, "list")
    header = {
        "type": {"u1": "uint8", "u2": "uint16", "i2": "short", "f4": "float"}[array.dtype.str[1:]],
        "dimension": str(array.ndim),
        "space": space,
        "sizes": " ".join(map(str, array.shape)),
        "space directions": " ".join(rows),
        "kinds": " ".join(kinds),
        "endian": "little",
        "encoding": encoding,
        "space origin": f"({','.join(f'{value:.12g}' for value in origin)})",
    }
    header.update(fields or {})
    lines = ["NRRD0005", "# a comment"]
    lines += [f"{key}: {value}" for key, value in header.items() if value is not None]
    for number, segment in enumerate(segments):
        lines += [f"Segment{number}_{key}:={value}" for key, value in segment.items()]
    packed = array.tobytes(order="F")
    packed = {"gzip": gzip.compress, "bzip2": bz2.compress}.get(encoding, bytes)(packed)
    return "\n".join(lines).encode() + b"\n" + extra.encode() + b"\n" + packed


@pytest.fixture(scope="session")
def make_nrrd():
    return seg_nrrd


def prostate_layers():
    """Two layers (nz, ny, nx) = (8, 20, 24): a lopsided CTV within a PTV, and a rectum behind in layer 0."""
    layers = np.zeros((2, 8, 20, 24), np.uint8)
    layers[0, 1:7, 3:12, 4:18] = 1
    layers[0, 0:8, 14:19, 6:13] = 2
    layers[1, 2:6, 4:12, 6:15] = 1
    return layers


SEGMENTS = (
    {"ID": "a", "Name": "PTV", "Layer": 0, "LabelValue": 1, "Extent": "4 17 3 11 1 6"},
    {"ID": "b", "Name": "Rectum", "Layer": 0, "LabelValue": 2},
    {"ID": "c", "Name": "Prostate", "Layer": 1, "LabelValue": 1},
)


@pytest.fixture
def layers():
    return prostate_layers()


@pytest.fixture(scope="session")
def segments():
    return SEGMENTS


def circle(x, y, radius, count=90):
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1)


@pytest.fixture(scope="session")
def make_circle():
    return circle


def rtstruct(rois, *, frame="1.2.3.4", roi_frame=None, declare=True, change=None):
    """The bytes of an RT Structure Set. `rois`: name to a list of (type, (n, 3) points)."""
    import io

    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    dataset.SOPInstanceUID = "1.2.3.4.5"
    dataset.Modality = "RTSTRUCT"
    dataset.StructureSetLabel = "test"
    if declare:
        item = Dataset()
        item.FrameOfReferenceUID = frame
        dataset.ReferencedFrameOfReferenceSequence = Sequence([item])
    regions, drawn = [], []
    for number, (name, contours) in enumerate(rois.items() if isinstance(rois, dict) else rois, start=1):
        region = Dataset()
        region.ROINumber = number
        region.ROIName = name
        region.ReferencedFrameOfReferenceUID = frame if roi_frame is None else roi_frame
        regions.append(region)
        shape = Dataset()
        shape.ReferencedROINumber = number
        items = []
        for kind, points in contours:
            contour = Dataset()
            contour.ContourGeometricType = kind
            contour.NumberOfContourPoints = len(points)
            contour.ContourData = [f"{value:.4f}" for value in np.asarray(points, float).ravel()]
            items.append(contour)
        shape.ContourSequence = Sequence(items)
        drawn.append(shape)
    dataset.StructureSetROISequence = Sequence(regions)
    dataset.ROIContourSequence = Sequence(drawn)
    if change is not None:
        change(dataset)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@pytest.fixture(scope="session")
def make_rtstruct():
    return rtstruct


CT, STUDY_CLASS = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.3.1.2.3.1"
SLICES_MM = tuple(range(0, 31, 5))


def _name_and_refer(dataset):
    """A patient of a name, whose structure set refers to a CT series, plane by plane."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    def item(**fields):
        made = Dataset()
        for name, value in fields.items():
            setattr(made, name, value)
        return made

    dataset.PatientName, dataset.PatientID = "Doe^J", "42"
    dataset.PatientBirthDate, dataset.PatientSex = "19500101", "M"
    dataset.StudyInstanceUID = "1.2.77"
    images = [item(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID=f"1.2.77.8.{z + 1}") for z in SLICES_MM]
    series = item(SeriesInstanceUID="1.2.77.8", ContourImageSequence=Sequence(images))
    study = item(ReferencedSOPClassUID=STUDY_CLASS, ReferencedSOPInstanceUID="1.2.77")
    study.RTReferencedSeriesSequence = Sequence([series])
    dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence = Sequence([study])
    for drawn in dataset.ROIContourSequence:
        for contour, image in zip(drawn.ContourSequence, images, strict=True):
            contour.ContourImageSequence = Sequence([image])


@pytest.fixture(scope="session")
def patient_rtstruct():
    """A prostate alone, with a name and with images; ROI 1."""
    disc = circle(0, 0, 15)
    planes = [("CLOSED_PLANAR", np.column_stack([disc, np.full(90, z)])) for z in SLICES_MM]
    return rtstruct({"Prostate": planes}, change=_name_and_refer)


@pytest.fixture(scope="session")
def planned():
    """Plan a case, quickly."""
    from trocar.planners import intake, pipeline
    from trocar.planners.requests import Search, Settings

    def plan(case):
        request = intake.plan_request(Settings(), Search(moves=2000, chains=1, start="random"))
        return pipeline.plan_case(intake.read_case(case), request)

    return plan


@pytest.fixture(scope="session")
def phantom(planned):
    from trocar.planners.requests import CaseInput

    return planned(CaseInput(phantom_seed=4))


@pytest.fixture(scope="session")
def patient(planned, patient_rtstruct):
    from trocar.planners.requests import CaseInput

    return planned(CaseInput(rtstruct=patient_rtstruct, name="p.dcm"))
