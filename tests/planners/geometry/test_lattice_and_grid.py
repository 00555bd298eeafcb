import numpy as np
import pytest

from trocar.planners.geometry import (
    anatomy,
    coverage_notes,
    default_lattice,
    evaluation_grid,
    rasterise_contours,
)
from trocar.planners.types import Case, Lattice, Planes, Structure, Template
from trocar.runtime.errors import InvalidInput


def box(role, x, y, z, *, pitch=5.0):
    """A block of 1 mm pixels between two corners; slices at `pitch` fill z exactly."""
    count = round((z[1] - z[0]) / pitch)
    occupancy = np.ones((count, y[1] - y[0], x[1] - x[0]), np.float32)
    at = z[0] + pitch * (np.arange(count) + 0.5)
    return Structure(role, role, occupancy, at, (x[0] + 0.5, y[0] + 0.5), (1.0, 1.0))


def case(**parts):
    return Case("c", {role: box(role, *sides) for role, sides in parts.items()})


PLAIN = case(ctv=((-20, 20), (-15, 15), (-20, 20)), ptv=((-23, 24), (-18, 15), (-22, 23)))


def test_the_default_template_is_centred_and_said():
    lattice, notes = default_lattice(PLAIN, None, None)
    template, planes = lattice.template, lattice.planes
    assert (template.pitch_mm, template.columns, template.rows) == (5.0, 13, 13)
    assert template.hole_xy_mm(6, 6) == (0.5, -1.5)
    assert template.label(6, 6) == "D4.0"
    # 45 mm of PTV from -22 to 23: nine slabs of 5 mm about 0.5.
    assert (planes.z0_mm, planes.pitch_mm, planes.count) == (-19.5, 5.0, 9)
    assert len(notes) == 2
    assert "13 x 13 holes at 5 mm" in notes[0]
    assert "9 planes at 5 mm from z = -19.50 mm" in notes[1]


def test_what_is_given_is_kept_and_nothing_said():
    template, planes = Template((-27.0, -20.0), 4.0, 14, 10), Planes(-22.0, 5.0, 10)
    lattice, notes = default_lattice(PLAIN, template, planes)
    assert (lattice.template, lattice.planes, notes) == (template, planes, [])


@pytest.mark.parametrize(
    ("template", "planes", "message"),
    [
        (
            Template((10.0, -20.0)),
            None,
            r"outside the template: PTV x = -23.0 to 24.0 mm, template x = 10.0 to 70.0",
        ),
        (
            Template((-30.0, 20.0)),
            None,
            r"outside the template: PTV y = -18.0 to 15.0 mm, template y = 20.0 to 80.0",
        ),
        (Template((-30.0, -30.0), 5.0, 13, 6), None, "outside the template: PTV y"),
        (
            None,
            Planes(-10.0, 5.0, 3),
            r"outside the planes: PTV z = -22.0 to 23.0 mm, planes z = -10.0 to 0.0",
        ),
        (Template((0.0, np.nan)), None, "template: a figure is not finite"),
        (Template((0.0, 0.0), 0.0), None, "template pitch: expected > 0 mm, got 0"),
        (Template((0.0, 0.0), -5.0), None, "template pitch: expected > 0 mm, got -5"),
        (Template((0.0, 0.0), 5.0, 0, 13), None, "template columns: expected 1 to 40, got 0"),
        (Template((0.0, 0.0), 5.0, 13, 41), None, "template rows: expected 1 to 40, got 41"),
        (None, Planes(0.0, -1.0, 3), "planes pitch: expected > 0 mm, got -1"),
        (None, Planes(np.inf, 5.0, 3), "planes: a figure is not finite"),
        (None, Planes(0.0, 5.0, 61), "planes count: expected 1 to 60, got 61"),
    ],
)
def test_lattices_that_do_not_do(template, planes, message):
    with pytest.raises(InvalidInput, match=message):
        default_lattice(PLAIN, template, planes)


@pytest.mark.parametrize(
    ("pitch", "step"), [(5.0, 1.0), (4.0, 1.0), (5.5, 5.5 / 6), (0.7, 0.7), (3.3, 0.825)]
)
def test_seed_positions_are_voxel_centres(pitch, step):
    lattice = Lattice(Template((-26.13, -20.71), pitch, 40, 40), Planes(-21.4, 5.0, 9))
    grid = evaluation_grid(PLAIN, lattice)
    assert grid.spacing_zyx_mm == pytest.approx((1.0, step, step))
    z, y, x = grid.axes_zyx_mm
    for axis, node in ((x, -26.13 + 7 * pitch), (y, -20.71 + 3 * pitch), (z, -21.4 + 10.0)):
        index = (node - axis[0]) / (axis[1] - axis[0])
        assert index == pytest.approx(round(index), abs=1e-9)
    # The PTV and 6 mm around it lie within.
    assert x[0] <= -29
    assert x[-1] >= 30
    assert z[0] <= -28
    assert z[-1] >= 29


def test_far_organs_are_cut_and_said():
    long = case(
        ctv=((-20, 20), (-15, 15), (-20, 20)),
        ptv=((-20, 20), (-15, 15), (-20, 20)),
        rectum=((-15, 15), (17, 40), (-80, 80)),
        bladder=((-20, 20), (-15, 15), (60, 90)),
    )
    lattice, _ = default_lattice(long, None, None)
    grid = evaluation_grid(long, lattice)
    z, y, _ = grid.axes_zyx_mm
    assert z[0] == pytest.approx(-36, abs=1.01)
    assert y[-1] == pytest.approx(31, abs=1.01)
    notes = coverage_notes(long, anatomy(long, grid))
    assert len(notes) == 2
    assert notes[0].startswith("Of the rectum (110.4 cc) the ")
    assert notes[1].startswith("Of the bladder (36.0 cc) the 0.0 cc")


def test_a_grid_too_large_is_refused():
    lattice, _ = default_lattice(PLAIN, None, None)
    with pytest.raises(InvalidInput, match="use a coarser grid"):
        evaluation_grid(PLAIN, lattice, spacing_mm=0.05)
    for bad in (0.0, -1.0, np.nan):
        with pytest.raises(InvalidInput, match="grid spacing: expected > 0 mm"):
            evaluation_grid(PLAIN, lattice, spacing_mm=bad)


def test_a_rasterised_target_is_covered(make_circle):
    solid = rasterise_contours("p", "ptv", [(z, make_circle(3, 4, 20)) for z in np.arange(0.0, 41, 5)])
    lattice, _ = default_lattice(Case("c", {"ptv": solid, "ctv": solid}), None, None)
    assert lattice.template.hole_xy_mm(6, 6) == pytest.approx((3.0, 4.0), abs=0.5)
    assert (lattice.planes.z0_mm, lattice.planes.count) == (0.0, 9)
