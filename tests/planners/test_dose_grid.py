from __future__ import annotations

import numpy as np
import pytest

from trocar.planners.dose_grid import dose_on_grid
from trocar.planners.types import Grid
from trocar.runtime.errors import InvalidInput

COARSE = Grid((-10.0, 5.0, -20.0), (2.5, 2.0, 3.0), (9, 8, 7))


def linear(grid):
    z, y, x = grid.axes_zyx_mm
    return (3 * z[:, None, None] + 2 * y[:, None] - x + 200).astype(np.float32)


def test_a_linear_dose_is_reproduced_between_the_nodes():
    fine = Grid((-9.3, 5.5, -19.1), (0.7, 0.9, 1.1), (25, 14, 15))
    assert dose_on_grid(linear(COARSE), COARSE, fine) == pytest.approx(linear(fine), abs=1e-4)


def test_the_same_grid_gives_the_same_dose():
    dose = np.random.default_rng(0).random(COARSE.shape_zyx, dtype=np.float32)
    assert np.array_equal(dose_on_grid(dose, COARSE, COARSE), dose)


def test_the_middle_of_eight_nodes_is_their_mean():
    dose = np.arange(8, dtype=np.float32).reshape(2, 2, 2) ** 2
    unit = Grid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (2, 2, 2))
    centre = Grid((0.5, 0.5, 0.5), (1.0, 1.0, 1.0), (1, 1, 1))
    assert dose_on_grid(dose, unit, centre).item() == dose.mean()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shift_mm", [-0.1, 0.1])
def test_beyond_the_dose_grid_is_refused(axis, shift_mm):
    origin = list(COARSE.origin_xyz_mm)
    origin[2 - axis] += shift_mm
    moved = Grid(tuple(origin), COARSE.spacing_zyx_mm, COARSE.shape_zyx)
    with pytest.raises(InvalidInput, match=f"along {'zyx'[axis]}"):
        dose_on_grid(linear(COARSE), COARSE, moved)


def test_a_single_slice_answers_on_its_own_plane_only():
    sheet = Grid((0.0, 0.0, 4.0), (5.0, 1.0, 1.0), (1, 3, 3))
    dose = np.ones((1, 3, 3), dtype=np.float32)
    assert np.array_equal(dose_on_grid(dose, sheet, sheet), dose)
    with pytest.raises(InvalidInput, match="along z"):
        dose_on_grid(dose, sheet, Grid((0.0, 0.0, 5.0), (5.0, 1.0, 1.0), (1, 3, 3)))


def test_a_dose_of_another_shape_is_refused():
    with pytest.raises(InvalidInput, match="shape"):
        dose_on_grid(np.ones((2, 2, 2), dtype=np.float32), COARSE, COARSE)
