"""A GPU's streams, buffers and copies, for callers that bring no library with its own.

The kernels take any array that speaks DLPack (see `devices`); torch and CuPy do, and so does what
`empty` gives. Importing this needs no driver; using it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trocar.runtime.errors import DeviceError, InvalidInput
from trocar.runtime.kernels import devices


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """A dense array on a GPU; its memory goes with it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    memory: Any

    def __dlpack__(self, **options: Any) -> Any:
        """Share the memory."""
        return self.memory.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Which GPU."""
        kind, index = self.memory.__dlpack_device__()
        return int(kind), int(index)


class Stream:
    """A CUDA stream of one's own: `op(..., stream=stream.handle)`.

    Raises
    ------
    DeviceError : no driver, no such device, or no CUDA kernels in this build.
    """

    def __init__(self, device: int = 0) -> None:
        self.device = device
        self._native = devices.module("cuda")
        self._stream = self._native.Stream(device)
        self.handle: int = self._stream.handle

    def synchronize(self) -> None:
        """Wait for the work in it; a kernel's failure is raised here."""
        self._stream.synchronize()

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """Allocate an array on the stream's device, uninitialised."""
        kind = np.dtype(dtype)
        return DeviceArray(shape, kind, self._native.empty(list(shape), kind.name, self.device))

    def copy(self, src: devices.Array, out: devices.Array) -> None:
        """Copy between the CPU and GPUs, in the stream: both dense, of one shape and dtype."""
        self._native.copy(src, out, self.handle)

    def put(self, host: npt.NDArray[Any]) -> DeviceArray:
        """Copy an array to the device, and wait for it."""
        dense = np.ascontiguousarray(host)
        array = self.empty(dense.shape, dense.dtype)
        self.copy(dense, array)
        self.synchronize()
        return array

    def get(self, array: DeviceArray) -> npt.NDArray[Any]:
        """Copy an array to the CPU, after what is in the stream, and wait for it."""
        host = np.empty(array.shape, array.dtype)
        self.copy(array, host)
        self.synchronize()
        return host

    @contextmanager
    def recorded(self) -> Iterator[Any]:
        """Record what is put into the stream meanwhile, undone; `graph.launch()` then does it all as one."""
        graph = self._native.Graph(self._stream)
        yield graph
        graph.finish()

    def event(self) -> Any:
        """A point in time: `event.record(stream.handle)`, later `event.since(earlier)` in ms."""
        return self._native.Event(self.device)


@dataclass(frozen=True, slots=True)
class Build:
    """What the CUDA module was built with."""

    architectures: tuple[str, ...]
    nvcc: str
    runtime: str
    driver: str | None


def build() -> Build | None:
    """What the CUDA kernels were built with, and the driver's CUDA version, if any; None without them."""
    try:
        native = devices.module("cuda")
    except DeviceError:
        return None
    found = native.build()
    return Build(tuple(found["architectures"].split()), found["nvcc"], found["runtime"], found["driver"])


def why_not() -> str | None:
    """Why no GPU can be used here, in one line; None where one can."""
    try:
        native = devices.module("cuda")
        if native.build()["driver"] is None:
            return "no CUDA driver"
        count = native.device_count()
    except DeviceError as error:
        return str(error)
    return None if count else "the driver knows no device"


def properties(device: int = 0) -> dict[str, Any]:
    """`name`, `compute_capability`, `multiprocessors`, `memory_bytes` and `l2_bytes` of a device."""
    if why := why_not():
        raise DeviceError(f"expected a CUDA device, got none: {why}")
    if device < 0:
        raise InvalidInput(f"device: expected an index of at least 0, got {device}")
    return dict(devices.module("cuda").properties(device))
