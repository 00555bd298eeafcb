"""Buffers for a session to read and write in place: on the host, pinned where a GPU copies, or on the GPU.

Pinned memory comes from the driver, so that it serves ONNX Runtime, TensorRT and kernels alike. None of this
has been run on a GPU: the tests hold the calls against a stand-in for the driver.
"""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from typing import Any

import numpy as np

from trocar.runtime.device import Device
from trocar.runtime.errors import DeviceError, InvalidInput
from trocar.runtime.session.cuda import Driver
from trocar.runtime.session.memory import Array, element_type

ALIGNMENT = 64


def host_array(shape: tuple[int, ...], dtype: str, device: Device) -> Array:
    """Make an array of zeros, its first element at a multiple of 64 bytes.

    Parameters
    ----------
    shape, dtype : of the array, such as `(1, 3, 256, 448)` and `float32`.
    device : of the session that will use it; for CUDA the memory is pinned.

    Raises
    ------
    InvalidInput
        A size is not positive.
    DeviceError
        The driver gives no pinned memory.
    """
    size_bytes = _size_bytes(shape, dtype)
    if device.kind == "cuda":
        return _pinned(size_bytes).view(element_type(dtype)).reshape(shape)
    raw = np.zeros(size_bytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size_bytes].view(element_type(dtype)).reshape(shape)


class DeviceBuffer:
    """Memory of the GPU. `device_array` makes it; CuPy, torch and the kernels take it without a copy."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self.shape = tuple(int(size) for size in value.shape())

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Where it lies; version 3 of Numba's convention, without a stream."""
        return {
            "shape": self.shape,
            "typestr": self._dtype.str,
            "data": (self._value.data_ptr(), False),
            "strides": None,
            "version": 3,
        }

    def __dlpack__(self, *, stream: Any = None) -> Any:
        """Lend the memory by DLPack."""
        return self._value.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Kind and number of the device, by DLPack."""
        kind, number = self._value.__dlpack_device__()
        return int(kind), int(number)

    def upload(self, values: Array) -> None:
        """Copy from the host: an array of this shape and dtype."""
        if values.shape != self.shape or values.dtype != self._dtype:
            expected = f"{self._dtype.name} {list(self.shape)}"
            raise InvalidInput(f"expected {expected}, got {values.dtype.name} {list(values.shape)}")
        self._value.update_inplace(np.ascontiguousarray(values))

    def download(self) -> Array:
        """Return a copy on the host."""
        copy: Array = self._value.numpy()
        return copy

    @property
    def _dtype(self) -> np.dtype[Any]:
        from trocar.runtime.session.ort import DTYPES

        return np.dtype(DTYPES[self._value.data_type()])


def device_array(shape: tuple[int, ...], dtype: str) -> DeviceBuffer:
    """Make an array on the GPU, with whatever was there.

    Raises
    ------
    InvalidInput
        A size is not positive.
    DeviceError
        ONNX Runtime has no memory of a GPU to give.
    """
    import onnxruntime

    _size_bytes(shape, dtype)
    try:
        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.dtype(dtype).type, "cuda", 0)
    except Exception as error:  # its errors share no base class of their own
        reason = next(iter(str(error).splitlines()), "")
        raise DeviceError(f"expected memory of a CUDA device, got none: {reason}") from error
    return DeviceBuffer(value)


def _size_bytes(shape: tuple[int, ...], dtype: str) -> int:
    if not all(size > 0 for size in shape):
        raise InvalidInput(f"expected positive sizes, got {list(shape)}")
    return int(np.prod(shape, dtype=np.int64)) * element_type(dtype).itemsize


def _pinned(size_bytes: int) -> Array:
    """Ask the driver for pinned memory; it is given back when the last array on it is gone."""
    driver = Driver()
    context = driver.retain(driver.gpu())
    driver.use(context)
    address = driver.allocate_host(size_bytes)
    block = (ctypes.c_uint8 * size_bytes).from_address(address)
    weakref.finalize(block, _give_back, driver, context, address)
    array: Array = np.frombuffer(memoryview(block), np.uint8)
    array[:] = 0
    return array


def _give_back(driver: Driver, context: int, address: int) -> None:
    """Free pinned memory, whatever thread drops it; when the process ends the driver may be gone already."""
    with contextlib.suppress(DeviceError):
        driver.use(context)
        driver.free_host(address)
