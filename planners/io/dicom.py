"""What the DICOM RT readers share: a file opened without trusting it, figures out of decimal strings."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from trocar.planners.io.named import MAX_FILE_BYTES, clean_name
from trocar.planners.types import Float64Array, require
from trocar.runtime.errors import InvalidInput

RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
RT_PLAN = "1.2.840.10008.5.1.4.1.1.481.5"
RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
# Their pixels are stored as they are; whoever compresses a dose grid asks every reader for a codec.
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
DEFLATED = b"1.2.840.10008.1.2.1.99"


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin as a DICOM file does."""
    return data[128:132] == b"DICM"


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn whatever the bytes trip over into `InvalidInput`; pydicom parses sequences late."""
    try:
        yield
    except InvalidInput:
        raise
    except Exception as error:
        detail = " ".join(str(error).split())[:120]
        raise InvalidInput(f"{what}: the file cannot be read ({detail or type(error).__name__})") from None


def open_dicom(data: bytes, what: str, sop_class: str) -> Any:
    """Parse a file of one SOP class.

    Raises
    ------
    InvalidInput
        Too large, no DICOM, deflated, compressed, or of another class. Call it under `refusing`.
    """
    import pydicom

    require(len(data) <= MAX_FILE_BYTES, f"{what}: {len(data)} bytes, more than {MAX_FILE_BYTES}")
    # What pydicom has to say about a doubtful value would come out between our own lines.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\b")
    require(is_dicom(data), f"{what}: not a DICOM file (no DICM at byte 128)")
    # pydicom inflates this syntax without a bound.
    require(DEFLATED not in data[:4096], f"{what}: the deflated transfer syntax is not read")
    dataset = pydicom.dcmread(io.BytesIO(data))
    found = text(dataset, "SOPClassUID") or "none"
    require(found == sop_class, f"{what}: expected SOP class {sop_class}, got {found}")
    syntax = text(dataset.file_meta, "TransferSyntaxUID") or UNCOMPRESSED[0]
    require(syntax in UNCOMPRESSED, f"{what}: transfer syntax {syntax} is not read")
    return dataset


def plain(item: Any, keyword: str) -> Any:
    """Return a value, None where it is missing.

    The file says itself what an element is, so that a text may be a sequence; with 3000 more in it,
    `str` of one goes on for minutes.

    Raises
    ------
    InvalidInput
        It is a sequence.
    """
    from pydicom.sequence import Sequence

    value = item.get(keyword)
    require(not isinstance(value, Sequence), f"{keyword}: expected a value, got a sequence")
    return value


def figure(item: Any, keyword: str, where: str) -> float:
    """Return a finite figure.

    Raises
    ------
    InvalidInput
        It is missing, empty, or not finite.
    """
    return float(figures(item, keyword, 1, where)[0])


def figures(item: Any, keyword: str, count: int | None, where: str) -> Float64Array:
    """Return finite figures (count,); any number of them where count is None."""
    value = plain(item, keyword)
    try:
        found = np.array([float(one) for one in np.atleast_1d(np.asarray(value, dtype=object))])
    except (TypeError, ValueError):
        raise InvalidInput(f"{where}: {keyword}: expected figures, got {_shown(value)}") from None
    require(
        count is None or len(found) == count,
        f"{where}: {keyword}: expected {count} figures, got {len(found)}",
    )
    require(bool(np.isfinite(found).all()), f"{where}: {keyword}: expected finite figures")
    return found


def text(item: Any, keyword: str) -> str:
    """Return a text as one printable line; empty where it is missing."""
    return clean_name(str(plain(item, keyword) or ""))


def _shown(value: object) -> str:
    return "nothing" if value is None else f'"{clean_name(str(value))}"'
