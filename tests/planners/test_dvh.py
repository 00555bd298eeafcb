"""DVH metrics against closed forms, an exact weighted sort, and what must hold for any dose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trocar.planners.dvh import BINS_PER_PRESCRIPTION, Dvh, dvh, role_metrics
from trocar.planners.geometry import fraction_on
from trocar.planners.types import Anatomy, Grid, Structure
from trocar.runtime.errors import InvalidInput

RX = 145.0
BIN_GY = RX / BINS_PER_PRESCRIPTION


def grid_of(shape, spacing=1.0, origin=(0.0, 0.0, 0.0)):
    return Grid(origin, (spacing,) * 3, shape)


def one(dose, fraction=None, spacing=1.0, prescription_gy=RX) -> Dvh:
    dose = np.asarray(dose, dtype=np.float32)
    fraction = np.ones_like(dose) if fraction is None else np.asarray(fraction, dtype=np.float32)
    anatomy = Anatomy(grid_of(dose.shape, spacing), {"ctv": fraction})
    return dvh(dose, anatomy, prescription_gy=prescription_gy)["ctv"]


def exact_d_gy(dose, fraction, share):
    """Least dose to the hottest `share` of the weight: the specification, by sorting."""
    order = np.argsort(-dose.astype(np.float64).ravel(), kind="stable")
    weight = fraction.astype(np.float64).ravel()[order]
    reached = np.cumsum(weight) >= share * weight.sum() * (1 - 1e-12)
    return float(dose.astype(np.float64).ravel()[order][np.argmax(reached & (weight > 0))])


def sphere_fraction(grid, radius_mm, centre_xyz_mm=(0.0, 0.0, 0.0), sub=5, scale_zyx=(1.0, 1.0, 1.0)):
    """Covered fraction of an ellipsoid by points inside each voxel."""
    offsets = (np.arange(sub) + 0.5) / sub - 0.5
    axes = [
        (axis[:, None] + offsets * step - centre) / scale
        for axis, step, centre, scale in zip(
            grid.axes_zyx_mm, grid.spacing_zyx_mm, centre_xyz_mm[::-1], scale_zyx, strict=True
        )
    ]
    fraction = np.zeros(grid.shape_zyx, dtype=np.float32)
    for i in range(sub):
        for j in range(sub):
            for k in range(sub):
                z, y, x = axes[0][:, i], axes[1][:, j], axes[2][:, k]
                fraction += z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= radius_mm**2
    return fraction / np.float32(sub**3)


# Closed forms


def test_uniform_dose():
    found = one(np.full((4, 5, 6), RX), spacing=2.0)
    assert found.volume_cc == pytest.approx(120 * 8 / 1000)
    assert found.v_pct(RX) == 100
    assert found.v_pct(RX * 1.000001) == 0
    for volume_pct in (0, 2, 50, 90, 100):
        assert found.d_gy(volume_pct) == RX
    assert found.mean_gy == found.min_gy == found.max_gy == RX


def test_hand_worked_partial_volumes():
    # 0.5 + 1 + 0.25 voxels of 1 mm3 at 100, 150 and 300 Gy.
    found = one([[[100, 150, 300]]], [[[0.5, 1.0, 0.25]]])
    assert found.volume_cc == pytest.approx(1.75e-3)
    assert found.v_cc(145) == pytest.approx(1.25e-3)
    assert found.v_pct(290) == pytest.approx(100 * 0.25 / 1.75)
    assert found.mean_gy == pytest.approx((50 + 150 + 75) / 1.75)
    assert found.d_gy(50) == pytest.approx(150, abs=BIN_GY)
    assert found.d_gy(95) == pytest.approx(100, abs=BIN_GY)
    assert found.d_cc_gy(2e-4) == pytest.approx(300, abs=BIN_GY)


def test_linear_ramp():
    # Slices of 0.1 mm at 0.05, 0.15 .. 99.95 Gy: between slice edges V(d) = 1 - d / 100.
    dose = np.broadcast_to((np.arange(1000) / 10 + 0.05)[:, None, None], (1000, 2, 2))
    found = one(dose)
    for dose_gy in (0.1, 10.0, 33.3, 90.0, 99.9):
        assert found.v_pct(dose_gy) == pytest.approx(100 - dose_gy, abs=1e-9)
    for volume_pct in (2, 10, 30, 50, 90, 98):
        assert found.d_gy(volume_pct) == pytest.approx(100 - volume_pct, abs=0.05 + BIN_GY)
    assert found.mean_gy == pytest.approx(50, rel=1e-6)


def test_inverse_square_in_a_sphere():
    # D = A / r^2 in a sphere of radius R: V(d) = (A / d)^1.5 / R^3.
    radius, strength = 20.0, 145.0 * 16**2
    grid = grid_of((45, 45, 45), origin=(-22.0, -22.0, -22.0))
    z, y, x = grid.axes_zyx_mm
    r2 = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2
    dose = (strength / np.maximum(r2, 0.25)).astype(np.float32)
    found = dvh(dose, Anatomy(grid, {"ctv": sphere_fraction(grid, radius)}), prescription_gy=RX)["ctv"]
    assert found.volume_cc == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=2e-3)
    for percent in (100, 120, 150, 200, 300):
        expected = 100 * (strength / (percent / 100 * RX)) ** 1.5 / radius**3
        assert found.v_pct(percent / 100 * RX) == pytest.approx(expected, abs=0.3)
    for volume_pct in (10, 30, 50, 90):
        expected = strength / (radius * (volume_pct / 100) ** (1 / 3)) ** 2
        assert found.d_gy(volume_pct) == pytest.approx(expected, rel=4e-3)


def test_five_mm_slices_do_not_bias_d90():
    # An ellipsoid contoured every 5 mm against the ellipsoid itself, in a dose that falls towards its rim.
    scale = (20.0, 17.0, 23.0)
    grid = grid_of((51, 45, 57), origin=(-28.0, -22.0, -25.0))
    truth = sphere_fraction(grid, 1.0, scale_zyx=scale)
    z, y, x = grid.axes_zyx_mm
    rho2 = (z[:, None, None] / scale[0]) ** 2 + (y[:, None] / scale[1]) ** 2 + (x / scale[2]) ** 2
    dose = (230.0 * np.exp(-0.5 * rho2)).astype(np.float32)
    plain = dvh(dose, Anatomy(grid, {"ctv": truth}), prescription_gy=RX)["ctv"]
    for first_mm in (-17.5, -20.0, -16.0):
        slices_mm = np.arange(first_mm, 20.0, 5.0)
        sheet = Grid((-28.0, -22.0, first_mm), (5.0, 0.5, 0.5), (slices_mm.size, 89, 113))
        # The area fraction of a pixel in the slice's plane, as a contour draws it.
        yy, xx = sheet.axes_zyx_mm[1], sheet.axes_zyx_mm[2]
        inside = (
            (slices_mm / scale[0])[:, None, None] ** 2 + (yy / scale[1])[:, None] ** 2 + (xx / scale[2]) ** 2
        )
        structure = Structure(
            "Prostate", "ctv", (inside <= 1).astype(np.float32), slices_mm, (-28.0, -22.0), (0.5, 0.5)
        )
        coarse = fraction_on(structure, grid)
        found = dvh(dose, Anatomy(grid, {"ctv": coarse}), prescription_gy=RX)["ctv"]
        assert found.volume_cc == pytest.approx(plain.volume_cc, rel=0.02)
        assert found.d_gy(90) == pytest.approx(plain.d_gy(90), rel=0.01)


# Against the exact sort, and what holds for any dose

DOSES = st.lists(st.floats(0, 1200, width=32), min_size=1, max_size=60)


@st.composite
def clouds(draw):
    doses = draw(DOSES)
    fractions = draw(st.lists(st.floats(0.001953125, 1, width=32), min_size=len(doses), max_size=len(doses)))
    shape = (1, 1, len(doses))
    return np.array(doses, np.float32).reshape(shape), np.array(fractions, np.float32).reshape(shape)


@given(clouds(), st.floats(0.001, 0.999))
@settings(deadline=None, max_examples=200)
def test_d_is_within_a_bin_of_the_exact_sort(cloud, share):
    dose, fraction = np.minimum(cloud[0], np.float32(700)), cloud[1]
    found = one(dose, fraction)
    # At a share that falls on a voxel's boundary both neighbours are right.
    either = [exact_d_gy(dose, fraction, share * factor) for factor in (1 - 1e-9, 1 + 1e-9)]
    assert min(either) - BIN_GY <= found.d_gy(100 * share) <= max(either) + BIN_GY


@given(clouds(), st.floats(0, 1300), st.floats(0, 1300))
@settings(deadline=None)
def test_v_falls_with_dose_from_all_to_nothing(cloud, first, second):
    found = one(*cloud)
    low, high = sorted((first, second))
    assert found.v_cc(low) >= found.v_cc(high) - 1e-15
    assert found.v_pct(0) == 100
    assert found.v_cc(found.max_gy + 1e-3) == 0


@given(clouds(), st.floats(0, 100), st.floats(0, 100))
@settings(deadline=None)
def test_d_falls_with_volume_from_max_to_min(cloud, first, second):
    found = one(*cloud)
    low, high = sorted((first, second))
    assert found.d_gy(low) >= found.d_gy(high)
    assert found.d_gy(0) == found.max_gy
    assert found.d_gy(100) == found.min_gy
    assert found.min_gy <= found.d_gy(low) <= found.max_gy


@given(clouds(), st.floats(0.1, 99.9))
@settings(deadline=None)
def test_v_of_d_gives_the_volume_back(cloud, volume_pct):
    found = one(np.minimum(cloud[0], np.float32(700)), cloud[1])
    dose_gy = found.d_gy(volume_pct)
    # V steps by a bin's content at the most: the volume lies between V just below and just above D.
    assert found.v_pct(dose_gy + BIN_GY) - 1e-6 <= volume_pct <= found.v_pct(dose_gy - BIN_GY) + 1e-6


@given(clouds(), st.floats(1, 99), st.sampled_from([0.25, 0.5, 2.0, 4.0]))
@settings(deadline=None)
def test_scaling_dose_and_prescription_scales_d(cloud, volume_pct, factor):
    plain = one(*cloud)
    scaled = one(cloud[0] * np.float32(factor), cloud[1], prescription_gy=RX * factor)
    assert scaled.d_gy(volume_pct) == pytest.approx(factor * plain.d_gy(volume_pct), rel=1e-12)
    assert scaled.metric("v100_pct", RX * factor) == plain.metric("v100_pct", RX)


@given(clouds(), st.integers(0, 1023), st.floats(0, 700))
@settings(deadline=None)
def test_the_parts_of_a_structure_add_up(cloud, pattern, dose_gy):
    dose, fraction = cloud
    first = np.array([pattern >> (i % 10) & 1 for i in range(dose.size)], np.float32).reshape(dose.shape)
    # Quarter and three quarters of a float32 are exact: the parts sum to the whole without rounding.
    part = fraction * (0.25 + 0.5 * first)
    whole, left, right = one(dose, fraction), one(dose, part), one(dose, fraction - part)
    assert left.volume_cc + right.volume_cc == pytest.approx(whole.volume_cc, rel=1e-6)
    if left.min_gy == right.min_gy and left.max_gy == right.max_gy:
        assert left.v_cc(dose_gy) + right.v_cc(dose_gy) == pytest.approx(whole.v_cc(dose_gy), abs=1e-9)


def test_d90_of_a_smooth_dose_is_exact_to_a_fiftieth_of_a_gray():
    grid = grid_of((50, 50, 50), origin=(-24.5, -24.5, -24.5))
    fraction = sphere_fraction(grid, 21.0)
    rng = np.random.default_rng(7)
    seeds = rng.uniform(-15, 15, (40, 3))
    z, y, x = grid.axes_zyx_mm
    dose = np.zeros(grid.shape_zyx)
    for a, b, c in seeds:
        dose += 900 / ((z[:, None, None] - a) ** 2 + (y[:, None] - b) ** 2 + (x - c) ** 2 + 1)
    dose = dose.astype(np.float32)
    found = dvh(dose, Anatomy(grid, {"ctv": fraction}), prescription_gy=RX)["ctv"]
    for volume_pct in (90, 30, 10, 5):
        assert found.d_gy(volume_pct) == pytest.approx(exact_d_gy(dose, fraction, volume_pct / 100), abs=0.02)
    for percent in (100, 150, 200):
        covered = fraction[dose >= percent / 100 * RX].sum(dtype=np.float64) / fraction.sum(dtype=np.float64)
        assert found.v_pct(percent / 100 * RX) == pytest.approx(100 * covered, abs=1e-9)


# The surface


def test_doses_beyond_the_bins_still_count():
    top = 5 * RX
    found = one([[[100.0, top + 275.0]]])
    assert found.v_pct(4.9 * RX) == pytest.approx(50)
    assert found.v_pct(top + 275.0) >= 0
    assert found.v_pct(top + 276.0) == 0
    assert found.max_gy == top + 275.0
    assert found.d_gy(0) == found.max_gy
    assert top <= found.d_gy(25) <= found.max_gy


def test_d_cc_of_a_smaller_structure_is_its_minimum_dose():
    found = one([[[50.0, 80.0]]], spacing=10.0)
    assert found.volume_cc == pytest.approx(2)
    assert found.d_cc_gy(5) == 50.0
    assert found.d_cc_gy(1) == pytest.approx(80.0, abs=BIN_GY)


def test_role_metrics_have_the_reported_names_and_no_other():
    dose = np.full((3, 3, 3), 150.0, dtype=np.float32)
    whole = np.ones((3, 3, 3), dtype=np.float32)
    found = dvh(dose, Anatomy(grid_of((3, 3, 3), 10.0), {"ctv": whole, "rectum": whole}), prescription_gy=RX)
    table = role_metrics(found, RX)
    assert list(table) == ["ctv", "rectum"]
    names = "volume_cc,v100_pct,v150_pct,v200_pct,d90_gy,d30_gy,d10_gy,d2cc_gy,d0_1cc_gy,mean_gy"
    assert ",".join(table["ctv"]) == names
    assert table["ctv"]["volume_cc"] == pytest.approx(27)
    assert table["ctv"]["v100_pct"] == 100
    assert table["ctv"]["v150_pct"] == 0
    assert table["rectum"]["d2cc_gy"] == 150


def test_the_curve_runs_from_all_to_nothing():
    dose_gy, volume_pct = one([[[100.0, 150.0, 200.0]]]).curve()
    assert dose_gy[0] == 0
    assert volume_pct[0] == pytest.approx(100)
    assert volume_pct[-1] == 0
    assert (np.diff(volume_pct) <= 0).all()


@pytest.mark.parametrize("prescription_gy", [0.0, -145.0, np.nan, np.inf])
def test_a_prescription_that_is_no_dose_is_refused(prescription_gy):
    with pytest.raises(InvalidInput, match="prescription"):
        one([[[1.0]]], prescription_gy=prescription_gy)


def test_a_structure_off_the_grid_is_refused_by_name():
    with pytest.raises(InvalidInput, match="structure ctv"):
        one([[[1.0]]], [[[0.0]]])


def test_nan_and_another_shape_are_refused():
    with pytest.raises(InvalidInput, match="NaN"):
        one([[[np.nan]]])
    anatomy = Anatomy(grid_of((2, 2, 2)), {"ctv": np.ones((2, 2, 2), dtype=np.float32)})
    with pytest.raises(InvalidInput, match="shape"):
        dvh(np.ones((2, 2, 3), dtype=np.float32), anatomy, prescription_gy=RX)


@pytest.mark.parametrize("volume_pct", [-1.0, 100.1, np.nan])
def test_a_volume_outside_0_to_100_percent_is_refused(volume_pct):
    with pytest.raises(InvalidInput, match="volume"):
        one([[[1.0]]]).d_gy(volume_pct)
