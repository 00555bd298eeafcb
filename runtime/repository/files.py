"""Reading a repository's files: regular ones, through no link below its root, no more than is allowed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trocar.runtime.errors import InvalidInput, ManifestMismatch

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Opening a pipe or a device must not wait for its other end.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def subfolders(folder: Path) -> set[str]:
    """Names of the real folders in a folder; hidden ones and links are not among them."""
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
            }
    except OSError as error:
        raise InvalidInput(f"cannot read the repository {folder.name}: {error.strerror}") from error


@contextmanager
def opened_folder(root: Path, *parts: str) -> Iterator[int]:
    """Hold a descriptor of `root/part/...`; what is opened through it lies there whatever is renamed.

    Raises
    ------
    ManifestMismatch
        A part is a link, or no folder.
    """
    path = Path()
    try:
        descriptor = os.open(root, _FOLDER)
    except OSError as error:
        raise InvalidInput(f"cannot read the repository {root.name}: {error.strerror}") from error
    try:
        for part in parts:
            path /= part
            try:
                inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            except OSError as error:
                raise ManifestMismatch(f"{path}: expected a folder, got {_reason(error)}") from error
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def read_file(folder: int, path: Path, most: int) -> bytes:
    """Read a regular file of at most `most` bytes.

    Parameters
    ----------
    folder : descriptor of the folder that holds it; see `opened_folder`.
    path : where that is, for messages; its last part is the file's name.

    Raises
    ------
    ManifestMismatch
        There is none, it is a link, a pipe or the like, or too large.
    """
    try:
        descriptor = os.open(path.name, _FILE, dir_fd=folder)
    except OSError as error:
        raise ManifestMismatch(f"{path}: expected a file, got {_reason(error)}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ManifestMismatch(f"{path}: expected a regular file")
        # A file that is mostly holes says its size too: refused before a byte of it is read.
        if found.st_size > most:
            raise ManifestMismatch(f"{path}: expected at most {most} bytes, got {found.st_size}")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(found.st_size)
    except OSError as error:
        raise ManifestMismatch(f"{path}: cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    return "a symbolic link" if error.errno == errno.ELOOP else str(error.strerror)
