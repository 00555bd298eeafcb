import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels import dose as kernels


def flat_source(**changes):
    """g = f = 1: the geometry function alone, times the scale."""
    tables = {
        "length": 0.3,
        "clearance": 0.04,
        "scale": 2.0,
        "g_radius": np.array([0.5, 1.0]),
        "g": np.array([1.0, 1.0]),
        "f_radius": np.array([1.0, 2.0]),
        "f_angle_deg": np.array([0.0, 90.0]),
        "f": np.ones((2, 2)),
    }
    return kernels.line_source(**(tables | changes))


def f32(*values):
    return np.array(values, dtype=np.float32)


def test_geometry_by_hand():
    # 2 beta / (L r): 2 atan(0.15) / 0.15 across the source, 1 / (1 - 0.15^2) x 2 on its axis.
    dose = kernels.dose_away_along(flat_source(), f32(1, 0, 0), f32(0, 1, -1))
    np.testing.assert_allclose(dose, [4 * np.arctan(0.15) / 0.3, 2 / 0.9775, 2 / 0.9775], rtol=3e-7)


def test_radial_function_by_hand():
    # Halving every cm from 1 cm on; 1 below; at 3.5 cm 2^-2.5.
    source = flat_source(g_radius=np.array([1.0, 2.0]), g=np.array([1.0, 0.5]))
    dose = kernels.dose_away_along(source, f32(0.5, 1.5, 3.5), f32(0, 0, 0))
    geometry = kernels.dose_away_along(flat_source(), f32(0.5, 1.5, 3.5), f32(0, 0, 0))
    np.testing.assert_allclose(dose / geometry, [1.0, 2**-0.5, 2**-2.5], rtol=3e-7)


def test_far_beyond_the_tables_nothing_overflows():
    source = flat_source(g=np.array([1.0, 1e-3]))
    dose = kernels.dose_away_along(source, f32(1e4, 1e9, 0), f32(1e4, 0, -1e9))
    assert np.isfinite(dose).all()
    assert (dose >= 0).all()


@settings(max_examples=50, deadline=None)
@given(count=st.integers(0, 600), seed=st.integers(0, 2**32 - 1))
def test_a_batch_has_the_bits_of_its_single_values(count, seed):
    rng = np.random.default_rng(seed)
    away, along = rng.uniform(0, 5, (2, count)).astype(np.float32)
    batch = kernels.dose_away_along(flat_source(), away, along)
    for k in {0, count // 2, count - 1} & set(range(count)):
        assert kernels.dose_away_along(flat_source(), away[k : k + 1], along[k : k + 1])[0] == batch[k]


def cube_kernel(side, put=np.asarray):
    rng = np.random.default_rng(1)
    values = np.zeros((side, side, side + kernels.ROW_PADDING - 1), dtype=np.float32)
    values[:, :, :side] = rng.uniform(size=(side, side, side))
    index = np.arange(side, dtype=np.int32)
    reach = -(side // 2)
    return kernels.Kernel(put(values), put(index), put(index), (reach, reach, reach))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(0, 9)] * 2, st.integers(0, 70)),
    count=st.integers(0, 12),
    weight=st.floats(0, 10),
    threads=st.integers(1, 3),
    data=st.data(),
)
def test_superposition_is_shift_and_add(shape, count, weight, threads, data):
    kernel = cube_kernel(161)
    within = [st.integers(-3, max(extent, 1) + 2) for extent in shape]
    seeds = np.array([data.draw(st.tuples(*within)) for _ in range(count)], dtype=np.int32).reshape(-1, 3)
    out = np.ones(shape, dtype=np.float32)
    kernels.superpose(out, kernel, seeds, weight, threads=threads)
    expected = np.ones(shape)
    for seed in seeds:
        window = tuple(slice(80 - s, 80 - s + extent) for s, extent in zip(seed, shape, strict=True))
        expected += weight * kernel.values[window]
    np.testing.assert_allclose(out, expected, rtol=1e-5)


