"""Tensors of BYTES: of each element its length in four bytes, little-endian, and its bytes, UTF-8 in ONNX."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from trocar.runtime.errors import InvalidInput
from trocar.runtime.session.base import Array

_LENGTH = 4


def read_strings(data: memoryview | bytes, shape: tuple[int, ...], what: str) -> Array:
    """Read a raw tensor.

    Raises
    ------
    InvalidInput
        The lengths do not add up to the bytes, or to the shape; or an element is not UTF-8.
    """
    count = int(np.prod(shape, dtype=object))
    elements: list[bytes] = []
    at, end = 0, len(data)
    while at < end and len(elements) < count:
        size = int.from_bytes(data[at : at + _LENGTH], "little")
        at += _LENGTH + size
        elements.append(bytes(data[at - size : at]))
    if at != end or len(elements) != count:
        raise InvalidInput(
            f"{what}: expected {count} elements for BYTES {list(shape)} in {end} bytes, each its length in "
            "4 bytes and as many bytes, got others"
        )
    return texts(elements, shape, what)


def texts(elements: Iterable[bytes], shape: tuple[int, ...], what: str) -> Array:
    """Return elements as an array of text."""
    try:
        decoded = [element.decode("utf-8") for element in elements]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{what}: expected BYTES in UTF-8, as ONNX's strings are, got others") from error
    array = np.empty(len(decoded), object)
    array[:] = decoded
    return array.reshape(shape)


def write_strings(array: Array) -> bytes:
    """Return a tensor as it travels raw."""
    encoded = [str(element).encode("utf-8") for element in array.flat]
    return b"".join(piece for each in encoded for piece in (len(each).to_bytes(_LENGTH, "little"), each))
