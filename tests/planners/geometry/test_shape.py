import time
from dataclasses import replace

import numpy as np
import pytest

from trocar.planners.geometry import (
    anatomy,
    extent_mm,
    fraction_on,
    runs,
    signed_distance_mm,
    slab_volume_cc,
)
from trocar.planners.types import Case, Grid, Structure
from trocar.runtime.errors import InvalidInput

GRID = Grid((-40.0, -40.0, -40.0), (1.0, 1.0, 1.0), (80, 80, 80))
FINE = 8


def stack(inside, *, pixel, z_mm, half_mm, origin=0.0, binary=False):
    """Slices of a solid given as a test of points, with partial pixels unless binary."""
    centre = origin + np.arange(-half_mm, half_mm + pixel, pixel)
    fine = (centre[:, None] + pixel * ((np.arange(FINE) + 0.5) / FINE - 0.5)).ravel()
    slices = []
    for z in z_mm:
        hit = np.broadcast_to(inside(fine[None, :], fine[:, None], z), (len(fine), len(fine)))
        slices.append(hit.reshape(len(centre), FINE, len(centre), FINE).mean(axis=(1, 3)))
    occupancy = np.array(slices, np.float32)
    if binary:
        occupancy = (occupancy >= 0.5).astype(np.float32)
    return Structure(
        "solid", "ctv", occupancy, np.asarray(z_mm, float), (centre[0], centre[0]), (pixel, pixel)
    )


