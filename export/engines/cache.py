"""Engines and timings that were built before, by what they were built from and for.

An entry is one file, written whole or not at all, which ends with the SHA-256 of all before it. An entry
that is cut, altered, or of another key is none: it is built again and replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trocar.runtime.errors import InvalidInput

_MAGIC = b"trocar.engine-cache/1\n"
_DIGEST_BYTES = 32
# What a killed process leaves; nobody writes one entry for an hour.
_PART, _STALE_S = ".part", 3600.0


class EngineCache:
    """Entries in a folder, which is made where it is not there, readable by its owner only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: Mapping[str, Any]) -> tuple[dict[str, Any], bytes] | None:
        """Return an entry's facts and content; None where there is no entry that is whole."""
        try:
            descriptor = os.open(self.path(key), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                data = file.read()
        except OSError:
            return None
        body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if not body.startswith(_MAGIC) or hashlib.sha256(body).digest() != digest:
            return None
        header, _, content = body[len(_MAGIC) :].partition(b"\n")
        document = json.loads(header)
        return (document["facts"], content) if document["key"] == _plain(key) else None

    def put(self, key: Mapping[str, Any], facts: Mapping[str, Any], content: bytes) -> None:
        """Add or replace an entry.

        Raises
        ------
        InvalidInput
            The folder cannot be written.
        """
        header = json.dumps({"key": _plain(key), "facts": facts}).encode()
        body = _MAGIC + header + b"\n" + content
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(self.path(key), body + hashlib.sha256(body).digest())
        except OSError as error:
            raise InvalidInput(f"cannot write to the engine cache {self.folder}: {error.strerror}") from error

    def path(self, key: Mapping[str, Any]) -> Path:
        """Return where an entry lies, or would."""
        text = json.dumps(_plain(key), sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.entry"


def _plain(key: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(key))


def _write(path: Path, data: bytes) -> None:
    """Write beside, then rename: another process sees the old entry or this one."""
    for left in path.parent.glob(f".*{_PART}"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_S:
                left.unlink()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=_PART)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
