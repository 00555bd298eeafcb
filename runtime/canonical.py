"""One spelling of a JSON document, so that equal documents have equal digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Whole numbers up to here are exact as 64-bit floats: 145 and 145.0 are one number.
_EXACT = 2**53


def canonical_json(value: Any) -> str:
    """Spell a document: keys sorted, no spaces, ASCII, shortest figures, 145.0 as 145.

    Parameters
    ----------
    value : what JSON can hold; tuples and NumPy arrays are lists.

    Raises
    ------
    ValueError
        A figure is not finite.
    TypeError
        Something that JSON cannot hold.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_of(value: Any) -> str:
    """SHA-256 of a document's canonical spelling, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    return value
