"""The checks that every kernel's arrays go through, by way of the smallest kernel that has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels import devices
from trocar.runtime.kernels.dose import ROW_PADDING, Kernel, superpose
from trocar.runtime.kernels.dvh import cumulative_histograms_into


def histogram(dose, fraction=None, above=None, sums=None):
    """`dose` and `fraction` may have any shape; both are float32, dense."""
    above = np.full((1, 3), np.nan) if above is None else above
    cumulative_histograms_into(
        dose,
        [dose if fraction is None else fraction],
        above,
        np.zeros((1, 4)) if sums is None else sums,
        unit=1.0,
        bins_per_unit=1,
        workspace=np.zeros(0),
    )
    return above


def ones(*shape):
    return np.ones(shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("dose", "message"),
    [
        (ones(4)[::-1], r"dose: expected strides of at least 0, got strides \(-1,\) of shape \(4,\)"),
        (ones(4, 4)[:, ::2], r"dose: expected dense axes from axis 0 on, got strides \(4, 2\)"),
        (ones(4, 4).T, "dose: expected dense axes"),
        (as_strided(ones(1), (3,), (0,)), "dose: expected dense axes"),
        (ones(4).astype(">f4"), "dose: expected an array that DLPack can share, got ndarray"),
        (ones(4).astype(np.float16), "dose: expected float32, got float16"),
        (ones(4).astype(bool), "dose: expected float32, got bool"),
        (ones(4).astype(np.complex64), "dose: expected float32, got complex64"),
        (np.array([object()]), "dose: expected an array that DLPack can share, got ndarray"),
        (ones(*[1] * 9), "dose: expected at most 8 dimensions, got 9"),
        (as_strided(ones(1), (2, 2**40), (4, 0)), "dose: expected extents of at most 2147483647, got shape"),
        (
            as_strided(ones(1), (2**31 - 1, 2), (2**33, 4)),
            r"dose: expected (strides that stay inside memory|dense axes)",
        ),
        (as_strided(ones(1), (3,), (2**62,)), "dose: expected strides that stay inside memory"),
    ],
)
def test_an_input_that_cannot_be_used_is_refused_by_name(dose, message):
    with pytest.raises(InvalidInput, match=message):
        histogram(dose)


@pytest.mark.parametrize(
    ("above", "message"),
    [
        (as_strided(np.zeros(3), (1, 3), (0, 0)), "above: expected elements apart, the last axis innermost"),
        (np.zeros((1, 3))[:, ::-1], "above: expected strides of at least 0"),
        (np.broadcast_to(np.zeros(3), (1, 3)), "above: expected a writable array, got a read-only one"),
        (b"abc", "above: expected an array that DLPack can share, got bytes"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_by_name(above, message):
    with pytest.raises(InvalidInput, match=message):
        histogram(ones(4), above=above)


def test_axes_of_one_element_may_have_any_stride():
    odd = as_strided(ones(4), (1, 4, 1), (-999, 4, 12345))
    assert histogram(odd).tolist() == histogram(ones(1, 4, 1)).tolist()


def test_strides_of_an_empty_array_do_not_matter():
    empty = as_strided(ones(1), (0, 5), (-4, 2**40))
    assert histogram(empty).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("offset", [0, 1, 5, 6])
def test_one_byte_shared_is_an_overlap(offset):
    memory = np.zeros(100, dtype=np.uint8)
    above = memory[48:72].view(np.float64).reshape(1, 3)
    dose = memory[48 - 24 + 4 * offset :][:24].view(np.float32)
    if offset == 0:
        histogram(dose, above=above)  # it ends where the other begins
        return
    with pytest.raises(InvalidInput, match="above: expected memory apart from dose, got arrays that overlap"):
        histogram(dose, above=above)


class Wrapped:
    """An array of no library that is known: DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_any_array_that_speaks_dlpack_is_taken():
    above = np.zeros((1, 3))
    histogram(Wrapped(ones(4)), Wrapped(ones(4)), Wrapped(above))
    assert above.tolist() == [[4.0, 4.0, 0.0]]


def test_native_code_takes_no_stream_on_the_cpu():
    buffers = (np.zeros((0, 1)), np.zeros((0, 4)), np.zeros(0))
    with pytest.raises(InvalidInput, match="stream: expected none for arrays on the CPU, got 7"):
        devices.module("cpu").cumulative_histograms(ones(2), [], 1.0, 1.0, *buffers, 7)


@settings(max_examples=150, deadline=None)
@given(
    shape=st.lists(st.sampled_from([0, 1, 2, 3, 5]), min_size=1, max_size=3),
    strides=st.lists(
        st.sampled_from([0, 1, 2, 3, 5, -1, 10, 15, 2**31, 2**40, 2**59, -(2**60)]), min_size=3, max_size=3
    ),
    which=st.sampled_from(["input", "output"]),
)
def test_strides_of_any_kind_give_the_copys_result_or_are_refused(shape, strides, which):
    """Never a crash: memory that strides lead out of is not touched."""
    memory = np.ones(125, dtype=np.float32 if which == "input" else np.float64)
    byte_strides = [stride * memory.itemsize for stride in strides[: len(shape)]]
    odd = as_strided(memory, shape, byte_strides)
    dense = memory[: int(np.prod(shape))].reshape(shape).strides
    fits = all(
        extent == 1 or want == have for extent, want, have in zip(shape, dense, byte_strides, strict=True)
    )
    if which == "input":
        arguments = {"dose": odd}
        fits = fits or odd.size == 0
    else:
        arguments = {"dose": ones(2), "above": odd}
        fits = fits and len(shape) == 2 and shape[0] == 1 and shape[1] > 0
    if not fits:
        with pytest.raises(InvalidInput):
            histogram(**arguments)
        return
    above = histogram(**arguments)
    assert above[0, 0] == arguments["dose"].size


def test_a_row_padded_or_a_sub_rectangle_is_not_dense_where_dense_is_said():
    values = np.zeros((3, 3, 3 + ROW_PADDING - 1), np.float32)
    index = np.arange(3, dtype=np.int32)
    grid = np.zeros((1, 4, 4), np.float32)[:, :1, :1]
    superpose(grid, Kernel(values, index, index, (-1, -1, -1)), np.zeros((1, 3), np.int32), 1.0)  # one voxel
    with pytest.raises(InvalidInput, match="kernel slabs: expected dense axes"):
        superpose(
            grid,
            Kernel(values, np.arange(6, dtype=np.int32)[::2], index, (-1, -1, -1)),
            np.zeros((1, 3), np.int32),
            1.0,
        )
