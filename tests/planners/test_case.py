import numpy as np
import pytest

from trocar.planners.case import case_from_contours, complete_case, load_case
from trocar.planners.geometry import default_lattice, extent_mm, slab_volume_cc
from trocar.planners.types import Structure, Template
from trocar.runtime.errors import InvalidInput


def make_circle(x, y, radius):
    turn = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    return np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1)


@pytest.fixture(scope="module")
def gland():
    return [(z, make_circle(4.0, -3.0, 18.0)) for z in np.arange(0.0, 41.0, 5.0)]


def test_everything_given_assumes_nothing(gland):
    small = [(z, make_circle(4.0, -3.0, 3.0)) for z, _ in gland]
    case = case_from_contours(
        {"CTV": gland, "PTV": gland, "Urethra": small, "Rectum": gland, "Bladder": gland}
    )
    assert list(case.structures) == ["ctv", "ptv", "urethra", "rectum", "bladder"]
    assert case.assumptions == ()


def test_what_is_missing_is_derived_and_said(gland):
    case = case_from_contours({"Prostate": gland})
    assert list(case.structures) == ["ctv", "ptv", "urethra"]
    assert case.assumptions == (
        "No PTV was contoured: the CTV (45.8 cc) was grown by 3 mm, 0 mm posterior, to "
        f"{slab_volume_cc(case.structures['ptv']):.1f} cc.",
        "No urethra was contoured: a straight tube of 5 mm diameter along z through the CTV's centroid "
        "(x = 4.0, y = -3.0 mm) was assumed.",
        "No rectum was contoured: rectal dose was not checked.",
        "No bladder was contoured: bladder dose was not checked.",
    )
    before, after = extent_mm(case.structures["ctv"]), extent_mm(case.structures["ptv"])
    assert before.z_mm[0] - after.z_mm[0] == pytest.approx(3, abs=0.6)
    assert before.y_mm[0] - after.y_mm[0] == pytest.approx(3, abs=1.1)
    assert after.y_mm[1] - before.y_mm[1] == pytest.approx(0, abs=1.1)
    tube = case.structures["urethra"]
    assert slab_volume_cc(tube) == pytest.approx(np.pi * 2.5**2 * 45 / 1000, rel=0.01)
    assert extent_mm(tube).z_mm == pytest.approx(before.z_mm)


def test_a_ptv_alone_is_also_the_ctv(gland):
    case = case_from_contours({"PTV": gland, "Rectum": gland, "Bladder": gland, "Urethra": gland})
    assert case.structures["ctv"].role == "ctv"
    assert case.structures["ctv"].occupancy_zyx is case.structures["ptv"].occupancy_zyx
    assert case.assumptions == ("No CTV was contoured: the PTV (45.8 cc) was taken for it.",)


def test_gaps_and_a_ptv_smaller_than_the_ctv_are_said(gland):
    parted = [contour for contour in gland if contour[0] not in (15.0, 20.0)]
    small = [(z, make_circle(4.0, -3.0, 10.0)) for z, _ in gland]
    notes = case_from_contours({"CTV": parted, "PTV": small}).assumptions
    assert 'The ctv "CTV" has a gap between z = 12.5 and 22.5 mm, left empty.' in notes
    assert any(note.startswith("The PTV (14.1 cc) is smaller than the CTV") for note in notes)


def test_a_bridged_gap_is_said(gland):
    skipped = [contour for contour in gland if contour[0] != 15.0]
    notes = case_from_contours({"CTV": skipped}).assumptions
    assert any(
        '"CTV" is contoured every 5 mm except for 1 wider gap(s) of up to 10 mm' in note for note in notes
    )


def test_roles_can_be_overridden(gland):
    case = case_from_contours({"Target": gland, "Prostate": gland}, roles={"ctv": "Target"})
    assert case.structures["ctv"].name == "Target"
    with pytest.raises(InvalidInput, match=r"no target structure .* among: Target, Other"):
        case_from_contours({"Target": gland, "Other": gland})


def test_an_empty_structure_given_directly():
    empty = Structure("p", "ctv", np.zeros((3, 4, 4), np.float32), np.arange(3.0), (0, 0), (1, 1))
    with pytest.raises(InvalidInput, match='structure "p" is empty'):
        complete_case("c", {"ctv": empty})
    with pytest.raises(InvalidInput, match="no target structure"):
        complete_case("c", {})


@pytest.mark.parametrize(
    "spec",
    [
        "nowhere.seg.nrrd",
        "a\0b",
        "phantom:",
        "phantom:-1",
        "phantom:x",
        "phantom:1.5",
        "phantom:4294967296",
        "phantom:²",
    ],
)
def test_cases_that_are_not_there(spec):
    with pytest.raises(InvalidInput) as caught:
        load_case(spec)
    assert "\n" not in str(caught.value)


def test_the_clinical_cases(shared_dir):
    volumes = {"case1": (25.5, 40.7), "case2": (30.6, 48.4), "case3": (35.2, 48.0)}
    for name, (ctv_cc, ptv_cc) in volumes.items():
        case = load_case(str(shared_dir / f"cases/ldr_clinical/{name}.seg.nrrd"))
        assert slab_volume_cc(case.structures["ctv"]) == pytest.approx(ctv_cc, abs=0.05)
        assert slab_volume_cc(case.structures["ptv"]) == pytest.approx(ptv_cc, abs=0.06)
        assert len(case.assumptions) == 3
        # The template they were planned on holds them.
        lattice, notes = default_lattice(case, Template((2.5, 2.5), 5.0, 13, 10), None)
        assert (lattice.planes.z0_mm, lattice.planes.pitch_mm, len(notes)) == (0.0, 5.0, 1)


def test_the_older_slicer_file_lies_around_the_rectum_it_was_grown_from(shared_dir):
    folder = shared_dir / "cases/ebrt_prostate"
    grown = load_case(
        str(folder / "EclipseProstate_Expanded_5_5_5_Rectum.seg.nrrd"),
        roles={"ctv": "Expanded_5_5_5_Rectum"},
    ).structures["ctv"]
    rectum = load_case(str(folder / "label.nrrd"), labels={"ptv": 4, "rectum": 5}).structures["rectum"]
    outer, inner = extent_mm(grown), extent_mm(rectum)
    for around, within in ((outer.x_mm, inner.x_mm), (outer.y_mm, inner.y_mm), (outer.z_mm, inner.z_mm)):
        assert within[0] - around[0] == pytest.approx(5, abs=1.0)
        assert around[1] - within[1] == pytest.approx(5, abs=1.0)
