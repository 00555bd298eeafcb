import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement

from trocar.planners.case import case_from_bytes, load_case
from trocar.planners.geometry import slab_volume_cc
from trocar.runtime.errors import InvalidInput

PLANES = np.arange(0.0, 41.0, 5.0)


@pytest.fixture(scope="module")
def disc(make_circle):
    def make(z, x=0.0, y=0.0, radius=15.0, kind="CLOSED_PLANAR"):
        xy = make_circle(x, y, radius)
        return kind, np.column_stack([xy, np.full(len(xy), z)])

    return make


@pytest.fixture(scope="module")
def prostate(disc):
    return [disc(z) for z in PLANES]


def test_a_cylinder(make_rtstruct, prostate):
    data = make_rtstruct({"Prostate": prostate, "needle 1": [("OPEN_NONPLANAR", np.eye(3))]})
    case = case_from_bytes(data, filename_hint="plan.dcm")
    assert case.name == "plan"
    assert slab_volume_cc(case.structures["ctv"]) == pytest.approx(np.pi * 225 * 45 / 1000, rel=0.003)
    assert len(case.input_sha256) == 64


def test_holes_parts_points_and_uneven_planes(make_rtstruct, disc):
    contours = []
    for z in (10.0, 0.0, 1.0, 3.0, 6.0):  # in no order
        contours += [disc(z), disc(z, radius=4.0), disc(z, x=30.0, radius=5.0), ("POINT", [[0.0, 0.0, z]])]
    case = case_from_bytes(make_rtstruct({"CTV": contours}))
    ctv = case.structures["ctv"]
    assert ctv.z_mm.tolist() == [0.0, 1.0, 3.0, 6.0, 10.0]
    truth = np.pi * (225 - 16 + 25) * (10.0 + 0.5 + 2.0) / 1000
    assert slab_volume_cc(ctv) == pytest.approx(truth, rel=0.004)


def test_the_vitesse_phantom(shared_dir):
    """Volumes against the shoelace area of every contour times the 1 mm slices."""
    import pydicom

    path = shared_dir / "cases/hdr_phantom/SS001.dcm"
    dataset = pydicom.dcmread(path)
    numbers = {str(region.ROIName): region.ROINumber for region in dataset.StructureSetROISequence}
    case = load_case(str(path.parent))
    assert [note.split()[1] for note in case.assumptions] == ["PTV", "bladder"]
    for name, role in (("Prostate", "ctv"), ("Urethra", "urethra"), ("Rectum", "rectum")):
        item = next(item for item in dataset.ROIContourSequence if item.ReferencedROINumber == numbers[name])
        truth = 0.0
        for contour in item.ContourSequence:
            x, y, _ = np.array(contour.ContourData, float).reshape(-1, 3).T
            truth += 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 1000
        assert slab_volume_cc(case.structures[role]) == pytest.approx(truth, rel=0.003)
        assert case.structures[role].name == name


def refused(data, message, **options):
    with pytest.raises(InvalidInput, match=message) as caught:
        case_from_bytes(data, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["OPEN_PLANAR", "OPEN_NONPLANAR", "", "CLOSED"])
def test_an_open_contour(make_rtstruct, prostate, disc, kind):
    data = make_rtstruct({"Prostate": [*prostate, disc(45.0, kind=kind)]})
    refused(data, 'structure "Prostate" has an open contour')


def test_frames_of_reference(make_rtstruct, prostate):
    drawn = {"Prostate": prostate}
    refused(
        make_rtstruct(drawn, roi_frame="9.9.9"), 'frame of reference "9.9.9", which the file does not declare'
    )
    refused(make_rtstruct(drawn, roi_frame=""), 'frame of reference "", which')
    refused(make_rtstruct(drawn, declare=False), "declares no frame of reference")

    def two_frames(dataset):
        from pydicom.dataset import Dataset

        item = Dataset()
        item.FrameOfReferenceUID = "5.6"
        dataset.ReferencedFrameOfReferenceSequence.append(item)
        dataset.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = "5.6"

    data = make_rtstruct({"Prostate": prostate, "Rectum": prostate}, change=two_frames)
    refused(data, "Prostate, Rectum are in different frames of reference")
    assert "rectum" not in case_from_bytes(data, roles={"rectum": "none"}).structures


def test_tilted_short_and_broken_contours(make_rtstruct, prostate, disc):
    kind, tilted = disc(50.0)
    tilted = tilted + np.outer(tilted[:, 0], [0, 0, 0.1])
    refused(
        make_rtstruct({"CTV": [*prostate, (kind, tilted)]}), "not in an axial plane: z = 48.50 to 51.50 mm"
    )
    refused(make_rtstruct({"CTV": [*prostate, (kind, tilted[:2])]}), "a contour of 6 figures")
    far = [disc(z, x=1e5) for z in PLANES]
    refused(make_rtstruct({"CTV": far}), "beyond 10000 mm")

    def shorten(dataset):
        dataset.ROIContourSequence[0].ContourSequence[0].NumberOfContourPoints = 91

    refused(make_rtstruct({"CTV": prostate}, change=shorten), "claims 91 points and holds 90")


