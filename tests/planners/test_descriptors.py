from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trocar.planners.descriptors import NAMES, descriptors
from trocar.planners.types import Anatomy, Grid
from trocar.runtime.errors import InvalidInput

SHAPE = (64, 80, 64)
GRID = Grid((-32.0, -32.0, -32.0), (1.0, 1.0, 1.0), SHAPE)
Z, Y, X = np.meshgrid(*GRID.axes_zyx_mm, indexing="ij")
CENTRE = (-1.0, 0.5, 0.25)  # x, y, z
HALF = (22.0, 16.0, 20.0)


def ellipsoid(half=HALF, centre=CENTRE):
    """Smooth covered fraction of an ellipsoid: a ramp of one voxel about its surface."""
    x, y, z = ((axis - c) / h for axis, c, h in zip((X, Y, Z), centre, half, strict=True))
    radius = np.sqrt(x**2 + y**2 + z**2)
    slope = np.sqrt(sum((v / h) ** 2 for v, h in zip((x, y, z), half, strict=True))) / np.maximum(
        radius, 1e-9
    )
    return np.clip((1.0 - radius) / np.maximum(slope, 1e-9) + 0.5, 0.0, 1.0).astype(np.float32)


def tube(x_mm, y_mm, radius_mm, half_mm, z_mm=CENTRE[2]):
    across = np.clip(radius_mm - np.hypot(X - x_mm, Y - y_mm) + 0.5, 0.0, 1.0)
    return (across * np.clip(half_mm - np.abs(Z - z_mm) + 0.5, 0.0, 1.0)).astype(np.float32)


@pytest.fixture(scope="module")
def parts():
    return {
        "ctv": ellipsoid(),
        "ptv": ellipsoid(tuple(h + 3.0 for h in HALF)),
        "urethra": tube(3.4, 2.0, 3.0, 15.0),
        "rectum": tube(-1.0, 0.5 + 16.0 + 5.0 + 12.0, 12.0, 60.0),
    }


def described(parts, **changed):
    anatomy = Anatomy(GRID, {**parts, **changed})
    return dict(zip(NAMES, descriptors(anatomy), strict=True))


def test_an_ellipsoid_is_described_as_one(parts):
    found = described(parts)
    assert found["ctv_radius_mm"] == pytest.approx(np.prod(HALF) ** (1 / 3), rel=0.003)
    assert found["width_to_height"] == pytest.approx(np.log(22.0 / 16.0), abs=0.01)
    # Along z and, averaged over the slices' area, within them the spread is h / sqrt 5.
    assert found["length_to_width"] == pytest.approx(np.log(20.0 / np.sqrt(22.0 * 16.0)), abs=0.01)
    for name in ("skew_x", "skew_y", "skew_z", "tilt_x", "tilt_y"):
        assert found[name] == pytest.approx(0.0, abs=0.005)
    for name in ("slice_fill", "solid_fill", "ragged_across", "ragged_along"):
        assert found[name] == pytest.approx(1.0, abs=0.01)
    assert found["centroid_jump_mm"] < 0.1
    assert found["area_jump"] < 0.05
    radii = [np.prod([h + m for h in HALF]) ** (1 / 3) for m in (0.0, 3.0)]
    assert found["ptv_margin_mm"] == pytest.approx(radii[1] - radii[0], abs=0.05)


def test_the_urethra_is_placed_in_spreads_of_the_gland(parts):
    found = described(parts)
    assert found["urethra_x"] == pytest.approx(4.4 / (22.0 / np.sqrt(5.0)), abs=0.02)
    assert found["urethra_y"] == pytest.approx(1.5 / (16.0 / np.sqrt(5.0)), abs=0.02)
    assert found["urethra_inside"] == pytest.approx(1.0, abs=0.01)
    assert found["urethra_width_mm"] == pytest.approx(6.0, rel=0.05)
    assert found["urethra_roundness"] == pytest.approx(0.0, abs=0.03)
    # Along z a tube of half length h has a spread of h / sqrt 3.
    assert found["urethra_length"] == pytest.approx((15.0 / np.sqrt(3.0)) / (20.0 / np.sqrt(5.0)), rel=0.02)


def test_the_rectum_is_measured_straight_behind(parts):
    found = described(parts)
    assert found["rectum_gap_mm"] == pytest.approx(5.0, abs=0.6)
    assert found["rectum_overlap"] == 0.0
    assert found["rectum_x"] == pytest.approx(0.0, abs=0.01)
    assert found["rectum_width_mm"] == pytest.approx(24.0, rel=0.02)
    touching = described(parts, rectum=np.roll(parts["rectum"], -7, axis=1))
    assert touching["rectum_gap_mm"] == pytest.approx(found["rectum_gap_mm"] - 7.0, abs=0.2)
    assert touching["rectum_overlap"] > 0.0


