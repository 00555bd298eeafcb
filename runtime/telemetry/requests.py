"""A request's name in logs, and its trace: of its metadata nothing that could be a person's name."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable
from typing import Any

REQUEST_ID = "x-request-id"
TRACE = "traceparent"
# A UUID or a trace's id. Letters beyond f would let names through, and this goes into logs.
_SANE = re.compile(r"[0-9a-fA-F-]{8,64}")
_PREFIX = os.urandom(6).hex()
_NUMBERS = itertools.count(1)


def read_metadata(metadata: Iterable[Any]) -> tuple[str, str]:
    """Return a request's id, the caller's if it is hexadecimal digits and hyphens, and its traceparent.

    Parameters
    ----------
    metadata : pairs of key and value, as gRPC has them.
    """
    request_id = trace = ""
    for key, value in metadata:
        if key == REQUEST_ID:
            request_id = value if isinstance(value, str) and _SANE.fullmatch(value) else ""
        elif key == TRACE and isinstance(value, str):
            trace = value
    return request_id or f"{_PREFIX}-{next(_NUMBERS):x}", trace
