import json
import logging
import sys

import pytest

from trocar.runtime.telemetry.logs import JsonFormatter, TextFormatter


def _record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    record = logging.LogRecord("trocar.server", logging.INFO, "file.py", 3, message, arguments, None)
    record.__dict__.update(extra)
    return record


def _failed() -> logging.LogRecord:
    try:
        raise ValueError("MUELLER^HANS")
    except ValueError:
        record = _record("a call failed")
        record.exc_info = sys.exc_info()
        return record


def test_json() -> None:
    extra = {"request_id": "7", "duration_ms": 1.5, "model": "", "peer": "unix", "colour": "red"}
    document = json.loads(JsonFormatter().format(_record("%s is %d", "a\nb", 3, **extra)))
    assert document.pop("time").endswith("+00:00")
    assert document == {
        "level": "info",
        "logger": "trocar.server",
        "message": "a\nb is 3",
        "request_id": "7",
        "duration_ms": 1.5,
        "peer": "unix",
    }


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_an_exception_is_where_it_was_and_not_what_it_said(formatter: logging.Formatter) -> None:
    text = formatter.format(_failed())
    assert "MUELLER" not in text
    assert "ValueError" in text
    assert "in _failed" in text


def test_a_json_line_is_one_line() -> None:
    assert "\n" not in JsonFormatter().format(_failed())
