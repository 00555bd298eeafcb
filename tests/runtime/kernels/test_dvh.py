"""The histogram kernel against its NumPy specification, bit for bit, and against hostile arrays."""

from __future__ import annotations

import numpy as np
import pytest

from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels.dvh import Histograms, cumulative_histograms, cumulative_histograms_reference

SETTINGS = {"unit": 145.0, "bins_per_unit": 8000, "bins": 40000}
BACKENDS = pytest.mark.parametrize(
    "backend", [cumulative_histograms_reference, cumulative_histograms], ids=["reference", "cpu"]
)
FIELDS = ("above", "total", "weighted_sum", "least", "most")


def scene(shape, regions, seed=1):
    rng = np.random.default_rng(seed)
    dose = rng.gamma(2.0, 80.0, shape).astype(np.float32)
    fractions = []
    for _ in range(regions):
        fraction = rng.random(shape, dtype=np.float32)
        fraction[rng.random(shape) < 0.5] = 0
        fraction[rng.random(shape) < 0.2] = 1
        fractions.append(fraction)
    return dose, fractions


def assert_same_bits(first: Histograms, second: Histograms):
    for field in FIELDS:
        assert getattr(first, field).tobytes() == getattr(second, field).tobytes(), field


def bins_used(found: Histograms):
    return np.flatnonzero(-np.diff(found.above[0], append=0.0)).tolist()


@pytest.mark.parametrize("shape", [(1,), (63,), (64,), (65,), (7, 11, 13), (33, 65, 17)])
@pytest.mark.parametrize("regions", [1, 2, 5])
def test_native_equals_the_reference_bit_for_bit(shape, regions):
    dose, fractions = scene(shape, regions)
    assert_same_bits(
        cumulative_histograms(dose, fractions, **SETTINGS),
        cumulative_histograms_reference(dose, fractions, **SETTINGS),
    )


def test_native_repeats_itself_bit_for_bit():
    dose, fractions = scene((40, 40, 40), 3)
    assert_same_bits(
        cumulative_histograms(dose, fractions, **SETTINGS), cumulative_histograms(dose, fractions, **SETTINGS)
    )


def test_strided_arrays_give_what_their_copies_give():
    dose, fractions = scene((20, 20, 20), 2)
    view = cumulative_histograms(
        dose[::2, ::-1, 1::3], [item[::2, ::-1, 1::3] for item in fractions], **SETTINGS
    )
    copies = [np.ascontiguousarray(item[::2, ::-1, 1::3]) for item in fractions]
    assert_same_bits(
        view, cumulative_histograms(np.ascontiguousarray(dose[::2, ::-1, 1::3]), copies, **SETTINGS)
    )


@BACKENDS
def test_hand_worked(backend):
    dose = np.array([0.0, 1.0, 1.5, 2.0, 9.0], dtype=np.float32)
    fraction = np.array([0.5, 1.0, 0.25, 1.0, 0.75], dtype=np.float32)
    found = backend(dose, [fraction], unit=1.0, bins_per_unit=1, bins=3)
    assert found.above.tolist() == [[3.5, 3.0, 1.75, 0.75]]
    assert found.total.tolist() == [3.5]
    assert found.weighted_sum.tolist() == [1.0 + 0.375 + 2.0 + 6.75]
    assert (found.least[0], found.most[0]) == (0.0, 9.0)


@BACKENDS
@pytest.mark.parametrize("unit", [145.0, 144.0, 110.0, 125.0, 115.0, 46.25, 7.75])
def test_a_dose_on_a_bin_edge_falls_above_it(backend, unit):
    # 100, 150 and 200 % must count the voxels that get exactly that dose, whatever the prescription.
    dose = np.array([unit, 1.5 * unit, 2 * unit], dtype=np.float32)
    settings = {"unit": unit, "bins_per_unit": 8000, "bins": 40000}
    ones = np.ones(3, dtype=np.float32)
    assert bins_used(backend(dose, [ones], **settings)) == [8000, 12000, 16000]
    below = np.nextafter(dose, np.float32(0))
    assert bins_used(backend(below, [ones], **settings)) == [7999, 11999, 15999]


@BACKENDS
def test_extremes_leave_out_voxels_that_are_not_covered(backend):
    dose = np.array([1.0, 5.0, 900.0], dtype=np.float32)
    found = backend(dose, [np.array([0, 0.1, 0], dtype=np.float32)], **SETTINGS)
    assert (found.least[0], found.most[0]) == (5.0, 5.0)


@BACKENDS
def test_empty_input(backend):
    nothing = np.empty(0, dtype=np.float32)
    found = backend(nothing, [nothing], **SETTINGS)
    assert found.total.tolist() == [0.0]
    assert found.above.shape == (1, 40001)
    assert backend(np.ones(3, dtype=np.float32), [], **SETTINGS).above.shape == (0, 40001)


@BACKENDS
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0])
@pytest.mark.parametrize("where", [0, 70, 129])
def test_bad_doses_are_refused_even_outside_the_structures(backend, bad, where):
    dose = np.ones(130, dtype=np.float32)
    dose[where] = bad
    with pytest.raises(InvalidInput, match="finite dose"):
        backend(dose, [np.zeros(130, dtype=np.float32)], **SETTINGS)


@BACKENDS
@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.5, 1.001])
@pytest.mark.parametrize("where", [0, 70, 129])
def test_bad_fractions_are_refused(backend, bad, where):
    fraction = np.zeros(130, dtype=np.float32)
    fraction[where] = bad
    with pytest.raises(InvalidInput, match="fractions"):
        backend(np.ones(130, dtype=np.float32), [np.zeros_like(fraction), fraction], **SETTINGS)


@BACKENDS
def test_negative_zero_is_zero(backend):
    found = backend(np.array([-0.0], dtype=np.float32), [np.array([1.0], dtype=np.float32)], **SETTINGS)
    assert bins_used(found) == [0]
    found = backend(np.array([3.0], dtype=np.float32), [np.array([-0.0], dtype=np.float32)], **SETTINGS)
    assert found.total[0] == 0.0


@BACKENDS
def test_a_shape_that_differs_is_refused(backend):
    with pytest.raises(InvalidInput, match="shape"):
        backend(np.ones((2, 3), dtype=np.float32), [np.ones((3, 2), dtype=np.float32)], **SETTINGS)
