import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trocar.planners.dose.engine import MAX_CACHED_KERNELS, DoseEngine
from trocar.planners.dose.reference import dose_gy
from trocar.planners.dose.source import load_source, source_from_document, source_keys
from trocar.planners.types import Grid
from trocar.runtime.errors import InvalidInput

LIMIT = 1e-5
ENGINES = {key: DoseEngine(load_source(key)) for key in source_keys()}


def odd_source(theta_end):
    """Nodes on no common step, F at one radius or few, angles that neither start at 0 nor end at a pole."""
    theta = [3.3, 17.7, 45.123, 88.0] if theta_end <= 90 else [2.1, 33.3, 79.9, 101.7, 166.6]
    f = [[0.4, 0.7, 0.93, 1.0, 0.55][: len(theta)], [0.5, 0.8, 0.9, 1.0, 0.6][: len(theta)]]
    return source_from_document(
        {
            "name": "odd",
            "isotope": "I-125",
            "half_life_days": 60.0,
            "dose_rate_constant_cGy_per_h_per_U": 1.0,
            "length_cm": 0.277,
            "g_r": {"r_cm": [0.0723, 0.13717, 1 / 3, 1.0, 2.2361, 7.1], "g": [0.9, 1.1, 1.05, 1.0, 0.7, 0.2]},
            "F": {"r_cm": [1 / 7, 2.71828], "theta_deg": theta, "F": f},
        }
    )


def single_radius_source():
    document_like = odd_source(90)
    return source_from_document(
        {
            "name": "single",
            "isotope": "I-125",
            "half_life_days": 60.0,
            "dose_rate_constant_cGy_per_h_per_U": 1.0,
            "length_cm": 0.3,
            "g_r": {"r_cm": [0.0, 1.0, 5.0], "g": [1.1, 1.0, 0.4]},
            "F": {
                "r_cm": [1.0],
                "theta_deg": document_like.f_theta_deg.tolist(),
                "F": [[0.4, 0.7, 0.9, 1.0]],
            },
        }
    )


