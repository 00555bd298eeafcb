import json

import numpy as np
import pytest

from trocar.planners.geometry import rasterise_contours, slab_volume_cc
from trocar.runtime.errors import InvalidInput

SQUARE = np.array([[0, 0], [30, 0], [30, 20], [0, 20]], float)


@pytest.mark.parametrize("pixel_mm", [None, 0.37, 1.0])
def test_a_box_by_hand(pixel_mm):
    box = rasterise_contours("b", "ctv", [(5.0, SQUARE), (0.0, SQUARE)], pixel_mm=pixel_mm)
    assert box.z_mm.tolist() == [0.0, 5.0]
    assert slab_volume_cc(box) == pytest.approx(30 * 20 * 10 / 1000, rel=1e-3)
    y, x = (box.occupancy_zyx[0].sum(axis=axis) for axis in (1, 0))
    centre_x = box.origin_xy_mm[0] + box.spacing_yx_mm[1] * (x @ np.arange(len(x))) / x.sum()
    centre_y = box.origin_xy_mm[1] + box.spacing_yx_mm[0] * (y @ np.arange(len(y))) / y.sum()
    assert (centre_x, centre_y) == pytest.approx((15.0, 10.0), abs=0.02)


def test_holes_and_several_contours_on_uneven_planes(make_circle):
    ring = [make_circle(0, 0, 12), make_circle(1, 0, 6)]
    contours = [(z, polygon) for z in (0.0, 1.0, 2.5, 5.0) for polygon in ring]
    # The plane of z = 5 also has a second part, its figure written a hair off.
    contours.append((5.004, make_circle(30, 0, 5)))
    solid = rasterise_contours("r", "rectum", contours)
    assert len(solid.z_mm) == 4
    area = solid.occupancy_zyx.sum(axis=(1, 2)) * np.prod(solid.spacing_yx_mm)
    np.testing.assert_allclose(area[:3], np.pi * (144 - 36), rtol=3e-3)
    assert area[3] == pytest.approx(np.pi * (144 - 36 + 25), rel=3e-3)


@pytest.mark.parametrize(
    ("contours", "message"),
    [
        ([], "no closed contour"),
        ([(0.0, SQUARE)], "one plane only"),
        ([(0.0, SQUARE[:2]), (5.0, SQUARE)], "needs 3 points"),
        ([(np.nan, SQUARE), (5.0, SQUARE)], "not finite"),
        ([(0.0, SQUARE * np.nan), (5.0, SQUARE)], "not finite"),
        ([(0.0, SQUARE * [1, 0]), (5.0, SQUARE * [1, 0])], "encloses no area"),
        ([(float(z), SQUARE * 300) for z in range(60)], "pixels"),
        ([(0.0, SQUARE), (5.0, np.tile([[0, 0], [1, 9000]], (3000, 1)))], "cross .* scan lines"),
    ],
)
def test_contours_that_do_not_do(contours, message):
    with pytest.raises(InvalidInput, match=message):
        rasterise_contours("b", "ctv", contours)


# CERR, SlicerRT and Eclipse in turn. CERR takes slices as slabs, as we do; the other two taper the ends.
@pytest.mark.parametrize(
    ("name", "cerr_cc", "slicerrt_cc"), [("PTV", 49.2143, 48.6133), ("Bladder", 117.6714, 116.779)]
)
def test_eclipse_prostate_volumes(shared_dir, name, cerr_cc, slicerrt_cc):
    drawn = json.loads((shared_dir / "cases/ebrt_prostate/contours_LPS_mm.json").read_text())[name]
    solid = rasterise_contours(name, "ptv", [(contour[0][2], np.array(contour)[:, :2]) for contour in drawn])
    assert slab_volume_cc(solid) == pytest.approx(cerr_cc, rel=0.005)
    assert slab_volume_cc(solid) == pytest.approx(slicerrt_cc, rel=0.0125)
