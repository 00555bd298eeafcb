"""The server's log: lines for people or JSON for machines, and in neither what a client sent."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

FORMATS = ("text", "json")
# Attributes that a record may carry; see `trocar.runtime.server.interceptors`.
FIELDS = ("request_id", "method", "code", "duration_ms", "peer", "model", "version", "user")
# Whose lines are shown besides ours, from warnings on: they say that traces do not reach their collector.
_OTHERS = ("opentelemetry",)


def log_to_stderr(level: str, form: str) -> None:
    """Log what is ours; another library's lines could quote a patient's file.

    Parameters
    ----------
    level : such as `info`.
    form : one of `FORMATS`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    log = logging.getLogger("trocar")
    log.addHandler(handler)
    log.setLevel(level.upper())
    for name in _OTHERS:
        other = logging.getLogger(name)
        other.addHandler(handler)
        other.setLevel(logging.WARNING)


class TextFormatter(logging.Formatter):
    """A line each; an exception is its type and where it was raised."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatException(self, ei: Any) -> str:  # noqa: N802 (logging's name)
        """Where, without the message: an unforeseen error's may quote what a client sent."""
        return "\n".join(f"  {each}" for each in _where(ei))


class JsonFormatter(logging.Formatter):
    """A JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        document |= {
            name: value for name in FIELDS if (value := getattr(record, name, None)) not in (None, "")
        }
        if record.exc_info:
            document["exception"] = _where(record.exc_info)
        return json.dumps(document, ensure_ascii=False)


def _where(raised: Any) -> list[str]:
    """Type and frames of an exception, the innermost frame last."""
    kind, _, trace = raised
    frames = traceback.extract_tb(trace)
    lines = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
    return [kind.__name__ if kind else "unknown", *lines]