def test_what_is_not_contoured_is_counted_and_nothing_else(parts):
    bare = described({role: parts[role] for role in ("ctv", "ptv")})
    assert bare["missing_roles"] == 2.0
    missing = {name for name, value in bare.items() if np.isnan(value)}
    assert missing == {n for n in NAMES if n.startswith(("urethra", "rectum", "bladder"))}
    full = described(parts)
    assert full["missing_roles"] == 0.0
    for name in set(NAMES) - missing - {"missing_roles"}:
        assert bare[name] == full[name]


def test_the_bladder_counts_by_its_side_alone(parts):
    above = np.zeros(SHAPE, np.float32)
    above[54:] = 1.0
    assert described(parts, bladder=above)["bladder_above"] == 1.0
    assert described(parts, bladder=above[::-1].copy())["bladder_above"] == -1.0


@pytest.mark.parametrize(
    ("name", "change", "up"),
    [
        ("ragged_along", lambda ctv: _with(ctv, np.s_[30], 0.0), True),
        ("area_jump", lambda ctv: _with(ctv, np.s_[30], 0.0), True),
        ("area_jump", lambda ctv: _with(ctv, np.s_[30, 10:54, 8:56], 1.0), True),
        ("centroid_jump_mm", lambda ctv: _with(ctv, np.s_[30], np.roll(ctv[30], 8, axis=1)), True),
        ("ragged_across", lambda ctv: _with(ctv, np.s_[:, :, 29:34], 0.0), True),
        ("slice_fill", lambda ctv: _with(ctv, np.s_[20:44, 26:40, 20:42], 0.0), False),
        ("skew_x", lambda ctv: _with(ctv, np.s_[:, :, :31], 0.0), True),
        ("apex_blunt", lambda ctv: _with(ctv, np.s_[:32], 0.0), True),
        ("base_blunt", lambda ctv: _with(ctv, np.s_[32:], 0.0), True),
        ("ragged_along", lambda ctv: np.where(_noise() < 0.3, 0.0, ctv).astype(np.float32), True),
    ],
)
def test_each_defect_shows_in_its_descriptor(parts, name, change, up):
    before, after = described(parts)[name], described(parts, ctv=change(parts["ctv"]))[name]
    assert (after > before + 0.1) if up else (after < before - 0.05)


def test_asymmetry_and_tilt_have_signs(parts):
    wide = np.where(CENTRE[0] < X, ellipsoid((26.0, 16.0, 20.0)), ellipsoid((18.0, 16.0, 20.0)))
    found = described(parts, ctv=wide)
    assert found["skew_x"] > 0.1
    mirrored = described(
        {role: part[:, :, ::-1].copy() for role, part in parts.items()}, ctv=wide[:, :, ::-1]
    )
    assert mirrored["skew_x"] == pytest.approx(-found["skew_x"], abs=1e-3)
    leaning = np.stack([np.roll(plane, round(0.3 * z), axis=0) for z, plane in enumerate(ellipsoid(), -32)])
    assert described(parts, ctv=leaning)["tilt_y"] == pytest.approx(0.3, abs=0.02)


def test_the_grid_does_not_matter_much(parts):
    fine = described(parts)
    grid = Grid((-31.5, -31.5, -31.5), (2.0, 2.0, 2.0), (32, 40, 32))
    coarse = {
        role: part.reshape(32, 2, 40, 2, 32, 2).mean(axis=(1, 3, 5), dtype=np.float32)
        for role, part in parts.items()
    }
    found = dict(zip(NAMES, descriptors(Anatomy(grid, coarse)), strict=True))
    for name in ("ctv_radius_mm", "rectum_gap_mm", "width_to_height", "skew_x", "urethra_x", "ptv_margin_mm"):
        assert found[name] == pytest.approx(fine[name], rel=0.02, abs=0.25)


@pytest.mark.parametrize("role", ["ctv", "ptv"])
def test_an_empty_target_is_refused(parts, role):
    with pytest.raises(InvalidInput, match=f"{role.upper()} is empty"):
        described(parts, **{role: np.zeros(SHAPE, np.float32)})


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_gland_of_a_few_slices_is_described(parts, count):
    flat = np.zeros(SHAPE, np.float32)
    flat[30 : 30 + count, 20:40, 20:40] = 1.0
    found = described(parts, ctv=flat)
    assert all(np.isfinite(value) for name, value in found.items() if name != "bladder_above")


def test_volumes_are_left_as_they_were(parts):
    copies = {role: part.copy() for role, part in parts.items()}
    descriptors(replace(Anatomy(GRID, copies)))
    for role, part in parts.items():
        np.testing.assert_array_equal(copies[role], part)


def _with(ctv, where, value):
    out = ctv.copy()
    out[where] = value
    return out


def _noise():
    return np.random.default_rng(0).random(SHAPE)
