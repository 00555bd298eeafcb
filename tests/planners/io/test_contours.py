import numpy as np
import pytest

from trocar.planners.case import case_from_contours
from trocar.planners.geometry import slab_volume_cc
from trocar.runtime.errors import InvalidInput

SQUARE = [[0, 0], [30, 0], [30, 20], [0, 20]]
BLOCK = [(z, SQUARE) for z in (0.0, 5.0, 10.0)]


def test_lists_and_arrays_are_one_case():
    as_lists = case_from_contours({"Prostate": BLOCK})
    as_arrays = case_from_contours({"Prostate": [(z, np.array(points, np.float32)) for z, points in BLOCK]})
    assert slab_volume_cc(as_lists.structures["ctv"]) == pytest.approx(9.0, rel=1e-3)
    assert as_lists.input_sha256 == as_arrays.input_sha256
    assert as_lists.name == "request"


def test_the_digest_follows_the_contours_not_their_names_order():
    one = case_from_contours({"CTV": BLOCK, "Rectum": BLOCK})
    other = case_from_contours({"Rectum": BLOCK, "CTV": BLOCK})
    moved = case_from_contours({"CTV": BLOCK, "Rectum": [(z, np.add(points, 1e-9)) for z, points in BLOCK]})
    assert one.input_sha256 == other.input_sha256 != moved.input_sha256


@pytest.mark.parametrize(
    ("contours", "message"),
    [
        ({}, "no target structure .* among: none"),
        ({"Prostate": []}, "is empty"),
        ({"Prostate": [(0.0, SQUARE[:2])]}, r"3 points \(x, y\) or more, got shape \(2, 2\)"),
        ({"Prostate": [(0.0, [[0, 0, 0]] * 4)]}, r"got shape \(4, 3\)"),
        ({"Prostate": [(0.0, "abc")]}, "got shape"),
        ({"Prostate": [(0.0, [[0, 0], [1], [2, 2]])]}, "got shape"),
        ({"Prostate": [(0.0, [[0, 0], [1, np.nan], [2, 2]])]}, "not finite"),
        ({"Prostate": [(float("inf"), SQUARE)]}, "not finite"),
        ({"Prostate": [(0.0, np.multiply(SQUARE, 1e6))]}, "beyond 10000 mm"),
        ({"Prostate": [(0.0, SQUARE)]}, "one plane only"),
    ],
)
def test_contours_that_do_not_do(contours, message):
    with pytest.raises(InvalidInput, match=message):
        case_from_contours(contours)
