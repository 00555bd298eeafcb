"""Files damaged at random, the same for the same number: as bytes, as DICOM elements, as NRRD header lines.

DICOM is taken apart and put together here and not by pydicom, which would not write what it should not read.
"""

from __future__ import annotations

import functools
import gzip
import random
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

LONG_FORM = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
VRS = (
    b"DS",
    b"IS",
    b"FD",
    b"FL",
    b"US",
    b"UL",
    b"SQ",
    b"UN",
    b"LO",
    b"PN",
    b"UI",
    b"OW",
    b"OB",
    b"AT",
    b"??",
)
UNDEFINED = 0xFFFFFFFF
DEEP = 3000
NUMBERS = (
    b"nan", b"inf", b"-inf", b"1e400", b"1e308", b"-1e308", b"1e-400", b"-1", b"0", b"-0", b"", b" ", b"1",
    b"2147483647", b"-2147483648", b"4294967296", b"9" * 16, b"9" * 400, b"1.5", b"0x10", b"1_000", b"1e3",
    b"\xd9\xa3", b"+", b"-", b".", b"1,5", b"1 2", b"\0", b"\xff\xfe", b"none", b"1\\2", b"NaN\\NaN\\NaN",
    b"0.0000001", b"100000", b"10000", b"65536", b"1000000000000000000000",
)  # fmt: skip
TEXTS = (
    b"HDR", b"PERMANENT", b"CLOSED_PLANAR", b"POINT", b"OPEN_PLANAR", b"INCLUDED", b"GY", b"CGY", b"TARGET",
    b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99",
    b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.5.1.4.1.1.481.2", b"1.2.840.10008.5.1.4.1.1.481.3",
    b"1.2.840.10008.5.1.4.1.1.481.5", b"ISO 2022 IR 87", b"ISO_IR 999", b"20269999", b"999999.9",
    b"CTV", b"Prostate", b"PTV", b"Urethra", b"\x1b$B" * 9, b"%s%n{}" * 9, b"A" * 70_000,
)  # fmt: skip


@dataclass
class Element:
    """One DICOM element: bytes, or the items of a sequence; `length`, where set, replaces the true one."""

    tag: tuple[int, int]
    vr: bytes
    value: bytes | list[list[Element]]
    length: int | None = None


def mutated(number: int, seeds: dict[str, list[bytes]], seed: int) -> tuple[str, bytes]:
    """Return the kind and the bytes of damaged file `number`."""
    generator = random.Random(f"{seed}:{number}")
    kind = sorted(seeds)[number % len(seeds)]
    data = generator.choice(seeds[kind])
    ways = (_nrrd, _nrrd, _bytes) if kind == "nrrd" else (_dicom, _dicom, _bytes)
    for _ in range(generator.choice((1, 1, 1, 2, 2, 4))):
        data = generator.choice(ways)(data, generator)
    return kind, data


def _bytes(data: bytes, generator: random.Random) -> bytes:
    """Flip, insert, delete, repeat, blank or cut bytes anywhere."""
    changed = bytearray(data)
    at = generator.randrange(len(changed) + 1)
    size = generator.choice((1, 2, 4, 16, 300))
    way = generator.randrange(7)
    if way == 0:
        for _ in range(generator.choice((1, 1, 3, 30))):
            changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    elif way == 1:
        changed[at:at] = generator.randbytes(size)
    elif way == 2:
        del changed[at : at + size]
    elif way == 3:
        changed[at:at] = changed[at : at + size] * generator.choice((1, 2, 100))
    elif way == 4:
        changed[at : at + size] = generator.choice((b"\0", b"\xff")) * size
    elif way == 5:
        changed[at : at + 4] = struct.pack("<I", generator.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)))
    else:
        del changed[at:]
    return bytes(changed) or b"\0"


def _dicom(data: bytes, generator: random.Random) -> bytes:
    """Change elements: their values, VRs, tags, lengths; and what is in sequences."""
    try:
        elements = _parsed(memoryview(data), 132, len(data))[0]
        for _ in range(generator.choice((1, 1, 2, 5))):
            owner = generator.choice(_owners(elements))
            generator.choice(_ELEMENT_WAYS)(owner, generator.randrange(len(owner)), generator)
        return data[:132] + _written(elements)
    except (struct.error, ValueError, RecursionError, IndexError):
        return _bytes(data, generator)  # an earlier change left nothing to take apart


