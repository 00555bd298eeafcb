"""Where buffers lie: held against what NumPy says of the same memory."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trocar.runtime.device import Device
from trocar.runtime.errors import InvalidInput
from trocar.runtime.session.base import TensorSpec, check_bound
from trocar.runtime.session.memory import memory_of

CPU = Device("cpu", "this", "asked for")
GPU = Device("cuda", "Imaginary 9000", "the driver has it")
X, Y = TensorSpec("x", "float32", (None,)), TensorSpec("y", "float32", (None,))
ARENA = np.zeros(32, np.float32)


def on_device(array: np.ndarray[Any, Any]) -> SimpleNamespace:
    return SimpleNamespace(__cuda_array_interface__={**array.__array_interface__, "strides": array.strides})


@given(
    starts=st.tuples(st.integers(0, 24), st.integers(0, 24)),
    sizes=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    device=st.sampled_from([CPU, GPU]),
)
def test_shared_memory_is_refused_exactly_where_there_is_some(
    starts: tuple[int, int], sizes: tuple[int, int], device: Device
) -> None:
    x, y = (ARENA[start : start + size] for start, size in zip(starts, sizes, strict=True))
    wrap: Any = on_device if device is GPU else (lambda array: array)
    message = "output y: expected memory of its own, got some of input x"
    expected = pytest.raises(InvalidInput, match=message) if np.shares_memory(x, y) else nullcontext()
    with expected:
        check_bound([X], [Y], {"x": wrap(x)}, {"y": wrap(y)}, device=device)


@given(
    shape=st.lists(st.integers(1, 4), max_size=4).map(tuple),
    order=st.sampled_from("CF"),
    step=st.sampled_from([1, 2]),
)
def test_strides_are_dense_exactly_where_numpy_says_so(shape: tuple[int, ...], order: Any, step: int) -> None:
    wide = np.zeros([*shape[:-1], shape[-1] * step] if shape else shape, np.float32, order=order)
    array = wide[..., ::step] if shape else wide
    assert memory_of(on_device(array), "x").contiguous == array.flags.c_contiguous
    assert memory_of(array, "x").contiguous == array.flags.c_contiguous


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"typestr": "<f4", "shape": (2,)},
        {"typestr": "nonsense", "shape": (2,), "data": (1, False)},
        {"typestr": "<f4", "shape": None, "data": (1, False)},
        {"typestr": "<f4", "shape": (2,), "data": 4096},
        {"typestr": "<f4", "shape": (2,), "data": (None, False)},
    ],
)
def test_a_device_array_that_says_nonsense_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="input x: expected a device array, got "):
        memory_of(SimpleNamespace(__cuda_array_interface__=facts), "input x")


@pytest.mark.parametrize("value", [None, 3.0, [1.0], memoryview(b"1234")])
def test_what_is_no_array_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match="input x: expected an array, got "):
        memory_of(value, "input x")
