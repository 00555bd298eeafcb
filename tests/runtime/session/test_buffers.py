from __future__ import annotations

import ctypes
import gc
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from trocar.runtime.device import Device
from trocar.runtime.errors import DeviceError, InvalidInput
from trocar.runtime.session.buffers import DeviceBuffer, device_array, host_array
from trocar.runtime.session.memory import memory_of

ON_CPU = Device("cpu", "this", "asked for")
ON_GPU = Device("cuda", "Imaginary 9000", "the driver has it")


@pytest.mark.parametrize(("shape", "dtype"), [((3, 5, 7), "float32"), ((1,), "uint8"), ((), "float16")])
def test_host_arrays_are_aligned_zeros(shape: tuple[int, ...], dtype: str) -> None:
    array = host_array(shape, dtype, ON_CPU)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.ctypes.data % 64 == 0
    assert array.flags.c_contiguous
    assert not array.any()
    array[...] = 1


@pytest.mark.parametrize("shape", [(0, 3), (2, -1)])
def test_sizes_must_be_positive(shape: tuple[int, ...]) -> None:
    for make in (lambda: host_array(shape, "float32", ON_CPU), lambda: device_array(shape, "float32")):
        with pytest.raises(InvalidInput, match="expected positive sizes"):
            make()


class Library:
    """A CUDA driver whose pinned memory is ordinary memory; one of its calls may fail."""

    def __init__(self, fails: str = "") -> None:
        self.calls: list[str] = []
        self.fails = fails
        self.memory: Any = None

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name == self.fails:
                return 2
            if name == "cuDeviceGetCount":
                arguments[0]._obj.value = 1
            if name == "cuMemHostAlloc":
                self.memory = (ctypes.c_uint8 * arguments[1])(*[255] * arguments[1])
                arguments[0]._obj.value = ctypes.addressof(self.memory)
            return 0

        return call


def test_pinned_memory_is_asked_of_the_driver_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: library)
    array = host_array((2, 3), "float32", ON_GPU)
    assert array.ctypes.data == ctypes.addressof(library.memory)
    assert len(library.memory) == 24
    assert not array.any()
    part = array[1]
    del array
    gc.collect()
    assert "cuMemFreeHost" not in library.calls, "a view still needs it"
    del part
    gc.collect()
    assert library.calls[-2:] == ["cuCtxSetCurrent", "cuMemFreeHost"]


@pytest.mark.parametrize("call", ["cuInit", "cuDevicePrimaryCtxRetain", "cuMemHostAlloc"])
def test_a_driver_that_gives_none_says_so(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Library(fails=call))
    with pytest.raises(DeviceError, match=f"the driver's {call} answers 2"):
        host_array((2, 3), "float32", ON_GPU)


def cpu_value(shape: tuple[int, ...]) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cpu", 0)


def test_a_device_buffer_says_where_it_lies_and_copies_both_ways() -> None:
    value = cpu_value((2, 3))
    buffer = DeviceBuffer(value)
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    buffer.upload(values)
    np.testing.assert_array_equal(buffer.download(), values)
    memory = memory_of(buffer, "x")
    assert (memory.address, memory.shape, memory.dtype) == (value.data_ptr(), (2, 3), np.dtype("float32"))
    assert memory.contiguous
    assert memory.on_device
    np.testing.assert_array_equal(np.from_dlpack(buffer), values)
    with pytest.raises(InvalidInput, match=r"expected float32 \[2, 3\], got float64 \[2, 3\]"):
        buffer.upload(values.astype(np.float64))


def test_without_a_gpu_there_is_no_device_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("No CUDA allocator")

    value = SimpleNamespace(ortvalue_from_shape_and_type=refuse)
    monkeypatch.setattr(onnxruntime, "OrtValue", value)
    with pytest.raises(DeviceError, match="expected memory of a CUDA device, got none: No CUDA allocator"):
        device_array((2, 3), "float32")
