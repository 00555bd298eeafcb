"""What every session is: named tensors in, named tensors out, checked before they reach a backend.

Backends differ in what they let through: ONNX Runtime broadcasts a batch of 1 against a batch of 2 and
takes big-endian floats for garbage, both without a word. The checks here hold for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from trocar.runtime.device import Device
from trocar.runtime.errors import InvalidInput

Array = npt.NDArray[Any]
# A fixed size; a name for a dynamic axis, one size wherever the name stands; None for any size.
Dim = int | str | None


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a network.

    Parameters
    ----------
    name : the tensor's name in the graph.
    dtype : a NumPy type name, such as `float32`, in the machine's byte order.
    shape : axes, outermost first; see `Dim`.
    layout : what the axes are, such as `batch channel plane row column`; a manifest says it, a graph cannot.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    layout: str = field(default="", compare=False)

    def __str__(self) -> str:
        """Dtype and shape, as in messages."""
        return f"{self.dtype} [{', '.join('?' if size is None else str(size) for size in self.shape)}]"


class Session(Protocol):
    """A network that is ready to run. `run` may be called from several threads at once."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` must be given, all of it."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` returns."""

    @property
    def provider(self) -> str:
        """What executes the graph, as its backend names it, such as `CPUExecutionProvider`."""

    @property
    def device(self) -> Device:
        """Where it runs, and why there."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network once.

        The caller's arrays are read in place where they are contiguous, and never written.

        Raises
        ------
        InvalidInput
            A name, dtype or shape is not what `inputs` says; the message has both.
        DeviceError
            The backend failed.
        """


def check_feeds(specs: Sequence[TensorSpec], feeds: Mapping[str, Array], *, what: str = "input") -> None:
    """Check arrays against what is expected.

    Raises
    ------
    InvalidInput
        Names missing or unknown, a value that is not an array, another dtype or byte order, another
        shape, or two sizes for one named axis.
    """
    names = [spec.name for spec in specs]
    if set(feeds) != set(names):
        raise InvalidInput(f"expected {what}s {_listed(names)}, got {_listed(sorted(map(str, feeds)))}")
    sizes: dict[str, tuple[int, str]] = {}
    for spec in specs:
        array = feeds[spec.name]
        if not isinstance(array, np.ndarray):
            raise InvalidInput(f"{what} {spec.name}: expected an array, got {type(array).__name__}")
        if array.dtype != np.dtype(spec.dtype) or not _fits(spec.shape, array.shape):
            raise InvalidInput(f"{what} {spec.name}: expected {spec}, got {_described(array)}")
        for axis, size in zip(spec.shape, array.shape, strict=True):
            if isinstance(axis, str) and sizes.setdefault(axis, (size, spec.name))[0] != size:
                known, owner = sizes[axis]
                raise InvalidInput(
                    f"{what} {spec.name}: expected {axis} = {known} as in {owner}, got {_described(array)}"
                )


def _fits(expected: tuple[Dim, ...], shape: tuple[int, ...]) -> bool:
    return len(expected) == len(shape) and all(
        size == axis if isinstance(axis, int) else size > 0
        for axis, size in zip(expected, shape, strict=True)
    )


def _described(array: Array) -> str:
    native = array.dtype.isnative
    order = "" if native else " in foreign byte order"
    return f"{array.dtype.name} {list(array.shape)}{order}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"
