"""A request's name in logs, and its trace: of its metadata nothing that could be a person's name."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable
from typing import Any

REQUEST_ID = "x-request-id"
TRACE = "traceparent"
# A UUID, or hexadecimal digits as of a trace's id. This goes into logs: letters beyond f would let names
# through, fewer digits a patient's number or date of birth.
_SANE = re.compile(r"[0-9a-fA-F]{16,64}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PREFIX = os.urandom(6).hex()
_NUMBERS = itertools.count(1)


def read_metadata(metadata: Iterable[Any]) -> tuple[str, bool, str]:
    """Return a request's id, whether it is the caller's, and its traceparent.

    The caller's is taken if it is a UUID or hexadecimal digits.

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
    if request_id:
        return request_id, True, trace
    return f"{_PREFIX}{next(_NUMBERS):08x}", False, trace
