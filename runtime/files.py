"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from trocar.runtime.errors import InvalidInput


def write_file(path: Path, content: bytes) -> None:
    """Write one file, or nothing: it appears complete."""
    staged = None
    try:
        with tempfile.NamedTemporaryFile(
            prefix=f".{path.name}.", dir=path.absolute().parent, delete=False
        ) as file:
            staged = Path(file.name)
            file.write(content)
        staged.chmod(0o666 & ~umask())
        staged.replace(path)
    except OSError as error:
        if staged is not None:
            staged.unlink(missing_ok=True)
        raise InvalidInput(f"cannot write {path}: {error.strerror}") from error


def umask() -> int:
    """Return the umask; the system has no call that only reads it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
