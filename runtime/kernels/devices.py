"""Where a kernel runs: on the device of its arrays, in the caller's stream.

The rules are the same for every kernel. All arrays of a call lie on one device, and nothing is copied.
On the CPU the call returns when the work is done. On a GPU it returns when the work stands in the
stream: the caller orders it after whatever writes the arrays, and keeps them until it is done. There
is no default stream: one must be given.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Final, Protocol

import numpy as np

from trocar.runtime.errors import DeviceError, InvalidInput

# Kinds of memory as DLPack numbers them: pinned memory is the CPU's, managed memory the GPU's.
_CPU, _CUDA = (1, 3), (2, 13)
_MODULES: Final = {"cpu": "trocar.runtime.kernels._native", "cuda": "trocar.runtime.kernels._cuda"}


class Array(Protocol):
    """An array of any library that speaks DLPack: NumPy, torch, CuPy."""

    def __dlpack_device__(self) -> tuple[int, int]:
        """Kind of memory and device index."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where one call runs.

    Parameters
    ----------
    native : the module with the kernels: `native.op(..., target.stream)`.
    stream : the CUDA stream's handle; 0 on the CPU.
    device : `cpu` or `cuda`.
    index : which GPU; 0 on the CPU.
    """

    native: ModuleType
    stream: int
    device: str
    index: int


def target(stream: int | None, **arrays: Array) -> Target:
    """Find the device of a call's arrays.

    Parameters
    ----------
    stream : handle of the caller's CUDA stream; None on the CPU.
    arrays : the arrays by the names that the caller knows them by.

    Raises
    ------
    InvalidInput
        Something is no array, the arrays lie on several devices, or the stream does not fit the device.
    DeviceError
        The arrays are on a GPU and trocar was built without CUDA.
    """
    where = {name: _place(name, array) for name, array in arrays.items()}
    (first, place), *others = where.items()
    for name, other in others:
        if other != place:
            raise InvalidInput(
                f"{name}: expected an array on {_name(place)}, as {first}, got one on {_name(other)}"
            )
    kind, index = place
    if kind == "cpu":
        if stream is not None:
            raise InvalidInput(f"stream: expected none for arrays on the CPU, got {stream!r}")
        return Target(module(kind), 0, kind, 0)
    if type(stream) is not int or not 2 < stream < 1 << 64:
        raise InvalidInput(
            f"stream: expected the handle of a CUDA stream of your own, not the default one, got {stream!r}"
        )
    return Target(module(kind), stream, kind, index)


def module(kind: str) -> ModuleType:
    """Import the kernels of a kind of device.

    Raises
    ------
    DeviceError
        This build has none for it.
    """
    try:
        return importlib.import_module(_MODULES[kind])
    except ModuleNotFoundError:
        raise DeviceError(
            f"expected kernels for {kind}, got a trocar without them: it was built without nvcc"
        ) from None


def _place(name: str, array: Array) -> tuple[str, int]:
    if isinstance(array, np.ndarray):
        return "cpu", 0
    try:
        kind, index = array.__dlpack_device__()
    except (AttributeError, TypeError):
        raise InvalidInput(
            f"{name}: expected an array that DLPack can share, got {type(array).__name__}"
        ) from None
    if kind in _CPU:
        return "cpu", 0
    if kind in _CUDA:
        return "cuda", int(index)
    raise InvalidInput(
        f"{name}: expected an array on the CPU or a CUDA device, got DLPack device {int(kind)}"
    )


def _name(place: tuple[str, int]) -> str:
    kind, index = place
    return "the CPU" if kind == "cpu" else f"CUDA device {index}"