@pytest.mark.parametrize("seed", [(0, 0, 60), (0, 90, 0), (-90, 0, 0), (2**31 - 1, 0, 0), (0, 0, -(2**31))])
def test_a_kernel_that_does_not_reach_is_refused(seed):
    with pytest.raises(InvalidInput, match="beyond the kernel's reach"):
        kernels.superpose(
            np.zeros((40, 40, 40), dtype=np.float32), cube_kernel(101), np.array([seed], dtype=np.int32), 1.0
        )


def test_kernel_indices_outside_the_values_are_refused():
    kernel = cube_kernel(21)
    wrong = kernels.Kernel(kernel.values, kernel.slab_of_z + np.int32(1), kernel.row_of_y, kernel.first_zyx)
    with pytest.raises(InvalidInput, match="outside the kernel"):
        kernels.superpose(np.zeros((2, 2, 2), dtype=np.float32), wrong, np.zeros((1, 3), dtype=np.int32), 1.0)


# ---- the CPU and the CUDA sources, against the CPU's bits -------------------------------------------


HINGED = {"g_radius": np.array([0.537, 1.0137]), "g": np.array([1.1, 0.7])}
FALLING = {"g_radius": np.array([0.5, 1.0]), "g": np.array([1.0, 0.6])}
TABLES = pytest.mark.parametrize("tables", [FALLING, HINGED], ids=["on-edges", "hinged"])


def cloud(count, seed):
    return np.random.default_rng(seed).uniform(-5, 5, (count, 3))


def unit_axes(count):
    axes = np.random.default_rng(5).normal(size=(count, 3))
    return axes / np.linalg.norm(axes, axis=1, keepdims=True)


@TABLES
@pytest.mark.parametrize("count", [0, 1, 127, 129, 1000])
def test_away_along_has_the_cpus_bits(backend, tables, count):
    rng = np.random.default_rng(count)
    away = rng.uniform(0, 5, count).astype(np.float32)
    along = rng.uniform(-5, 5, count).astype(np.float32)
    out = backend.put(np.full(count, np.nan, dtype=np.float32))
    kernels.dose_away_along_into(
        flat_source(**tables), backend.put(away), backend.put(along), out, stream=backend.stream
    )
    with backend.cpu():
        expected = kernels.dose_away_along(flat_source(**tables), away, along)
    assert backend.get(out).tobytes() == expected.tobytes()


@TABLES
@pytest.mark.parametrize("oriented", [False, True], ids=["axial", "oriented"])
@pytest.mark.parametrize(("count", "seeds"), [(0, 3), (1, 0), (1, 1), (130, 7), (257, 40)])
def test_points_have_the_cpus_bits(backend, tables, oriented, count, seeds):
    where, sources, axes = cloud(count, 1), cloud(seeds, 2), unit_axes(seeds) if oriented else None
    out = backend.put(np.full(count, np.nan))
    kernels.dose_points_into(
        flat_source(**tables),
        backend.put(where),
        backend.put(sources),
        out,
        None if axes is None else backend.put(axes),
        stream=backend.stream,
    )
    with backend.cpu():
        expected = kernels.dose_points(flat_source(**tables), where, sources, axes)
    assert backend.get(out).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("seeds", "count"), [(0, 3), (3, 0), (1, 1), (5, 300)])
def test_the_matrix_has_the_cpus_bits(backend, seeds, count):
    sources, where = cloud(seeds, 2), cloud(count, 1)
    out = backend.put(np.full((seeds, count), np.nan, dtype=np.float32))
    kernels.dose_matrix_into(
        flat_source(**FALLING), backend.put(sources), backend.put(where), out, stream=backend.stream
    )
    with backend.cpu():
        expected = kernels.dose_matrix(flat_source(**FALLING), sources, where)
    assert backend.get(out).tobytes() == expected.tobytes()


