"""Where a caller's buffer lies: an array of NumPy, or memory of a CUDA device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from trocar.runtime.errors import InvalidInput

Array = npt.NDArray[Any]

# Elements that NumPy has no type for, and what stands for them in an array: bits, and text.
_STAND_INS = {"bfloat16": np.dtype(np.uint16), "string": np.dtype(object)}


def element_type(dtype: str) -> np.dtype[Any]:
    """Return the type of the arrays that hold elements of a `TensorSpec`'s dtype."""
    return _STAND_INS.get(dtype) or np.dtype(dtype)


class DeviceArray(Protocol):
    """Memory of a CUDA device: an array of CuPy or torch, or what `buffers.device_array` makes."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Address, shape, dtype and strides, as in version 3 of Numba's convention."""


Buffer: TypeAlias = Array | DeviceArray


@dataclass(frozen=True, slots=True)
class Memory:
    """The address of a buffer's first byte, and what is there; `contiguous` is in C's order."""

    address: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    contiguous: bool
    writable: bool
    on_device: bool

    def overlaps(self, other: Memory) -> bool:
        """Whether two contiguous buffers share a byte."""
        ends = [held.address + held.size_bytes for held in (self, other)]
        return self.on_device == other.on_device and other.address < ends[0] and self.address < ends[1]

    @property
    def size_bytes(self) -> int:
        """Bytes from the first to the last, if contiguous."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def memory_of(buffer: Buffer, where: str) -> Memory:
    """Say where a buffer lies.

    Raises
    ------
    InvalidInput
        Neither a NumPy array nor device memory; `where` begins the message.
    """
    if isinstance(buffer, np.ndarray):
        flags, address = buffer.flags, buffer.ctypes.data
        return Memory(address, buffer.dtype, buffer.shape, flags.c_contiguous, flags.writeable, False)
    facts = getattr(buffer, "__cuda_array_interface__", None)
    if not isinstance(facts, Mapping):
        raise InvalidInput(f"{where}: expected an array, got {type(buffer).__name__}")
    try:
        dtype, shape = np.dtype(facts["typestr"]), tuple(int(size) for size in facts["shape"])
        address, read_only = facts["data"]
        dense = _dense(shape, facts.get("strides"), dtype.itemsize)
        return Memory(int(address), dtype, shape, dense, not read_only, True)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"{where}: expected a device array, got {facts!r:.200}") from error


def _dense(shape: tuple[int, ...], strides: tuple[int, ...] | None, itemsize: int) -> bool:
    """Whether byte strides are those of C's order; an axis of one element may have any."""
    step = itemsize
    for size, stride in zip(reversed(shape), reversed(strides or ()), strict=False):
        if size > 1 and stride != step:
            return False
        step *= size
    return True