@pytest.mark.parametrize("figure", ["nan", "inf", "1e999", "abc"])
def test_figures_that_are_none(make_rtstruct, prostate, figure):
    data = make_rtstruct({"CTV": prostate})
    whole = b"15.0000\\0.0000\\0.0000"
    assert whole in data
    broken = figure.ljust(7).encode() + whole[7:]
    refused(data.replace(whole, broken, 1), "not finite|not figures")


def test_nothing_to_plan(make_rtstruct, prostate):
    refused(
        make_rtstruct({"Bowel": prostate, "Heart": prostate}), r"no target structure .* among: Bowel, Heart$"
    )
    refused(make_rtstruct({"Prostate": []}), r'structure "Prostate" \(role ctv\) is empty')
    refused(make_rtstruct({"Prostate": prostate[:1]}), "one plane only")
    refused(make_rtstruct({}), "no structures")
    refused(make_rtstruct([("Prostate", prostate), ("Prostate", prostate)]), "fit equally well")

    def drop(dataset):
        del dataset.ROIContourSequence

    refused(make_rtstruct({"Prostate": prostate}, change=drop), "ROI Contour Sequence is missing")


def test_names_from_a_file_stay_on_one_line(make_rtstruct, prostate):
    refused(make_rtstruct({"evil\nname" + "x" * 80: prostate}), r"among: evil name(x)+\.\.\.$")


def test_other_dicom_and_garbage(make_rtstruct, prostate):
    def image(dataset):
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"

    refused(make_rtstruct({"CTV": prostate}, change=image), "got 1.2.840.10008.5.1.4.1.1.2")
    refused(bytes(128) + b"DICM" + b"\xff" * 500, "RTSTRUCT")
    refused(b"\x00" * 400, "neither NRRD nor DICOM")
    refused(b"", "empty")
    deflated = make_rtstruct({"CTV": prostate}).replace(
        b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99", 1
    )
    refused(deflated, "deflated transfer syntax")


OWNERS = {
    "StudyInstanceUID": lambda dataset: dataset,
    "FrameOfReferenceUID": lambda dataset: dataset,
    "ROIName": lambda dataset: dataset.StructureSetROISequence[0],
    "ReferencedFrameOfReferenceUID": lambda dataset: dataset.StructureSetROISequence[0],
    "ContourGeometricType": lambda dataset: dataset.ROIContourSequence[0].ContourSequence[0],
    "NumberOfContourPoints": lambda dataset: dataset.ROIContourSequence[0].ContourSequence[0],
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("keyword", OWNERS)
def test_a_value_that_is_a_deep_sequence_is_refused_at_once(make_rtstruct, prostate, keyword):
    """As a text, for a message or a comparison, it would take pydicom minutes."""
    tag = tag_for_keyword(keyword)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    body = b""
    for _ in range(3000):
        body = struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body
        inner, body = body, head + b"SQ" + struct.pack("<HI", 0, len(body)) + body

    def change(dataset):
        # pydicom would not write sequences so deep; bytes it does.
        OWNERS[keyword](dataset)[keyword] = DataElement(tag, "OB", inner)

    data = make_rtstruct({"CTV": prostate}, change=change)
    assert data.count(head + b"OB") == 1
    refused(data.replace(head + b"OB", head + b"SQ"), f"{keyword}: expected a value, got a sequence")


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_never_worse(make_rtstruct, prostate, data):
    whole = bytearray(make_rtstruct({"Prostate": prostate, "Rectum": prostate}))
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole)))]
    for _ in range(data.draw(st.integers(0, 5))):
        if whole:
            # Most damage where structure is: tags, lengths and sequences lie at the beginning.
            at = data.draw(st.integers(0, min(len(whole), 2000) - 1))
            whole[at] = data.draw(st.integers(0, 255))
    try:
        case = case_from_bytes(bytes(whole))
    except InvalidInput as error:
        message = str(error)
    else:
        message = ""
        assert "ctv" in case.structures
    assert "\n" not in message


def test_folders(make_rtstruct, prostate, tmp_path):
    with pytest.raises(InvalidInput, match="found none among 0 files"):
        load_case(str(tmp_path))
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / "garbage.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 64)

    def image(dataset):
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"

    (tmp_path / "ct.dcm").write_bytes(make_rtstruct({"CTV": prostate}, change=image))
    (tmp_path / "rs").write_bytes(make_rtstruct({"CTV": prostate}))
    (tmp_path / "sub").mkdir()
    case = load_case(str(tmp_path))
    assert case.name == "rs"
    (tmp_path / "second.dcm").write_bytes(make_rtstruct({"CTV": prostate}))
    with pytest.raises(InvalidInput, match=r"found rs, second\.dcm among 5 files"):
        load_case(str(tmp_path))
