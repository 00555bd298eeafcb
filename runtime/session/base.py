"""What every session is: named tensors in, named tensors out, checked before they reach a backend.

Backends differ in what they let through: ONNX Runtime broadcasts a batch of 1 against a batch of 2 and
takes big-endian floats for garbage, both without a word. The checks here hold for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from trocar.runtime.device import Device
from trocar.runtime.errors import InvalidInput
from trocar.runtime.session.memory import Array, Buffer, Memory, element_type, memory_of

__all__ = [
    "Array",
    "Binding",
    "Buffer",
    "Dim",
    "Session",
    "TensorSpec",
    "check_bound",
    "check_feeds",
    "element_type",
]

# A fixed size; a name for a dynamic axis, one size wherever the name stands; None for any size.
Dim = int | str | None


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a network.

    Parameters
    ----------
    name : the tensor's name in the graph.
    dtype : a NumPy type name, such as `float32`, in the machine's byte order; or `bfloat16`, whose arrays are
        uint16 with its bits, or `string`, whose arrays are of objects, all `str`; see `element_type`.
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


class Binding(Protocol):
    """A session on buffers that are the caller's; one thread at a time."""

    def run(self) -> None:
        """Run once: what the inputs hold now is read, and the outputs are written when it returns.

        Raises
        ------
        DeviceError
            The backend failed; the outputs hold nothing of use.
        """


class Session(Protocol):
    """A network that is ready to run. `run` and `run_into` may be called from several threads at once."""

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

    def bind(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Binding:
        """Take the caller's buffers for any number of runs: checked once, read and written in place.

        Parameters
        ----------
        feeds : an array for each input, C-contiguous. Device arrays only where `device` is CUDA.
        outputs : an array for each output, of the shape that these inputs give; C-contiguous, writable, and
            sharing no memory with any other.

        Raises
        ------
        InvalidInput
            A name, dtype, shape or memory is not so; the message has both sides. Where an axis of an output
            has no name, a wrong size of it may show only when it runs, as a `DeviceError`.
        """

    def run_into(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        """Run once into the caller's buffers; see `bind` and `Binding.run`."""


def check_feeds(specs: Sequence[TensorSpec], feeds: Mapping[str, Array], *, what: str = "input") -> None:
    """Check arrays against what is expected.

    Raises
    ------
    InvalidInput
        Names missing or unknown, a value that is not an array, another dtype or byte order, another
        shape, or two sizes for one named axis.
    """
    _check_names(specs, feeds, what)
    sizes: dict[str, tuple[int, str]] = {}
    for spec in specs:
        array = feeds[spec.name]
        if not isinstance(array, np.ndarray):
            raise InvalidInput(f"{what} {spec.name}: expected an array, got {type(array).__name__}")
        _check_tensor(spec, array.dtype, array.shape, sizes, what)
        if spec.dtype == "string" and not all(isinstance(element, str) for element in array.flat):
            raise InvalidInput(f"{what} {spec.name}: expected elements of type str, got others")


def check_bound(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    feeds: Mapping[str, Buffer],
    targets: Mapping[str, Buffer],
    *,
    device: Device,
) -> None:
    """Check buffers that a backend reads and writes in place.

    Parameters
    ----------
    inputs, outputs : what the session takes and gives.
    feeds, targets : the buffers for them.
    device : where the session runs.

    Raises
    ------
    InvalidInput
        As `check_feeds`, with one size a named axis over inputs and outputs; or a buffer that is not
        contiguous, a target that cannot be written or shares memory, or memory of a device that is not
        the session's.
    """
    sizes: dict[str, tuple[int, str]] = {}
    seen: list[tuple[str, Memory]] = []
    for specs, buffers, what in ((inputs, feeds, "input"), (outputs, targets, "output")):
        _check_names(specs, buffers, what)
        for spec in specs:
            if spec.dtype == "string":
                raise InvalidInput(f"{what} {spec.name}: expected elements of one size to bind, got strings")
            memory = memory_of(buffers[spec.name], f"{what} {spec.name}")
            if memory.on_device and device.kind != "cuda":
                raise InvalidInput(
                    f"{what} {spec.name}: expected memory of the {device.kind}, got a device array"
                )
            _check_tensor(spec, memory.dtype, memory.shape, sizes, what)
            if not memory.contiguous:
                raise InvalidInput(f"{what} {spec.name}: expected a C-contiguous array, got strides in it")
            if what == "output":
                _check_target(spec.name, memory, seen)
            seen.append((f"{what} {spec.name}", memory))


def _check_target(name: str, memory: Memory, seen: Sequence[tuple[str, Memory]]) -> None:
    if not memory.writable:
        raise InvalidInput(f"output {name}: expected an array that can be written, got a read-only one")
    for other, held in seen:
        if memory.overlaps(held):
            raise InvalidInput(f"output {name}: expected memory of its own, got some of {other}")


def _check_names(specs: Sequence[TensorSpec], given: Mapping[str, Any], what: str) -> None:
    names = [spec.name for spec in specs]
    if set(given) != set(names):
        raise InvalidInput(f"expected {what}s {_listed(names)}, got {_listed(sorted(map(str, given)))}")


def _check_tensor(
    spec: TensorSpec,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    sizes: dict[str, tuple[int, str]],
    what: str,
) -> None:
    """Hold dtype and shape against a spec; `sizes` keeps each named axis' size and who said it first."""
    described = f"{dtype.name} {list(shape)}{'' if dtype.isnative else ' in foreign byte order'}"
    if dtype != element_type(spec.dtype) or not _fits(spec.shape, shape):
        raise InvalidInput(f"{what} {spec.name}: expected {spec}, got {described}")
    for axis, size in zip(spec.shape, shape, strict=True):
        if isinstance(axis, str) and sizes.setdefault(axis, (size, spec.name))[0] != size:
            known, owner = sizes[axis]
            raise InvalidInput(
                f"{what} {spec.name}: expected {axis} = {known} as in {owner}, got {described}"
            )


def _fits(expected: tuple[Dim, ...], shape: tuple[int, ...]) -> bool:
    return len(expected) == len(shape) and all(
        size == axis if isinstance(axis, int) else size > 0
        for axis, size in zip(expected, shape, strict=True)
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"
