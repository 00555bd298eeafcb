"""The bytes of ModelInfer: raw tensors are found where they lie, all else is protobuf's to read.

A request is a few hundred bytes of names and shapes and, behind them, megabytes of tensors. Protobuf would
copy the tensors twice; here they stay views of the message. The rest, the *head*, is handed to protobuf as it
stands, and since a stream of requests repeats it, whoever reads it may keep what it means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trocar.runtime.errors import InvalidInput

# Fields of ModelInferRequest that are not left in the head.
ID, RAW = 3, 7
# A message may hold this many fields at its top: inputs, outputs, parameters and tensors together.
MAX_FIELDS = 4096
# Names, shapes, and tensors as typed contents. Parsed, an element takes several times its bytes.
MAX_HEAD_BYTES = 8 << 20
MAX_ID_BYTES = 1024
_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_FIXED = {_I64: 8, _I32: 4}


@dataclass(frozen=True, slots=True)
class Request:
    """A ModelInferRequest taken apart.

    Parameters
    ----------
    head : all fields but `id` and `raw_input_contents`, as they came.
    id : the client's name for the request.
    raw : the tensors, as views of the message.
    """

    head: bytes
    id: bytes
    raw: list[memoryview]


def split(message: bytes) -> Request:
    """Take a request apart.

    Raises
    ------
    InvalidInput
        The bytes are no protobuf message, or one with more in it than is taken.
    """
    view = memoryview(message)
    end, at, fields = len(message), 0, 0
    # Where the head's bytes begin and end; neighbours are one piece.
    pieces: list[tuple[int, int]] = []
    head_from = 0
    request_id = b""
    raw: list[memoryview] = []
    while at < end:
        start = at
        fields += 1
        if fields > MAX_FIELDS:
            raise InvalidInput(f"expected a ModelInferRequest of at most {MAX_FIELDS} fields, got more")
        tag, at = _varint(message, at, end)
        kind = tag & 7
        if kind == _LEN:
            size, at = _varint(message, at, end)
            at += size
        elif kind == _VARINT:
            _, at = _varint(message, at, end)
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise _malformed()
        if at > end or tag < 8:
            raise _malformed()
        if kind == _LEN and (tag >> 3 == RAW or tag >> 3 == ID):
            if start > head_from:
                pieces.append((head_from, start))
            head_from = at
            if tag >> 3 == RAW:
                raw.append(view[at - size : at])
            else:
                request_id = message[at - size : at]
    if end > head_from:
        pieces.append((head_from, end))
    if sum(stop - start for start, stop in pieces) > MAX_HEAD_BYTES:
        raise InvalidInput(
            f"expected at most {MAX_HEAD_BYTES} bytes beside raw_input_contents, got more; "
            "large tensors travel raw"
        )
    return Request(b"".join([message[start:stop] for start, stop in pieces]), _checked_id(request_id), raw)


def _checked_id(text: bytes) -> bytes:
    if len(text) > MAX_ID_BYTES:
        raise InvalidInput(f"expected an id of at most {MAX_ID_BYTES} bytes, got {len(text)}")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput("expected an id in UTF-8, got other bytes") from error
    return text


def _varint(message: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the number at `at` and where it ends."""
    value = shift = 0
    while at < end and shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _malformed()


def _malformed() -> InvalidInput:
    return InvalidInput("expected the protobuf message ModelInferRequest, got bytes that do not parse as it")


def varint(value: int) -> bytes:
    """Return a whole number as protobuf writes it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(field: int, size: int) -> bytes:
    """Return what stands before `size` bytes of a field: its number and their count."""
    return varint(field << 3 | _LEN) + varint(size)


def reply(head: bytes, request_id: bytes, tensors: Sequence[memoryview | bytes]) -> list[bytes | memoryview]:
    """Return a ModelInferResponse in pieces, to be joined once.

    Parameters
    ----------
    head : `model_name`, `model_version` and `outputs`, encoded.
    request_id : the request's.
    tensors : little-endian elements of each output in turn, empty where they went elsewhere.
    """
    pieces: list[bytes | memoryview] = [head]
    if request_id:
        pieces += [delimited(3, len(request_id)), request_id]
    for tensor in tensors:
        pieces += [delimited(6, len(tensor)), tensor]
    return pieces


def in_stream(pieces: Sequence[bytes | memoryview]) -> bytes:
    """Return a reply wrapped as ModelStreamInferResponse."""
    return b"".join([delimited(2, sum(map(len, pieces))), *pieces])


def stream_error(message: str) -> bytes:
    """Return a ModelStreamInferResponse that says why there is no reply."""
    data = message.encode()
    return delimited(1, len(data)) + data
