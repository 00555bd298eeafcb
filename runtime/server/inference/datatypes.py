"""The protocol's datatypes, and what of them a session takes."""

from __future__ import annotations

from dataclasses import dataclass

from trocar.runtime.errors import InvalidInput
from trocar.runtime.session.base import TensorSpec

# A session's dtype by the protocol's name.
DTYPES: dict[str, str] = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "BF16": "bfloat16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "string",
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
# Where typed contents of a datatype stand; FP16 and BF16 have no such field and travel raw.
CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@dataclass(frozen=True, slots=True)
class Wire:
    """A tensor of a session, as the protocol says it."""

    datatype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, spec: TensorSpec) -> Wire:
        """Return datatype and shape, -1 for an axis of any size."""
        return cls(NAMES[spec.dtype], tuple(size if isinstance(size, int) else -1 for size in spec.shape))


def described(spec: TensorSpec) -> str:
    """Datatype and shape of a session's tensor, in the protocol's words."""
    return f"{NAMES[spec.dtype]} [{', '.join('?' if size is None else str(size) for size in spec.shape)}]"


def require_tensor(spec: TensorSpec, datatype: str, shape: tuple[int, ...]) -> None:
    """Hold a request's tensor against what the session takes; named axes are the session's to compare.

    Raises
    ------
    InvalidInput
        Another datatype, rank or size; the message has both.
    """
    if datatype not in DTYPES:
        raise InvalidInput(
            f"input {spec.name}: expected a datatype of {', '.join(DTYPES)}, got {datatype!r:.40}"
        )
    fits = len(shape) == len(spec.shape) and all(
        size == axis if isinstance(axis, int) else size > 0
        for axis, size in zip(spec.shape, shape, strict=True)
    )
    if DTYPES[datatype] != spec.dtype or not fits:
        got = ", ".join(map(str, shape[:10])) + (", ..." if len(shape) > 10 else "")
        raise InvalidInput(f"input {spec.name}: expected {described(spec)}, got {datatype} [{got}]")
