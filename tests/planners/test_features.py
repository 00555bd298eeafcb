from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trocar.planners.dose.reference import dose_gy
from trocar.planners.features import (
    CHANNELS,
    SIDE,
    _cell_means,
    dose_kernel_gy_u,
    features,
    parities,
    window_of,
)
from trocar.planners.geometry import anatomy, default_lattice, evaluation_grid, rasterise_contours
from trocar.planners.problem import build_problem
from trocar.planners.types import Anatomy, Case

RADIUS_MM = 20.0


@pytest.fixture(scope="module")
def ball_case():
    angle = np.linspace(0.0, 2.0 * np.pi, 200, endpoint=False)
    contours = []
    for z in np.arange(-19.0, 20.0, 2.0):
        radius = np.sqrt(RADIUS_MM**2 - z**2)
        contours.append((float(z), np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)))
    ball = rasterise_contours("ball", "ctv", contours)
    return Case("ball", {"ctv": ball, "ptv": replace(ball, role="ptv")})


@pytest.fixture(scope="module")
def seen(ball_case, engine, protocol):
    lattice, _ = default_lattice(ball_case, None, None)
    volumes = anatomy(ball_case, evaluation_grid(ball_case, lattice))
    dose = {"strength_u": 0.42, "prescription_gy": 145.0}
    problem = build_problem(volumes, lattice, engine, protocol, **dose, seed=0)
    window = window_of(problem.candidates, lattice)
    return problem, window, features(volumes, problem, window, engine, **dose)


def site_centres(problem, window):
    template, planes = problem.lattice.template, problem.lattice.planes
    z = planes.z0_mm + planes.pitch_mm * (window.plane0 + np.arange(SIDE))
    y = template.origin_xy_mm[1] + template.pitch_mm * (window.row0 + np.arange(SIDE))
    x = template.origin_xy_mm[0] + template.pitch_mm * (window.column0 + np.arange(SIDE))
    return np.meshgrid(z, y, x, indexing="ij")


def test_distances_of_a_ball_are_its_distances(seen):
    problem, window, channels = seen
    z, y, x = site_centres(problem, window)
    expected = np.clip((np.sqrt(x**2 + y**2 + z**2) - RADIUS_MM) / 10.0, -1.5, 1.5)
    for channel in (0, 1):
        off_mm = 10.0 * np.abs(channels[channel] - expected)
        assert np.median(off_mm) < 0.8
        assert off_mm.max() < 2.5


def test_what_the_case_lacks_is_far_away(seen):
    _, _, channels = seen
    assert (channels[2] == 1.5).all()
    assert (channels[3] == 1.5).all()


def test_candidates_are_where_seeds_may_stand(seen):
    problem, window, channels = seen
    assert channels[4].sum() == len(problem.matrix)
    z, y, x = site_centres(problem, window)
    marked = np.stack([x, y, z], axis=-1)[channels[4] == 1.0]
    centres = problem.candidates.centres_xyz_mm
    assert {tuple(p) for p in marked.round(3)} == {tuple(p) for p in centres.round(3)}


def test_the_window_is_centred(seen):
    _, _, channels = seen
    for axis in range(3):
        hit = np.flatnonzero(channels[4].any(axis=tuple({0, 1, 2} - {axis})))
        assert abs((SIDE - 1 - hit[-1]) - hit[0]) <= 1


def test_parities_alternate():
    hole, plane = parities()
    assert hole[0, 0, 0] == plane[0, 0, 0] == 1.0
    assert (hole[:, 1:] == -hole[:, :-1]).all()
    assert (hole[:, :, 1:] == -hole[:, :, :-1]).all()
    assert (hole[1:] == hole[:-1]).all()
    assert (plane[1:] == -plane[:-1]).all()


def test_strength_is_relative_to_the_usual_one(seen, small_volumes, engine):
    problem, window, channels = seen
    assert np.unique(channels[7]).size == 1
    assert channels[7, 0, 0, 0] == pytest.approx(0.0, abs=0.1)
    _, volumes = small_volumes
    doubled = features(volumes, problem, window, engine, strength_u=0.84, prescription_gy=145.0)
    assert doubled[7, 0, 0, 0] - channels[7, 0, 0, 0] == pytest.approx(np.log(2.0), abs=1e-5)


def test_a_phantom_gives_every_channel(small_volumes, small_problem, engine):
    lattice, volumes = small_volumes
    window = window_of(small_problem.candidates, lattice)
    channels = features(volumes, small_problem, window, engine, strength_u=0.42, prescription_gy=145.0)
    assert channels.shape == (len(CHANNELS), SIDE, SIDE, SIDE)
    assert channels.dtype == np.float32
    assert np.isfinite(channels).all()
    assert channels[2].min() < 0.0 < channels[3].max()


def test_an_empty_structure_is_far_away(small_volumes, small_problem, engine):
    lattice, volumes = small_volumes
    fractions = dict(volumes.fractions) | {"rectum": np.zeros(volumes.grid.shape_zyx, np.float32)}
    window = window_of(small_problem.candidates, lattice)
    channels = features(
        Anatomy(volumes.grid, fractions),
        small_problem,
        window,
        engine,
        strength_u=0.42,
        prescription_gy=145.0,
    )
    assert (channels[3] == 1.5).all()


def test_the_kernel_is_the_reference_dose(engine):
    kernel = dose_kernel_gy_u(engine, 5.0, 5.0)
    assert kernel.shape == (31, 31, 31)
    points = np.array([[10.0, 0.0, 0.0], [0.0, 15.0, 0.0], [5.0, -5.0, 20.0]])
    expected = dose_gy(engine.source, points, np.zeros((1, 3)), 1.0)
    found = [kernel[15, 15, 17], kernel[15, 18, 15], kernel[19, 14, 16]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    rim = dose_gy(engine.source, np.array([[2.5, 0.0, 0.0]]), np.zeros((1, 3)), 1.0)
    assert kernel[15, 15, 15] == pytest.approx(rim[0], rel=1e-5)


@pytest.mark.parametrize("step_mm", [0.5, 1.0, 2.5, 4.0])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_cell_means_are_the_integral_over_each_cell(axis, step_mm):
    random = np.random.default_rng(axis)
    covered = random.random((11, 9, 13), dtype=np.float32)
    voxels = step_mm * (np.arange(covered.shape[axis]) + 0.3)
    nodes = 2.5 * np.arange(-2, 9) - 0.4  # some beyond either end
    edges = np.stack([nodes - 1.25, nodes + 1.25])[:, :, None]
    overlap = np.minimum(edges[1], voxels + 0.5 * step_mm) - np.maximum(edges[0], voxels - 0.5 * step_mm)
    expected = np.moveaxis(np.tensordot(np.maximum(overlap, 0.0) / 2.5, covered, axes=(1, axis)), 0, axis)
    np.testing.assert_allclose(_cell_means(covered, axis, nodes, 2.5, voxels), expected, atol=1e-5)
