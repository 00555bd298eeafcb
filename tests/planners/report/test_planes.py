from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from trocar.planners.report.planes import plane_pictures, plane_positions_mm, reference_plane_mm, silhouette
from trocar.planners.types import Needle


def test_planes_are_where_seeds_lie_and_where_the_ptv_is(result: Any) -> None:
    # Seeds lie at 0, 5 .. 40; the PTV reaches from z = -1 to 45, so the lattice plane at 45 is shown too.
    assert plane_positions_mm(result).tolist() == [45.0, 40.0, 35.0, 30.0, 25.0, 20.0, 15.0, 10.0, 5.0, 0.0]


def test_a_plane_shows_its_own_seeds(result: Any) -> None:
    _, pictures = plane_pictures(result)
    counts = {picture.z_mm: len(picture.seeds_xy_mm) for picture in pictures}
    assert counts[45.0] == 0
    assert sum(counts.values()) == len(result.plan.seeds_xyz_mm)
    at_zero = next(picture for picture in pictures if picture.z_mm == 0.0)
    expected = {(x, y) for x, y, z in result.plan.seeds_xyz_mm.tolist() if z == 0.0}
    assert set(map(tuple, at_zero.seeds_xy_mm.tolist())) == expected


def test_an_outline_is_the_ellipsoid_cut_at_the_plane(result: Any) -> None:
    _, pictures = plane_pictures(result)
    picture = next(picture for picture in pictures if picture.z_mm == 20.0)
    (line,) = picture.outlines["ctv"]
    radius = np.hypot((line[:, 0] - 1) / 22, line[:, 1] / 17)
    assert radius == pytest.approx(np.sqrt(1 - (2 / 20) ** 2), abs=0.02)


def test_isodose_lines_follow_the_prescription(result: Any) -> None:
    view, pictures = plane_pictures(result)
    picture = next(picture for picture in pictures if picture.z_mm == 20.0)
    z, y, x = (axis.tolist() for axis in result.anatomy.grid.axes_zyx_mm)
    layer = result.dose_gy[z.index(20.0)]
    for percent, lines in picture.isodoses.items():
        level = percent / 100 * 145.0
        for px, py in np.concatenate(lines):
            columns = (x.index(np.floor(px)), min(x.index(np.floor(px)) + 1, len(x) - 1))
            rows = (y.index(np.floor(py)), min(y.index(np.floor(py)) + 1, len(y) - 1))
            around = layer[np.ix_(rows, columns)]
            assert around.min() - 1e-3 <= level <= around.max() + 1e-3
    assert view.x_mm[0] < -24 < 26 < view.x_mm[1]


def test_seeds_off_any_lattice_are_gathered(result: Any) -> None:
    z_mm = tuple(np.linspace(0, 40, 31).tolist())
    plan = replace(result.plan, lattice=None, needles=(Needle("1", 0.0, 0.0, z_mm),))
    view, pictures = plane_pictures(replace(result, plan=plan))
    assert [picture.z_mm for picture in pictures] == [40.0, 35.0, 30.0, 25.0, 20.0, 15.0, 10.0, 5.0, 0.0]
    shown = sum(len(picture.seeds_xy_mm) + len(picture.near_seeds_xy_mm) for picture in pictures)
    assert shown == 31
    assert view.width_mm > 0


def test_a_seed_far_outside_neither_hangs_nor_stretches_the_picture(result: Any) -> None:
    far = Needle("x", 1e6, -1e6, tuple(float(z) for z in range(0, 1_000_000, 10_000)))
    plan = replace(result.plan, needles=(*result.plan.needles, far))
    view, pictures = plane_pictures(replace(result, plan=plan))
    assert len(pictures) <= 12
    assert view.width_mm <= 80.0


def test_a_plan_without_seeds_shows_the_ptv(result: Any) -> None:
    _, pictures = plane_pictures(replace(result, plan=replace(result.plan, needles=())))
    assert [picture.z_mm for picture in pictures][::9] == [45.0, 0.0]
    assert reference_plane_mm(replace(result.plan, needles=())) == 0.0


def test_silhouette_is_the_largest_extent(result: Any) -> None:
    (line,) = silhouette(result, "ctv")
    assert line[:, 0].max() == pytest.approx(23.0, abs=0.3)
    assert line[:, 1].min() == pytest.approx(-17.0, abs=0.3)