def _owners(elements: list[Element]) -> list[list[Element]]:
    """Every list of elements, the top one and the items', level by level."""
    found, level = [], [elements]
    while level:
        found += [one for one in level if one]
        level = [
            item
            for one in level
            for element in one
            if isinstance(element.value, list)
            for item in element.value
        ]
    return found


def _value(owner: list[Element], index: int, generator: random.Random) -> None:
    element = owner[index]
    if isinstance(element.value, list):
        _sequence(owner, index, generator)
        return
    parts = element.value.split(b"\\")
    choices = NUMBERS if generator.random() < 0.7 else TEXTS
    if element.vr in (b"US", b"UL", b"FD", b"FL", b"OW", b"AT"):
        size = max(len(element.value), 2)
        element.value = generator.choice((b"\0" * size, b"\xff" * size, generator.randbytes(size), b""))
    elif len(parts) > 1 and generator.random() < 0.7:
        parts[generator.randrange(len(parts))] = generator.choice(choices)
        element.value = b"\\".join(parts)
    elif generator.random() < 0.1:
        element.value = b"\\".join([generator.choice(choices)] * generator.choice((2, 3, 1000, 100_000)))
    else:
        element.value = generator.choice(choices)


def _drop(owner: list[Element], index: int, _: random.Random) -> None:
    del owner[index]


def _repeat(owner: list[Element], index: int, generator: random.Random) -> None:
    owner[index:index] = [owner[index]] * generator.choice((1, 5))


def _swap(owner: list[Element], index: int, generator: random.Random) -> None:
    other = generator.randrange(len(owner))
    owner[index].value, owner[other].value = owner[other].value, owner[index].value


def _vr(owner: list[Element], index: int, generator: random.Random) -> None:
    owner[index].vr = generator.choice(VRS)


def _tag(owner: list[Element], index: int, generator: random.Random) -> None:
    group, element = owner[index].tag
    owner[index].tag = generator.choice(
        ((group, element ^ 1), (group ^ 1, element), (0xFFFE, 0xE0DD), (0, 0))
    )


def _length(owner: list[Element], index: int, generator: random.Random) -> None:
    owner[index].length = generator.choice((0, 1, 3, 255, 0xFFFE, 0x7FFFFFFF, 0xFFFFFFFE, UNDEFINED))


def _sequence(owner: list[Element], index: int, generator: random.Random) -> None:
    """Empty, repeat, reverse or nest a sequence of this list, if it has one."""
    sequences = [element for element in owner if isinstance(element.value, list)]
    if not sequences:
        owner[index].value, owner[index].vr = [], b"SQ"
        return
    element = generator.choice(sequences)
    assert isinstance(element.value, list)
    way = generator.randrange(5)
    if way == 0:
        element.value = []
    elif way == 1:
        element.value = element.value * generator.choice((2, 2, 3, 30))
    elif way == 2:
        element.value = element.value[::-1]
    elif way == 3:
        element.value = [*element.value, []]
    else:
        element.value = _nested(element, generator.choice((1, 5, 100, DEEP)))


def _nested(element: Element, depth: int) -> bytes:
    """Return a sequence's items within so many sequences of its kind."""
    body = _written([element])
    for level in range(depth):
        body = struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body
        if level + 1 < depth:
            body = struct.pack("<HH", *element.tag) + b"SQ" + struct.pack("<HI", 0, len(body)) + body
    return body


_ELEMENT_WAYS: tuple[Callable[[list[Element], int, random.Random], None], ...] = (
    *(_value,) * 8, _drop, _drop, _repeat, _swap, _vr, _tag, _length, *(_sequence,) * 3,
)  # fmt: skip


def _parsed(data: memoryview, at: int, end: int, *, item: bool = False) -> tuple[list[Element], int]:
    """Take apart explicit little endian, up to `end` or an item's delimiter."""
    found: list[Element] = []
    while at < end:
        group, element = struct.unpack_from("<HH", data, at)
        if item and (group, element) == (0xFFFE, 0xE00D):
            return found, at + 8
        vr = bytes(data[at + 4 : at + 6])
        long = vr in LONG_FORM
        (length,) = struct.unpack_from("<I" if long else "<H", data, at + (8 if long else 6))
        at += 12 if long else 8
        if vr == b"SQ":
            items, at = _items(data, at, end if length == UNDEFINED else at + length)
            found.append(Element((group, element), vr, items))
        else:
            if at + length > end:
                raise ValueError("beyond the end")
            found.append(Element((group, element), vr, bytes(data[at : at + length])))
            at += length
    return found, at