@pytest.mark.parametrize("shape", [(0, 4, 4), (1, 1, 1), (3, 5, 31), (2, 3, 33), (4, 4, 70)])
@pytest.mark.parametrize("count", [0, 1, 32, 75])
def test_superposition_has_the_cpus_bits(backend, shape, count):
    rng = np.random.default_rng(count)
    seeds = rng.integers(-2, [extent + 2 for extent in shape], (count, 3)).astype(np.int32)
    before = rng.uniform(size=shape).astype(np.float32)
    out = backend.put(before.copy())
    kernels.superpose(out, cube_kernel(161, backend.put), backend.put(seeds), 0.42, stream=backend.stream)
    expected = before.copy()
    with backend.cpu():
        kernels.superpose(expected, cube_kernel(161), seeds, 0.42)
    assert backend.get(out).tobytes() == expected.tobytes()


def test_on_a_gpu_a_voxel_beyond_the_kernels_reach_is_nan(backend):
    if not backend.runs_cuda:
        pytest.skip("the CPU refuses it")
    seeds = np.array([[1, 1, 1], [-9, 1, 1]], dtype=np.int32)
    out = backend.put(np.ones((4, 4, 4), dtype=np.float32))
    kernels.superpose(out, cube_kernel(23, backend.put), backend.put(seeds), 1.0, stream=backend.stream)
    # The kernel reaches 11 voxels: from z = -9 to z = 2.
    assert np.isnan(backend.get(out)[3]).all()
    assert np.isfinite(backend.get(out)[:3]).all()


def points(count=2):
    return np.zeros((count, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda s: kernels.dose_away_along(s, f32(1), f32(1, 2)),
            r"along: expected one value a point of shape \(1,\), got shape \(2,\)",
        ),
        (
            lambda s: kernels.dose_away_along(s, np.zeros(3), f32(1, 2, 3)),
            "away: expected float32, got float64",
        ),
        (lambda s: kernels.dose_points(s, points().astype(np.float32), points()), "points: .*, got float32"),
        (
            lambda s: kernels.dose_points(s, np.zeros((2, 2)), points()),
            r"points: expected x, y, z of shape \(any, 3\), got shape \(2, 2\)",
        ),
        (lambda s: kernels.dose_points(s, points(4)[::2], points()), "points: .*, got strides"),
        (lambda s: kernels.dose_points(s, [[0, 0, 0]], points()), "points: .*, got list"),
        (
            lambda s: kernels.dose_points(s, points(), points(), points(1)),
            r"axes: expected one axis a seed of shape \(2, 3\), got shape \(1, 3\)",
        ),
        (
            lambda s: kernels.dose_matrix(s, points(), np.asfortranarray(np.ones((4, 3)))),
            "points: .*, got strides",
        ),
        (lambda s: kernels.dose_matrix(s, points(), points(), threads=65), "threads: expected 1 to 64"),
    ],
)
def test_wrong_arrays_are_refused_by_name(call, message):
    with pytest.raises(InvalidInput, match=message):
        call(flat_source())


def test_a_read_only_grid_is_refused():
    out = np.zeros((2, 2, 2), dtype=np.float32)
    out.flags.writeable = False
    with pytest.raises(InvalidInput, match="out: expected a writable array"):
        kernels.superpose(out, cube_kernel(21), np.zeros((1, 3), dtype=np.int32), 1.0)


@pytest.mark.parametrize("give", ["points", "seeds", "axes"])
def test_a_result_over_an_input_is_refused(give):
    arrays = {name: cloud(4, 1) for name in ("points", "seeds", "axes")}
    out = arrays[give].reshape(-1)[:4]
    with pytest.raises(
        InvalidInput, match=f"out: expected memory apart from {give}, got arrays that overlap"
    ):
        kernels.dose_points_into(flat_source(), arrays["points"], arrays["seeds"], out, arrays["axes"])


def test_nodes_too_close_for_the_lookup_are_refused():
    with pytest.raises(InvalidInput, match="radii: expected nodes at least"):
        flat_source(g_radius=np.array([1.0, 1.0 + 1e-9]))
