import numpy as np
import pytest

from trocar.planners.geometry import (
    Margins,
    expand,
    fraction_on,
    rasterise_contours,
    slab_volume_cc,
)
from trocar.planners.types import Grid
from trocar.runtime.errors import InvalidInput


@pytest.fixture(scope="module")
def ball(make_circle):
    z = np.arange(-19.5, 20, 1.0)
    return rasterise_contours("ball", "ctv", [(at, make_circle(0, 0, np.sqrt(400 - at**2))) for at in z])


def test_an_even_margin_makes_a_larger_ball(ball):
    grown = expand(ball, Margins(3, 3, 3, 3, 3, 3), name="p", role="ptv")
    assert grown.role == "ptv"
    assert slab_volume_cc(grown) == pytest.approx(4 / 3 * np.pi * 23**3 / 1000, rel=0.012)


def reaches_mm(structure):
    """How far the structure reaches from the origin along -x, +x, -y, +y, -z, +z."""
    grid = Grid((-39.75, -39.75, -39.75), (0.5, 0.5, 0.5), (160, 160, 160))
    on = fraction_on(structure, grid)
    lines = (
        on[79:81, 79:81].mean(axis=(0, 1)),
        on[79:81, :, 79:81].mean(axis=(0, 2)),
        on[:, 79:81, 79:81].mean(axis=(1, 2)),
    )
    return np.array([0.5 * half.sum() for line in lines for half in (line[:80], line[80:])])


def test_each_side_moves_by_its_own_margin(ball):
    margins = Margins(left=2, right=4, anterior=6, posterior=0, superior=3, inferior=5)
    moved = reaches_mm(expand(ball, margins, name="p", role="ptv")) - reaches_mm(ball)
    # LPS: -x right, +x left, -y anterior, +y posterior, -z inferior, +z superior.
    assert moved == pytest.approx([4, 2, 6, 0, 5, 3], abs=0.3)


def test_no_margin_is_the_same_volume(ball):
    same = expand(ball, Margins(), name="p", role="ptv")
    assert slab_volume_cc(same) == pytest.approx(slab_volume_cc(ball), rel=0.01)


def test_the_result_holds_the_source(ball):
    grid = Grid((-30.0, -30.0, -30.0), (1.0, 1.0, 1.0), (61, 61, 61))
    grown = fraction_on(expand(ball, Margins(left=3, superior=3), name="p", role="ptv"), grid)
    # Sub-voxel jitter of the boundary aside.
    assert (fraction_on(ball, grid) - grown).max() < 0.4
    assert (fraction_on(ball, grid) > grown + 0.15).mean() < 0.002


def test_a_structure_of_no_organ_is_refused_before_memory_is_spent(make_circle):
    huge = rasterise_contours("body", "ctv", [(z, make_circle(0, 0, 190)) for z in np.arange(0.0, 301, 50)])
    with pytest.raises(
        InvalidInput, match=r'"body" is too large for a margin: 38[0-9] x 38[0-9] x 35[0-9] mm'
    ):
        expand(huge, Margins(), name="p", role="ptv")


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf, 31.0])
def test_margins_out_of_range(ball, bad):
    with pytest.raises(InvalidInput, match="margin posterior: expected 0 to 30 mm"):
        expand(ball, Margins(posterior=bad), name="p", role="ptv")