def _items(data: memoryview, at: int, end: int) -> tuple[list[list[Element]], int]:
    items: list[list[Element]] = []
    while at < end:
        group, element, length = struct.unpack_from("<HHI", data, at)
        at += 8
        if (group, element) == (0xFFFE, 0xE0DD):
            return items, at
        if length == UNDEFINED:
            one, at = _parsed(data, at, end, item=True)
        else:
            one, at = _parsed(data, at, at + length)
        items.append(one)
    return items, at


def _written(elements: list[Element]) -> bytes:
    return b"".join(map(_one, elements))


def _one(element: Element) -> bytes:
    if isinstance(element.value, list):
        body = b"".join(
            struct.pack("<HHI", 0xFFFE, 0xE000, len(one)) + one for one in map(_written, element.value)
        )
    else:
        body = element.value + b" " * (len(element.value) % 2)
    length = len(body) if element.length is None else element.length
    head = struct.pack("<HH", *element.tag) + element.vr
    if element.vr in LONG_FORM:
        return head + struct.pack("<HI", 0, length) + body
    return head + struct.pack("<H", length & 0xFFFF) + body


def _nrrd(data: bytes, generator: random.Random) -> bytes:
    """Change header lines, or put other data behind them."""
    head, blank, body = data.partition(b"\n\n")
    lines = head.split(b"\n")
    index = generator.randrange(len(lines))
    way = generator.randrange(12)
    if way == 0:
        del lines[index]
    elif way == 1:
        lines.insert(index, generator.choice(lines))
    elif way == 2:
        lines.insert(index, generator.choice(_ADDED))
    elif way == 3:
        body = generator.choice((b"", body[: len(body) // 2], body + b"\0" * 9, gzip.compress(b"\1" * 99)))
    elif way == 4 and generator.random() < 0.1:
        return _bomb(lines, generator)
    elif way == 5:
        blank = generator.choice((b"\n", b"\r\n\r\n", b"\n\n\n", b""))
    else:
        key, colon, value = lines[index].partition(b":")
        figures = list(re.finditer(rb"[-+.\w]+", value))
        if not figures or generator.random() < 0.2:
            value = b" " + generator.choice((*NUMBERS, *TEXTS, *_WORDS))
        else:
            one = generator.choice(figures)
            value = value[: one.start()] + generator.choice((*NUMBERS, *_WORDS)) + value[one.end() :]
        lines[index] = key + colon + value
    return b"\n".join(lines) + blank + body


_ADDED = (
    b"data file: /etc/passwd", b"data file: LIST", b"byte skip: -1", b"line skip: 9", b"spacings: 1 1 1",
    b"Segment0_Layer:=99999999999", b"Segment0_LabelValue:=-1", b"Segment1_Name:=CTV", b"sizes: 1 1 1",
    b"Segment999999_ID:=x", b"kinds: none none none", b"measurement frame: (1,0,0) (0,1,0) (0,0,1)", b":",
    b"\xff", b"space dimension: 4", b"Segmentation_Extent:=0 9999999999 0 1 0 1", b"old min: nan",
    b"x" * 100_000,
)  # fmt: skip
_WORDS = (
    b"raw", b"gzip", b"bzip2", b"ascii", b"hex", b"uint8", b"int16", b"uint64", b"double", b"block", b"big",
    b"little", b"right-anterior-superior", b"scanner-xyz", b"list", b"none none none", b"(1,0,0)", b"(0,0,0)",
    b"3", b"4", b"17", b"40 40 10", b"600 600 600", b"100000 100000 1", b"1 1 1",
)  # fmt: skip


def _bomb(lines: list[bytes], generator: random.Random) -> bytes:
    """A header that claims up to 300 MB, and a few hundred kB of gzip that hold them."""
    side = generator.choice((400, 600, 640, 669))
    kept = [line for line in lines if not line.startswith((b"sizes", b"encoding", b"type"))]
    kept += [f"sizes: {side} {side} {side}".encode(), b"encoding: gzip", b"type: uint8"]
    return b"\n".join(kept) + b"\n\n" + _zeros(generator.choice((0, 1)))


@functools.cache
def _zeros(value: int) -> bytes:
    return gzip.compress(bytes([value]) * 300_000_000, compresslevel=1, mtime=0)
