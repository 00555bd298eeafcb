"""ONNX files written field by field (onnx.proto, IR 8): measuring does not bring the onnx package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FLOAT, UINT8, INT64 = 1, 2, 7
_TYPES = {"float32": FLOAT, "uint8": UINT8, "int64": INT64}
_IR, _INT, _INTS = 8, 2, 7


def model(
    name: str, nodes: bytes, inputs: bytes, outputs: bytes, constants: bytes = b"", *, opset: int
) -> bytes:
    """A file: nodes of `node`, inputs and outputs of `value`, constants of `constant`, joined."""
    body = nodes + _part(2, name.encode()) + constants + inputs + outputs
    return _number(1, _IR) + _part(7, body) + _part(8, _number(2, opset))


def node(operator: str, inputs: Sequence[str], output: str, **attributes: int | Sequence[int]) -> bytes:
    """An operation with its attributes, whole numbers or lists of them."""
    found = b"".join(_part(1, name.encode()) for name in inputs)
    found += _part(2, output.encode()) + _part(4, operator.encode())
    return _part(1, found + b"".join(_part(5, _attribute(name, each)) for name, each in attributes.items()))


def value(field: str, name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    """A tensor that comes or goes; `field` is `input` or `output`, an axis of any length has a name."""
    axes = b"".join(
        _part(1, _number(1, size) if isinstance(size, int) else _part(2, size.encode())) for size in shape
    )
    tensor = _part(1, _number(1, kind) + _part(2, axes))
    return _part({"input": 11, "output": 12}[field], _part(1, name.encode()) + _part(2, tensor))


def constant(name: str, array: npt.NDArray[np.generic[Any]]) -> bytes:
    """A tensor that is part of the file."""
    sizes = b"".join(_number(1, size) for size in array.shape)
    kind = _number(2, _TYPES[array.dtype.name])
    return _part(5, sizes + kind + _part(8, name.encode()) + _part(9, array.tobytes()))


def _attribute(name: str, given: int | Sequence[int]) -> bytes:
    if isinstance(given, int):
        return _part(1, name.encode()) + _number(3, given) + _number(20, _INT)
    return _part(1, name.encode()) + b"".join(_number(8, each) for each in given) + _number(20, _INTS)


def _part(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _number(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