def hard_points(rng, count, seed):
    """Points of every kind: inside the seed, on its axis, beside its ends, near, and out to 15 cm."""
    directions = rng.normal(size=(count, 3))
    directions[: count // 8, :2] *= 1e-5
    directions[count // 8 : count // 4, 2] *= 1e-4
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    distance = rng.choice([0.3, 2.0, 5.0, 30.0, 150.0], count) * rng.uniform(size=count)
    points = seed + directions * distance[:, None]
    points[0] = seed
    points[1:3] = seed + np.array([[0, 0, 1.5], [0, 0, -1.75]])
    return points


@pytest.mark.parametrize("direction", [None, (0, 0, -1), (1, 0, 0), (0.3, -0.5, 0.81)])
@pytest.mark.parametrize("key", source_keys())
def test_exact_path_equals_the_reference(key, direction):
    rng = np.random.default_rng(3)
    seed = np.array([[102.3, -57.1, 33.7]])
    points = hard_points(rng, 4000, seed)
    directions = None if direction is None else [direction]
    native = ENGINES[key].points_gy(seed, 1.0, points, directions_xyz=directions)
    expected = dose_gy(ENGINES[key].source, points, seed, 1.0, directions_xyz=directions)
    assert np.max(np.abs(native / expected - 1)) <= LIMIT


@pytest.mark.parametrize(
    "source", [odd_source(90), odd_source(180), single_radius_source()], ids=lambda s: s.name
)
def test_exact_path_equals_the_reference_for_tables_on_no_common_step(source):
    rng = np.random.default_rng(4)
    seed = np.array([[0.0, 0.0, 0.0]])
    points = hard_points(rng, 20_000, seed)
    native = DoseEngine(source).points_gy(seed, 1.0, points)
    assert np.max(np.abs(native / dose_gy(source, points, seed, 1.0) - 1)) <= LIMIT


@pytest.mark.parametrize("key", source_keys())
def test_exact_path_on_the_table_nodes(key):
    source = ENGINES[key].source
    radius, theta = np.meshgrid(
        np.concatenate([source.g_r_cm, source.f_r_cm, [0.0, 15.0]]),
        np.radians(np.concatenate([source.f_theta_deg, 180.0 - source.f_theta_deg])),
    )
    points = 10 * np.stack([radius * np.sin(theta), 0 * theta, radius * np.cos(theta)], axis=-1).reshape(
        -1, 3
    )
    native = ENGINES[key].points_gy([[0, 0, 0]], 1.0, points)
    assert np.max(np.abs(native / dose_gy(source, points, [[0, 0, 0]], 1.0) - 1)) <= LIMIT


vectors = st.tuples(*[st.floats(-150, 150)] * 3)


@settings(max_examples=150, deadline=None)
@given(
    key=st.sampled_from(source_keys()),
    points=st.lists(vectors, min_size=1, max_size=20),
    seeds=st.lists(vectors, min_size=1, max_size=5),
    direction=vectors.filter(lambda v: math.hypot(*v) > 1e-3),
    near=st.floats(1e-9, 3.0),
)
def test_any_points_seeds_and_orientation(key, points, seeds, direction, near):
    points = np.array(
        [*points, np.array(seeds[0]) + near * np.array(direction) / math.hypot(*direction), seeds[-1]]
    )
    directions = np.tile(direction, (len(seeds), 1))
    native = ENGINES[key].points_gy(seeds, 0.5, points, directions_xyz=directions)
    expected = dose_gy(ENGINES[key].source, points, seeds, 0.5, directions_xyz=directions)
    np.testing.assert_allclose(native, expected, rtol=LIMIT)


def lattice_seeds(rng, count, extent=7):
    return 5.0 * rng.integers(0, extent, (count, 3)).astype(float)


def centres(grid):
    return grid.points_xyz_mm(np.argwhere(np.ones(grid.shape_zyx, dtype=bool)))


@pytest.mark.parametrize("key", ["i125-6711", "pd103-theragenics200", "ir192-gammamedplus"])
@pytest.mark.parametrize(
    ("grid", "slide_mm"),
    [
        (Grid((0, 0, 0), (1, 1, 1), (33, 31, 34)), (0, 0, 0)),
        (Grid((0, 0, 0), (1, 1, 1), (33, 31, 34)), (0, 0, 0.35)),
        (Grid((0, 0, 0), (1, 1, 1), (33, 31, 34)), (0.2, -0.4, 0.35)),
        (Grid((-4.0, 2.0, 10.0), (2.5, 1, 0.5), (9, 21, 67)), (0, 0, 0)),
        (Grid((0.3, 0.1, 0.2), (1, 1, 1), (31, 17, 16)), (0, 0, 0)),
    ],
)
def test_superposition_is_exact_at_voxel_centres(key, grid, slide_mm):
    seeds = lattice_seeds(np.random.default_rng(5), 40) + slide_mm
    engine = DoseEngine(load_source(key))
    dose = engine.grid_gy(seeds, 0.42, grid)
    assert engine._kernels, "expected the superposed path"
    assert dose.dtype == np.float32
    assert dose.shape == grid.shape_zyx
    exact = engine.points_gy(seeds, 0.42, centres(grid)).reshape(grid.shape_zyx)
    assert np.max(np.abs(dose / exact - 1)) <= LIMIT


def test_superposition_against_the_reference():
    grid = Grid((0, 0, 0), (1, 1, 1), (20, 22, 24))
    seeds = lattice_seeds(np.random.default_rng(6), 30, 5)
    dose = ENGINES["i125-6711"].grid_gy(seeds, 0.42, grid)
    expected = dose_gy(ENGINES["i125-6711"].source, centres(grid), seeds, 0.42).reshape(grid.shape_zyx)
    assert np.max(np.abs(dose / expected - 1)) <= LIMIT


def test_mixed_offsets_are_grouped():
    rng = np.random.default_rng(7)
    seeds = lattice_seeds(rng, 60)
    seeds[::2, 2] += 0.25
    grid = Grid((0, 0, 0), (1, 1, 1), (30, 30, 30))
    engine = DoseEngine(load_source("6711"))
    dose = engine.grid_gy(seeds, 0.42, grid)
    assert len(engine._kernels) == 2
    exact = engine.points_gy(seeds, 0.42, centres(grid)).reshape(grid.shape_zyx)
    assert np.max(np.abs(dose / exact - 1)) <= LIMIT


def test_seeds_off_every_lattice_are_evaluated_exactly():
    rng = np.random.default_rng(8)
    seeds = rng.uniform(0, 20, (25, 3))
    grid = Grid((0, 0, 0), (1, 1, 1), (20, 20, 20))
    engine = DoseEngine(load_source("6711"))
    dose = engine.grid_gy(seeds, 0.42, grid)
    assert not engine._kernels
    exact = engine.points_gy(seeds, 0.42, centres(grid)).reshape(grid.shape_zyx)
    np.testing.assert_allclose(dose, exact, rtol=1e-6)


def test_seeds_outside_the_grid_are_reached_after_a_smaller_kernel_was_cached():
    engine = DoseEngine(load_source("ir192-flexisource"))
    grid = Grid((0, 0, 0), (1, 1, 1), (24, 24, 24))
    rng = np.random.default_rng(9)
    inside = lattice_seeds(rng, 40, 5)
    first = engine.grid_gy(inside, 1.0, grid)
    outside = inside + np.array([30.0, -15.0, 20.0])
    dose = engine.grid_gy(outside, 1.0, grid)
    exact = engine.points_gy(outside, 1.0, centres(grid)).reshape(grid.shape_zyx)
    assert np.max(np.abs(dose / exact - 1)) <= LIMIT
    assert engine.grid_gy(inside, 1.0, grid).tobytes() == first.tobytes()


def test_the_result_does_not_depend_on_threads_or_batch_size():
    rng = np.random.default_rng(10)
    engine = ENGINES["i125-6711"]
    seeds, points = lattice_seeds(rng, 30), rng.uniform(0, 40, (1500, 3))
    grid = Grid((0, 0, 0), (1, 1, 1), (31, 32, 33))
    together = engine.points_gy(seeds, 0.42, points)
    assert engine.points_gy(seeds, 0.42, points, threads=3).tobytes() == together.tobytes()
    one_by_one = [engine.points_gy(seeds, 0.42, points[k : k + 1])[0] for k in range(40)]
    assert one_by_one == together[:40].tolist()
    assert engine.grid_gy(seeds, 1.0, grid, threads=4).tobytes() == engine.grid_gy(seeds, 1.0, grid).tobytes()
    assert (
        engine.matrix_gy_u(seeds, points, threads=4).tobytes() == engine.matrix_gy_u(seeds, points).tobytes()
    )


def test_matrix_is_the_dose_per_unit_strength():
    rng = np.random.default_rng(11)
    engine = ENGINES["pd103-theragenics200"]
    candidates, points = rng.uniform(0, 50, (17, 3)), rng.uniform(0, 50, (301, 3))
    matrix = engine.matrix_gy_u(candidates, points)
    assert matrix.shape == (17, 301)
    assert matrix.dtype == np.float32
    expected = [dose_gy(engine.source, points, candidate[None], 1.0) for candidate in candidates]
    assert np.max(np.abs(matrix / np.array(expected) - 1)) <= LIMIT


def test_one_engine_serves_many_threads():
    engine = DoseEngine(load_source("6711"))
    rng = np.random.default_rng(12)
    grid = Grid((0, 0, 0), (1, 1, 1), (24, 24, 24))
    plans = [lattice_seeds(rng, 30, 5) + np.array([0, 0, 0.1 * (k % 5)]) for k in range(20)]
    alone = [DoseEngine(engine.source).grid_gy(seeds, 0.4, grid).tobytes() for seeds in plans]
    with ThreadPoolExecutor(4) as pool:
        together = [
            dose.tobytes() for dose in pool.map(lambda seeds: engine.grid_gy(seeds, 0.4, grid), plans)
        ]
    assert together == alone


def test_the_cache_is_bounded():
    engine = DoseEngine(load_source("6711"))
    grid = Grid((0, 0, 0), (1, 1, 1), (6, 6, 6))
    seeds = lattice_seeds(np.random.default_rng(13), 60, 2)
    for k in range(MAX_CACHED_KERNELS + 5):
        engine.grid_gy(seeds + np.array([0, 0, 0.01 * k]), 0.4, grid)
    assert len(engine._kernels) == MAX_CACHED_KERNELS


def test_nothing_gives_nothing():
    engine = ENGINES["i125-6711"]
    grid = Grid((0, 0, 0), (1, 1, 1), (3, 4, 5))
    assert not engine.grid_gy([], 0.42, grid).any()
    assert engine.grid_gy([[0, 0, 0]], 0.42, Grid((0, 0, 0), (1, 1, 1), (0, 4, 5))).shape == (0, 4, 5)
    assert engine.points_gy([], 0.42, np.zeros((3, 3))).tolist() == [0, 0, 0]
    assert engine.points_gy([[0, 0, 0]], 0.42, []).shape == (0,)
    assert engine.matrix_gy_u([], np.zeros((3, 3))).shape == (0, 3)
    assert engine.matrix_gy_u(np.zeros((2, 3)), []).shape == (2, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.points_gy([[0, 0]], 1.0, [[0, 0, 0]]), r"seeds: expected shape \(n, 3\), got \(1, 2\)"),
        (lambda e: e.points_gy([[0, 0, 0]], 1.0, [[0, 0, math.nan]]), "points: expected finite coordinates"),
        (lambda e: e.points_gy([[0, 0, 0]], math.nan, [[0, 0, 1]]), "strength: expected a finite U"),
        (lambda e: e.points_gy([[0, 0, 0]], -1.0, [[0, 0, 1]]), "strength: expected a finite U"),
        (lambda e: e.points_gy([[0, 0, 0]], 1.0, [[0, 0, 1]], threads=0), "threads: expected 1 to 64, got 0"),
        (lambda e: e.points_gy([[0, 0, 0]], 1.0, [[0, 0, 1]], directions_xyz=[[0, 0, 0]]), "directions"),
        (
            lambda e: e.matrix_gy_u([[1e9, 0, 0]], [[0, 0, 0]]),
            "candidates: expected finite coordinates within",
        ),
        (
            lambda e: e.grid_gy([], 1.0, Grid((0, 0, 0), (1, 0, 1), (2, 2, 2))),
            "grid spacing: expected positive",
        ),
        (
            lambda e: e.grid_gy([], 1.0, Grid((0, math.inf, 0), (1, 1, 1), (2, 2, 2))),
            "grid origin: expected finite",
        ),
        (
            lambda e: e.grid_gy([], 1.0, Grid((0, 0, 0), (1, 1, 1), (10**4,) * 3)),
            "grid shape: expected at most",
        ),
    ],
)
def test_bad_input_is_refused_by_name(call, message):
    with pytest.raises(InvalidInput, match=message):
        call(ENGINES["i125-6711"])
