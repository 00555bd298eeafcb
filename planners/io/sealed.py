"""RT Plans that carry their own proof: the plan document they were written from, and a digest of every byte.

Three private elements (creator TROCAR): the document as JSON, the seal, and in an approved copy the hash of
its entry in the audit log. The seal is the SHA-256 of the data set as encoded, with seal and entry as zeros;
it finds any change, and is no signature: whoever changes the file on purpose can seal it again.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trocar.planners.io.dicom import RT_PLAN, open_dicom, refusing
from trocar.planners.types import require
from trocar.runtime.canonical import canonical_json
from trocar.runtime.errors import InvalidInput

GROUP, CREATOR = 0x300B, "TROCAR"
_PLAN, _SEAL, _ENTRY = 0x01, 0x02, 0x03
_BLANK = "0" * 64
# The file meta information's own length, an UL at this place of every file.
_META_LENGTH_AT = 140


@dataclass(frozen=True, slots=True)
class SealedPlan:
    """What an RT Plan carries: the data set, its plan document, its seal and whether that holds.

    `entry` is the hash of an approved copy's entry in the audit log, empty in others.
    """

    dataset: Any
    document: Mapping[str, Any]
    seal: str
    whole: bool
    entry: str


def add_plan(dataset: Any, document: Mapping[str, Any]) -> None:
    """Put a plan document into a data set, with room for its seal."""
    block = dataset.private_block(GROUP, CREATOR, create=True)
    block.add_new(_PLAN, "UT", canonical_json(document))
    block.add_new(_SEAL, "LO", _BLANK)


def add_entry(dataset: Any) -> None:
    """Make room in a data set for an audit entry, and for a seal of its own."""
    block = dataset.private_block(GROUP, CREATOR)
    block.add_new(_SEAL, "LO", _BLANK)
    block.add_new(_ENTRY, "LO", _BLANK)


def seal(data: bytes) -> bytes:
    """Fill in the seal of an encoded file whose seal is blank."""
    return _filled(data, _SEAL, digest(data))


def enter(data: bytes, entry_sha256: str) -> bytes:
    """Fill in the audit entry's hash; the seal does not cover it, since the entry holds the seal."""
    return _filled(data, _ENTRY, entry_sha256)


def digest(data: bytes) -> str:
    """SHA-256 of an encoded data set, with seal and audit entry blank."""
    blank = bytearray(data)
    for element in (_SEAL, _ENTRY):
        for at in _places(data, element)[:1]:
            blank[at : at + len(_BLANK)] = _BLANK.encode()
    return hashlib.sha256(blank[_dataset_at(data) :]).hexdigest()


def read_sealed(data: bytes) -> SealedPlan:
    """Read an RT Plan that `trocar plan --dicom` wrote, or an approved copy.

    Raises
    ------
    InvalidInput
        Not such a file, or damaged.
    """
    with refusing("RTPLAN"):
        dataset = open_dicom(data, "RTPLAN", RT_PLAN)
        try:
            block = dataset.private_block(GROUP, CREATOR)
            text, stated = str(block[_PLAN].value), str(block[_SEAL].value)
        except KeyError:
            raise InvalidInput("RTPLAN: expected one that `trocar plan --dicom` wrote, got another") from None
        document = json.loads(text)
        require(isinstance(document, dict), "RTPLAN: expected a plan document in it, got another value")
        whole = len(_places(data, _SEAL)) == 1 and digest(data) == stated
        entry = str(block[_ENTRY].value) if _ENTRY in block else ""
        return SealedPlan(dataset, document, stated, whole, entry)


def _filled(data: bytes, element: int, value: str) -> bytes:
    (at,) = _places(data, element)
    return data[:at] + value.encode() + data[at + len(value) :]


def _places(data: bytes, element: int) -> list[int]:
    """Where the 64 characters of an element stand; 0x10 is the first block of a group."""
    head = struct.pack("<HBB2sH", GROUP, element, 0x10, b"LO", len(_BLANK))
    places, at = [], data.find(head, _dataset_at(data))
    while at >= 0:
        places.append(at + len(head))
        at = data.find(head, at + 1)
    return places


def _dataset_at(data: bytes) -> int:
    return _META_LENGTH_AT + 4 + int.from_bytes(data[_META_LENGTH_AT : _META_LENGTH_AT + 4], "little")
