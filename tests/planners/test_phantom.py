from __future__ import annotations

import numpy as np
import pytest

from trocar.planners.geometry import fraction_on, slab_volume_cc
from trocar.planners.phantom import phantom_case, phantom_shape
from trocar.planners.types import ROLES, Grid

SEEDS = (0, 1, 2, 3, 7, 4, 21)


@pytest.fixture(scope="module", params=SEEDS)
def phantom(request):
    return phantom_shape(request.param), phantom_case(request.param)


def on_grid(case, role):
    grid = Grid((-60.0, -60.0, -60.0), (1.0, 1.0, 1.0), (160, 140, 121))
    return fraction_on(case.structures[role], grid)


def test_all_roles_and_the_volume_asked_for(phantom):
    shape, case = phantom
    assert set(case.structures) == set(ROLES)
    assert 18.0 <= shape.volume_cc <= 90.0
    assert slab_volume_cc(case.structures["ctv"]) == pytest.approx(shape.volume_cc, rel=0.01)


def test_the_margin_is_3_mm_and_none_behind(phantom):
    _, case = phantom
    ctv, ptv = on_grid(case, "ctv") >= 0.5, on_grid(case, "ptv") >= 0.5
    assert not (ctv & ~ptv).any()
    for axis, sides in ((2, (3, 3)), (0, (3, 3)), (1, (3, 0))):
        inner, outer = (np.flatnonzero(v.any(axis=tuple({0, 1, 2} - {axis}))) for v in (ctv, ptv))
        assert inner[0] - outer[0] == pytest.approx(sides[0], abs=1)
        assert outer[-1] - inner[-1] == pytest.approx(sides[1], abs=1)


def test_the_urethra_runs_inside_the_gland(phantom):
    _, case = phantom
    urethra, ctv = on_grid(case, "urethra") >= 0.5, on_grid(case, "ctv") >= 0.5
    assert (urethra & ctv).sum() >= 0.97 * urethra.sum()
    assert slab_volume_cc(case.structures["urethra"]) == pytest.approx(
        np.pi * phantom[0].urethra_radius_mm ** 2 * 1.8 * phantom[0].half_z_mm / 1000.0, rel=0.1
    )


def test_rectum_and_bladder_lie_apart_and_behind_or_above(phantom):
    shape, case = phantom
    ctv = on_grid(case, "ctv")
    for role in ("rectum", "bladder"):
        assert np.minimum(ctv, on_grid(case, role)).sum() < 0.01 * ctv.sum()
    gland, rectum = ctv >= 0.5, on_grid(case, "rectum") >= 0.5
    # The gap along y on the midline, over the slices where both are: its least is the one drawn.
    column = slice(58, 63)
    gaps = [
        np.flatnonzero(r.any(axis=1))[0] - np.flatnonzero(g.any(axis=1))[-1] - 1
        for g, r in zip(gland[:, :, column], rectum[:, :, column], strict=True)
        if g.any() and r.any()
    ]
    assert min(gaps) == pytest.approx(shape.rectal_gap_mm, abs=2.0)


def test_a_seed_is_a_patient():
    again, other = phantom_case(3), phantom_case(5)
    first = phantom_case(3).structures["ctv"].occupancy_zyx
    assert np.array_equal(again.structures["ctv"].occupancy_zyx, first)
    assert phantom_shape(3) != phantom_shape(5)
    assert other.structures["ctv"].occupancy_zyx.shape != first.shape


def test_the_population_is_varied():
    shapes = [phantom_shape(seed) for seed in range(200)]
    volumes = np.array([s.volume_cc for s in shapes])
    assert volumes.min() < 25
    assert volumes.max() > 83
    assert 0.1 < np.mean([s.median_lobe > 0 for s in shapes]) < 0.3
    assert min(s.asymmetry for s in shapes) < -0.08
    assert max(s.asymmetry for s in shapes) > 0.08


def test_asymmetry_shows_in_the_contours():
    lopsided = max(range(60), key=lambda seed: abs(phantom_shape(seed).asymmetry))
    ctv = phantom_case(lopsided).structures["ctv"].occupancy_zyx
    halves = ctv[:, :, : ctv.shape[2] // 2].sum(), ctv[:, :, ctv.shape[2] // 2 + 1 :].sum()
    assert (halves[1] > halves[0]) == (phantom_shape(lopsided).asymmetry > 0)


def test_coarse_slices_are_the_same_anatomy():
    fine, coarse = phantom_case(2), phantom_case(2, slice_mm=5.0)
    assert slab_volume_cc(coarse.structures["ctv"]) == pytest.approx(
        slab_volume_cc(fine.structures["ctv"]), rel=0.02
    )
