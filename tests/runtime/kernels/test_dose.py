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


def cube_kernel(side):
    rng = np.random.default_rng(1)
    values = np.zeros((side, side, side + kernels.ROW_PADDING - 1), dtype=np.float32)
    values[:, :, :side] = rng.uniform(size=(side, side, side))
    index = np.arange(side, dtype=np.int32)
    reach = -(side // 2)
    return kernels.Kernel(values, index, index, (reach, reach, reach))


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


def points(count=2):
    return np.zeros((count, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: kernels.dose_away_along(s, f32(1), f32(1, 2)), "along: expected 1 values, got 2"),
        (lambda s: kernels.dose_away_along(s, np.zeros(3), f32(1, 2, 3)), "away: .* float32 .*, got float64"),
        (lambda s: kernels.dose_points(s, points().astype(np.float32), points()), "points: .*, got float32"),
        (
            lambda s: kernels.dose_points(s, np.zeros((2, 2)), points()),
            "points: .*, the last of 3, got shape",
        ),
        (lambda s: kernels.dose_points(s, points(4)[::2], points()), "points: .*, got strides"),
        (lambda s: kernels.dose_points(s, [[0, 0, 0]], points()), "points: .*, got list"),
        (
            lambda s: kernels.dose_points(s, points(), points(), points(1)),
            "axes: expected 2, one a seed, got 1",
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


def test_nodes_too_close_for_the_lookup_are_refused():
    with pytest.raises(InvalidInput, match="radii: expected nodes at least"):
        flat_source(g_radius=np.array([1.0, 1.0 + 1e-9]))
