import hashlib
import itertools

import numpy as np
import pytest

from trocar.planners.case import case_from_bytes, load_case
from trocar.planners.geometry import slab_volume_cc
from trocar.planners.io.segmentation import read_segmentation
from trocar.runtime.errors import InvalidInput

VOXEL_CC = 5.0 * 0.8 * 1.0 / 1000


def built(found, **roles):
    return found.build({role: found.names.index(name) for role, name in roles.items()})


def test_layers_values_and_names(make_nrrd, layers, segments):
    found = read_segmentation(make_nrrd(layers, segments))
    assert found.names == ("PTV", "Rectum", "Prostate")
    parts = built(found, ptv="PTV", rectum="Rectum", ctv="Prostate")
    assert parts.assumptions == ()
    for role, mask in (("ptv", layers[0] == 1), ("rectum", layers[0] == 2), ("ctv", layers[1] == 1)):
        part = parts.structures[role]
        assert slab_volume_cc(part) == pytest.approx(mask.sum() * VOXEL_CC)
        z, y, x = np.argwhere(mask).min(axis=0)
        # An empty slice below the first.
        assert not part.occupancy_zyx[0].any()
        assert part.z_mm[1] == 5.0 * z
        assert part.origin_xy_mm == pytest.approx((x * 1.0, y * 0.8))
        assert part.role == role


def test_orientation_does_not_matter(make_nrrd, layers, segments):
    reference = built(read_segmentation(make_nrrd(layers, segments)), ctv="Prostate").structures["ctv"]
    for axes, flips in itertools.product(
        [(0, 1, 2), (2, 0, 1), (1, 0, 2)], [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)]
    ):
        data = make_nrrd(layers, segments, axes=axes, flips=flips, space="RAS")
        part = built(read_segmentation(data), ctv="Prostate").structures["ctv"]
        np.testing.assert_array_equal(part.occupancy_zyx, reference.occupancy_zyx)
        np.testing.assert_allclose(part.z_mm, reference.z_mm)
        assert part.origin_xy_mm == pytest.approx(reference.origin_xy_mm)


def test_no_layer_and_no_value_mean_one_layer_each_and_one(make_nrrd, layers):
    separate = np.stack([layers[0] == 1, layers[1] == 1]).astype(np.uint8)
    found = read_segmentation(make_nrrd(separate, [{"ID": "p", "Name": "PTV"}, {"ID": "Prostate"}]))
    assert found.names == ("PTV", "Prostate")
    parts = built(found, ptv="PTV", ctv="Prostate").structures
    assert slab_volume_cc(parts["ctv"]) == pytest.approx((layers[1] == 1).sum() * VOXEL_CC)
    # One segment in three dimensions.
    found = read_segmentation(make_nrrd(separate[:1], [{"ID": "p", "Name": "PTV"}], list_axis=None))
    assert slab_volume_cc(built(found, ptv="PTV").structures["ptv"]) == pytest.approx(
        separate[0].sum() * VOXEL_CC
    )


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([{"Name": "a", "Layer": 2}], 'segment "a": layer 2 of 2 does not exist'),
        ([{"Name": "a", "Layer": -1}], "layer -1 of 2"),
        ([{"Name": "a", "Layer": "x"}], 'Segment0_Layer must be a whole number, got "x"'),
        ([{"Name": "a", "LabelValue": "1.5"}], "Segment0_LabelValue must be a whole number"),
        ([{"Name": "a", "LabelValue": 0}], "label value 0 is the background"),
        (
            [{"Name": "a", "Layer": 1}, {"Name": "b", "Layer": 1}],
            '"a" and "b" share layer 1 and label value 1',
        ),
    ],
)
def test_segments_that_make_no_sense(make_nrrd, layers, segments, message):
    with pytest.raises(InvalidInput, match=message):
        read_segmentation(make_nrrd(layers, segments))


def test_names_beyond_ascii(make_nrrd, layers):
    found = read_segmentation(make_nrrd(layers, [{"Name": "Próstata"}, {"Name": "前立腺", "Layer": 1}]))
    assert found.names == ("Próstata", "前立腺")