def ellipsoid(a, b, c):
    return lambda x, y, z: (x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2 <= 1.0


def volume_cc(structure, grid=GRID):
    return float(fraction_on(structure, grid).sum(dtype=np.float64)) * grid.voxel_cc


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("pixel", [0.5, 1.0])
@pytest.mark.parametrize("pitch", [1.0, 2.5, 5.0])
@pytest.mark.parametrize("half_axes", [(20.0, 20.0, 20.0), (25.0, 18.0, 22.0)])
def test_ellipsoids_keep_their_volume(half_axes, pitch, pixel, binary):
    truth = 4 / 3 * np.pi * np.prod(half_axes) / 1000
    errors = []
    for offset in (0.0, 0.2, 0.4, 0.6, 0.8):
        z = np.arange(-30.0, 30.0 + pitch, pitch) + offset * pitch
        solid = stack(ellipsoid(*half_axes), pixel=pixel, z_mm=z, half_mm=28, origin=0.17, binary=binary)
        measured = volume_cc(solid)
        assert measured == pytest.approx(slab_volume_cc(solid), rel=0.004)
        errors.append(measured / truth - 1)
    # Five-millimetre slabs of a ball are 1.6 % off where a slice just touches the pole, whoever sums them.
    assert np.abs(errors).max() <= 0.018
    assert abs(np.mean(errors)) <= 0.005


@pytest.mark.parametrize("pitch", [1.0, 2.5, 5.0])
@pytest.mark.parametrize("lean", [0.0, 0.3, 0.6])
def test_a_thin_tube_keeps_its_volume_however_it_leans(pitch, lean):
    # A urethra: 2.5 mm radius; 0.6 is 31 degrees, so that 5 mm slices lie more than a radius apart.
    z = np.arange(-20.0, 20.0 + pitch, pitch)
    tube = stack(
        lambda x, y, z: (x - lean * z) ** 2 + y**2 <= 2.5**2, pixel=0.5, z_mm=z, half_mm=20, origin=0.1
    )
    truth = np.pi * 2.5**2 * (40.0 + pitch) / 1000
    assert volume_cc(tube) == pytest.approx(truth, rel=0.005)


def test_uneven_slices():
    z = np.array([-20, -19, -17.5, -12.5, -10, -5, -2.5, 0, 4, 8, 12, 13, 17, 18.5, 19.5])
    solid = stack(ellipsoid(20, 20, 20), pixel=1.0, z_mm=z, half_mm=22)
    assert len(runs(solid)) == 1
    assert volume_cc(solid) == pytest.approx(4 / 3 * np.pi * 8, rel=0.015)


def test_a_cylinder_ends_half_a_slice_beyond_its_last_contour():
    z = np.array([0.0, 5.0, 10.0])
    tube = stack(lambda x, y, _: x**2 + y**2 <= 100, pixel=1.0, z_mm=z, half_mm=12)
    grid = Grid((-15.0, -15.0, -6.0), (1.0, 1.0, 1.0), (24, 31, 31))
    by_plane = fraction_on(tube, grid).sum(axis=(1, 2)) / (np.pi * 100)
    planes = dict(zip(grid.axes_zyx_mm[0], by_plane, strict=True))
    assert planes[-3] == 0.0
    # The voxel at -2 reaches from -2.5, the one at -3 ends there.
    assert planes[-2] == pytest.approx(1.0, abs=0.01)
    assert planes[12] == pytest.approx(1.0, abs=0.01)
    assert planes[13] == 0.0
    moved = replace(grid, origin_xyz_mm=(-15.0, -15.0, -6.25))
    by_plane = fraction_on(tube, moved).sum(axis=(1, 2)) / (np.pi * 100)
    # The voxel from -2.75 to -1.75 is three quarters inside.
    assert by_plane[4] == pytest.approx(0.75, abs=0.01)


def test_an_empty_slice_parts_a_stack_and_so_does_a_wide_gap():
    occupancy = np.ones((6, 4, 4), np.float32)
    occupancy[3] = 0.0
    solid = Structure("s", "ctv", occupancy, np.arange(6) * 5.0, (0, 0), (1, 1))
    low, high = runs(solid)
    assert (low.low_mm, low.high_mm, high.low_mm, high.high_mm) == (-2.5, 12.5, 17.5, 27.5)

    full = np.ones((6, 4, 4), np.float32)
    skipped = Structure("s", "ctv", full, np.array([0.0, 5, 10, 20, 25, 30]), (0, 0), (1, 1))
    assert len(runs(skipped)) == 1
    parted = Structure("s", "ctv", full, np.array([0.0, 5, 10, 30, 35, 40]), (0, 0), (1, 1))
    assert [(run.low_mm, run.high_mm) for run in runs(parted)] == [(-2.5, 12.5), (27.5, 42.5)]
    assert slab_volume_cc(parted) == pytest.approx(16 * 30 / 1000)
    denser = Structure("s", "ctv", full, np.array([0.0, 1, 2, 3, 8, 13]), (0, 0), (1, 1))
    assert len(runs(denser)) == 1


def test_a_lobe_that_ends_does_not_drag_the_other():
    # Two bars on the lower slices, one on the upper: the one that goes on stays where it is.
    def bars(x, y, z):
        right = np.hypot(x - 12, y) <= 5
        return right | ((np.hypot(x + 12, y) <= 5) & (z < 1))

    solid = stack(bars, pixel=0.5, z_mm=np.array([0.0, 5.0, 10.0]), half_mm=20)
    on = fraction_on(solid, GRID)
    z, _, x = GRID.axes_zyx_mm
    between = on[(z > 0.5) & (z < 4.5)][:, :, x > 5]
    centre = (between.sum(axis=(0, 1)) @ x[x > 5]) / between.sum()
    assert centre == pytest.approx(12.0, abs=0.1)
    assert between.sum(axis=(1, 2)) == pytest.approx(np.pi * 25, rel=0.12)


def test_a_hole_stays_open():
    solid = stack(
        lambda x, y, _: (np.hypot(x, y) <= 12) & (np.hypot(x, y) >= 8),
        pixel=0.5,
        z_mm=np.arange(-10.0, 11.0, 5.0),
        half_mm=14,
    )
    on = fraction_on(solid, GRID)
    assert on[40, 40, 40] == 0.0
    assert volume_cc(solid) == pytest.approx(np.pi * (144 - 64) * 25 / 1000, rel=0.01)


def test_the_target_grid_does_not_change_the_volume():
    solid = stack(ellipsoid(20, 15, 18), pixel=1.0, z_mm=np.arange(-22.5, 23, 5.0), half_mm=22)
    coarse = Grid((-40.2, -39.1, -40.7), (2.5, 2.0, 1.25), (34, 41, 66))
    assert volume_cc(solid, coarse) == pytest.approx(volume_cc(solid), rel=0.003)


def test_outside_the_grid_and_empty():
    solid = stack(ellipsoid(5, 5, 5), pixel=1.0, z_mm=np.arange(-6.0, 7, 1.0), half_mm=7)
    assert not fraction_on(solid, Grid((100.0, 0, 0), (1, 1, 1), (5, 5, 5))).any()
    half = Grid((0.5, -40.0, -40.0), (1.0, 1.0, 1.0), (80, 80, 40))
    assert volume_cc(solid, half) == pytest.approx(0.5 * volume_cc(solid), rel=0.01)
    empty = replace(solid, occupancy_zyx=np.zeros_like(solid.occupancy_zyx))
    assert not fraction_on(empty, GRID).any()
    assert slab_volume_cc(empty) == 0.0
    with pytest.raises(InvalidInput, match='"solid" is empty'):
        extent_mm(empty)


def test_extent_by_hand():
    occupancy = np.zeros((3, 6, 6), np.float32)
    occupancy[1:, 2:5, 1:3] = 1.0
    box = extent_mm(Structure("s", "ctv", occupancy, np.array([0.0, 4.0, 8.0]), (10.0, 20.0), (2.0, 1.0)))
    assert box.x_mm == (10.5, 12.5)
    assert box.y_mm == (23.0, 29.0)
    assert box.z_mm == (2.0, 10.0)


def test_signed_distance_of_a_ball():
    ball = fraction_on(
        stack(ellipsoid(10, 10, 10), pixel=0.5, z_mm=np.arange(-11.0, 12, 1.0), half_mm=12), GRID
    )
    away = signed_distance_mm(ball, GRID.spacing_zyx_mm)
    z, y, x = np.meshgrid(*GRID.axes_zyx_mm, indexing="ij")
    truth = np.sqrt(x**2 + y**2 + z**2) - 10.0
    assert np.abs(away - truth).max() < 1.0
    assert np.abs(away - truth).mean() < 0.4


def test_a_prostate_case_takes_milliseconds():
    gland = stack(ellipsoid(24, 18, 22), pixel=1.0, z_mm=np.arange(-25.0, 26, 5.0), half_mm=27)
    grown = stack(ellipsoid(27, 20, 25), pixel=1.0, z_mm=np.arange(-25.0, 26, 5.0), half_mm=30)
    tube = stack(lambda x, y, _: x**2 + y**2 <= 6.25, pixel=0.5, z_mm=np.arange(-25.0, 26, 5.0), half_mm=5)
    case = Case("c", {"ctv": gland, "ptv": grown, "urethra": tube, "rectum": replace(gland, role="rectum")})
    taken = []
    for _ in range(7):
        start = time.perf_counter()
        anatomy(case, GRID)
        taken.append(time.perf_counter() - start)
    # 6 ms on a quiet core; the limit leaves room for a busy machine.
    assert min(taken) < 0.040
