"""Files that hold secrets or say who is trusted: read whole, kept private, noticed when they change."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from trocar.runtime.errors import InvalidInput

MAX_BYTES = 1 << 20

# What changes when a file is written or replaced; None where it is not there.
Stamp = tuple[tuple[int, int, int] | None, ...]


def stamp(paths: Sequence[Path]) -> Stamp:
    """Return what the files look like from outside, to be compared with the next time."""
    return tuple(_look(path) for path in paths)


def _look(path: Path) -> tuple[int, int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


def read_file(path: Path, what: str, *, forbidden: int = 0) -> bytes:
    """Read a small file.

    Parameters
    ----------
    what : begins the message, such as `TLS key`.
    forbidden : permission bits that must not be set, such as 0o077 for the owner's alone.

    Raises
    ------
    InvalidInput
        It cannot be read, is no file, too large, or others may do with it what they must not.
    """
    try:
        # Not blocking: a pipe of that name must not hold the server up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            mode = stat.S_IMODE(facts.st_mode)
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_BYTES:
                raise InvalidInput(f"{what} {path}: expected a file of at most {MAX_BYTES} bytes")
            if mode & forbidden:
                raise InvalidInput(
                    f"{what} {path}: expected one that others cannot open (chmod 600), got mode {mode:04o}"
                )
            return file.read(MAX_BYTES)
    except OSError as error:
        raise InvalidInput(f"{what} {path}: {error.strerror}") from error