def test_a_structure_as_large_as_the_image_is_refused(make_nrrd):
    whole = np.ones((1, 350, 300, 300), np.uint8)
    found = read_segmentation(make_nrrd(whole, [{"Name": "CTV"}]))
    with pytest.raises(InvalidInput, match="spans 31500000 voxels, more than 30000000"):
        built(found, ctv="CTV")


def test_an_empty_segment(make_nrrd, layers):
    found = read_segmentation(make_nrrd(layers, [{"Name": "CTV", "LabelValue": 7, "Layer": 0}]))
    with pytest.raises(InvalidInput, match=r'structure "CTV" \(role ctv\) is empty'):
        built(found, ctv="CTV")


def test_a_label_map_asks_for_labels_and_says_what_it_holds(make_nrrd, layers):
    data = make_nrrd(layers[:1], [], list_axis=None)
    with pytest.raises(InvalidInput, match=r"--labels ctv=1,ptv=2; values found: 1, 2$"):
        read_segmentation(data)
    with pytest.raises(InvalidInput, match=r'label "ctv": no voxel has the value 9; values found: 1, 2$'):
        read_segmentation(data, labels={"ctv": 9})
    with pytest.raises(InvalidInput, match="0 is the background"):
        read_segmentation(data, labels={"ctv": 0})
    with pytest.raises(InvalidInput, match="needs a volume of one layer, this one has 2"):
        read_segmentation(make_nrrd(layers, []), labels={"ctv": 1})
    found = read_segmentation(data, labels={"ctv": 1, "rectum": 2})
    parts = built(found, ctv="ctv", rectum="rectum").structures
    assert slab_volume_cc(parts["rectum"]) == pytest.approx((layers[0] == 2).sum() * VOXEL_CC)


def test_labels_that_cannot_overlap_are_nested_again(make_nrrd):
    """One label per voxel: the PTV is a shell around the CTV, which is holed by the urethra."""
    flat = np.zeros((1, 8, 20, 24), np.uint8)
    flat[0, 1:7, 2:14, 3:19] = 2
    flat[0, 2:6, 4:12, 6:16] = 1
    flat[0, 2:8, 7:9, 10:12] = 3  # leaves the CTV, and the PTV, at the far end
    found = read_segmentation(make_nrrd(flat, [], list_axis=None), labels={"ctv": 1, "ptv": 2, "urethra": 3})
    parts = built(found, ctv="ctv", ptv="ptv", urethra="urethra")
    volumes = {role: slab_volume_cc(part) / VOXEL_CC for role, part in parts.structures.items()}
    assert volumes["ctv"] == pytest.approx(4 * 8 * 10)
    assert volumes["ptv"] == pytest.approx(6 * 12 * 16)
    assert volumes["urethra"] == pytest.approx(6 * 2 * 2)
    assert len(parts.assumptions) == 3
    assert parts.assumptions[1].startswith("PTV and ctv are labels of one layer, which cannot overlap")


def test_a_segmentation_file(make_nrrd, layers, segments, tmp_path):
    data = make_nrrd(layers, segments)
    path = tmp_path / "Patient 7.seg.nrrd"
    path.write_bytes(data)
    case = load_case(str(path))
    assert case.name == "Patient 7"
    assert case.input_sha256 == hashlib.sha256(data).hexdigest()
    assert {role: item.name for role, item in case.structures.items()} == {
        "ctv": "Prostate",
        "ptv": "PTV",
        "urethra": "urethra (assumed)",
        "rectum": "Rectum",
    }
    assert case_from_bytes(data, filename_hint="x.NRRD").name == "x"


def test_no_target_in_a_segmentation(make_nrrd, layers):
    data = make_nrrd(layers, [{"Name": "Heart", "Layer": 0}, {"Name": "Lung", "Layer": 1}])
    with pytest.raises(
        InvalidInput, match=r"no target structure \(prostate, CTV or PTV\) among: Heart, Lung$"
    ):
        case_from_bytes(data)
