"""The histogram kernel against its NumPy specification, bit for bit, and against hostile arrays."""

from __future__ import annotations

import numpy as np
import pytest

from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels.dvh import (
    Histograms,
    cumulative_histograms,
    cumulative_histograms_into,
    cumulative_histograms_reference,
    workspace_values,
)

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


# ---- into the caller's buffers: the CPU and the CUDA sources ----------------------------------------


def histograms_into(backend, dose, fractions, *, unit, bins_per_unit, bins):
    count = len(fractions)
    buffers = [
        backend.put(np.full(shape, np.nan))
        for shape in (
            (count, bins + 1),
            (count, 4),
            workspace_values("cuda" if backend.runs_cuda else "cpu", dose.size, count),
        )
    ]
    above, sums, workspace = buffers
    cumulative_histograms_into(
        backend.put(dose),
        [backend.put(fraction) for fraction in fractions],
        above,
        sums,
        unit=unit,
        bins_per_unit=bins_per_unit,
        workspace=workspace,
        stream=backend.stream,
    )
    return Histograms(backend.get(above), *backend.get(sums).T)


def fixed_point(dose, fractions, *, unit, bins_per_unit, bins):
    """What a GPU adds, in NumPy: the covered fractions as integers."""
    bits = 62 - int(np.ceil(np.log2(dose.size)))
    index = np.minimum(dose.astype(np.float64) * bins_per_unit / unit, bins).astype(np.int64).ravel()
    rows = []
    for fraction in fractions:
        counts = np.zeros(bins + 1, dtype=np.uint64)
        np.add.at(counts, index, np.floor(fraction.ravel() * 2.0**bits + 0.5).astype(np.uint64))
        rows.append(np.cumsum(counts[::-1])[::-1].astype(np.float64) * 2.0**-bits)
    return np.array(rows)


@pytest.mark.parametrize("shape", [(1,), (255,), (4096,), (4097,), (17, 33, 29)])
@pytest.mark.parametrize("regions", [1, 3])
@pytest.mark.parametrize("bins", [0, 31, 9000])
def test_a_gpu_adds_integers(backend, shape, regions, bins):
    dose, fractions = scene(shape, regions)
    settings = {"unit": 145.0, "bins_per_unit": 2000, "bins": bins}
    found = histograms_into(backend, dose, fractions, **settings)
    expected = cumulative_histograms_reference(dose, fractions, **settings)
    if not backend.runs_cuda:
        assert_same_bits(found, expected)
        return
    exact = fixed_point(dose, fractions, **settings)
    assert found.above.tobytes() == exact.tobytes()
    assert found.total.tobytes() == exact[:, 0].tobytes()
    np.testing.assert_allclose(found.above, expected.above, rtol=0, atol=dose.size * 2.0**-40)
    np.testing.assert_allclose(found.weighted_sum, expected.weighted_sum, rtol=1e-13)
    assert found.least.tolist() == expected.least.tolist()
    assert found.most.tolist() == expected.most.tolist()


def test_no_voxel_and_no_region(backend):
    nothing = np.empty(0, dtype=np.float32)
    settings = {"unit": 1.0, "bins_per_unit": 1, "bins": 3}
    found = histograms_into(backend, nothing, [nothing], **settings)
    assert found.above.tolist() == [[0.0] * 4]
    assert (found.total[0], found.weighted_sum[0], found.least[0], found.most[0]) == (0, 0, np.inf, -np.inf)
    assert histograms_into(backend, np.ones(3, dtype=np.float32), [], **settings).above.shape == (0, 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("where", ["dose", "fraction"])
def test_bad_values_are_refused_or_poison_every_result(backend, bad, where):
    dose, (first, second) = scene((5000,), 2)
    (dose if where == "dose" else second)[4500] = bad
    if not backend.runs_cuda:
        with pytest.raises(InvalidInput, match=where):
            histograms_into(backend, dose, [first, second], **SETTINGS)
        return
    found = histograms_into(backend, dose, [first, second], **SETTINGS)
    for field in FIELDS:
        assert np.isnan(getattr(found, field)).all(), field


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dose": np.zeros(4)}, "dose: expected float32, got float64"),
        (
            {"fractions": [np.zeros(3, np.float32)]},
            r"fractions\[0\]: expected the dose's shape \(4,\), got \(3,\)",
        ),
        (
            {"above": np.zeros((2, 5))},
            r"above: expected structures x bins of shape \(1, any\), got shape \(2, 5\)",
        ),
        ({"above": np.zeros((1, 5), np.float32)}, "above: expected float64, got float32"),
        ({"above": np.zeros((1, 0))}, "above: expected at least one bin"),
        ({"above": np.zeros((1, 10))[:, ::2]}, "above: expected dense axes"),
        ({"sums": np.zeros(4)}, r"sums: expected structures x 4 of shape \(1, 4\), got shape \(4,\)"),
        ({"workspace": None}, "workspace: expected an array that DLPack can share, got NoneType"),
    ],
)
def test_wrong_buffers_are_refused_by_name(change, message):
    arguments = {
        "dose": np.zeros(4, np.float32),
        "fractions": [np.zeros(4, np.float32)],
        "above": np.zeros((1, 5)),
        "sums": np.zeros((1, 4)),
        "workspace": np.zeros(0),
    }
    with pytest.raises(InvalidInput, match=message):
        cumulative_histograms_into(**(arguments | change), unit=1.0, bins_per_unit=1)


def test_a_workspace_too_small_is_refused(backend):
    if not backend.runs_cuda:
        pytest.skip("the CPU needs none")
    dose = backend.put(np.zeros(4, np.float32))
    with pytest.raises(InvalidInput, match="workspace: expected at least 3 values, got 2"):
        cumulative_histograms_into(
            dose,
            [backend.put(np.zeros(4, np.float32))],
            backend.put(np.zeros((1, 5))),
            backend.put(np.zeros((1, 4))),
            unit=1.0,
            bins_per_unit=1,
            workspace=backend.put(np.zeros(2)),
            stream=backend.stream,
        )


def test_results_that_share_memory_are_refused():
    memory = np.zeros((1, 9))
    with pytest.raises(InvalidInput, match="memory apart from sums"):
        cumulative_histograms_into(
            np.zeros(4, np.float32),
            [np.zeros(4, np.float32)],
            memory[:, :5],
            memory[:, 4:8],
            unit=1.0,
            bins_per_unit=1,
            workspace=np.zeros(0),
        )
