"""Changes to a repository that are whole or not there, whenever the process dies.

What is new is written and flushed beside the models, in one hidden folder, then renamed into place. Under the
root's lock there is one writer at a time, so one such folder serves; the next writer sweeps what a kill left.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_STAGED = ".publishing"


@contextmanager
def writing(root: Path) -> Iterator[Path]:
    """Hold the repository's lock, with an empty folder to write in; both are gone afterwards.

    A killed holder's lock goes with it.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    staged = root / _STAGED
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    finally:
        os.close(descriptor)


def add_folder(staged: Path, files: Mapping[str, bytes], place: Path) -> None:
    """Add the folder `place` with these files; where its parent is not there, both appear in one step.

    Parameters
    ----------
    staged : from `writing`.
    """
    top = place if place.parent.is_dir() else place.parent
    ready = staged / place.relative_to(top.parent)
    ready.mkdir(parents=True)
    for name, content in files.items():
        _write(ready / name, content)
    sync_folder(ready)
    sync_folder(ready.parent)
    (staged / top.name).rename(top)
    sync_folder(top.parent)


def put_file(staged: Path, content: bytes, place: Path) -> None:
    """Put a file at `place`, over the one that may be there.

    Parameters
    ----------
    staged : from `writing`.
    """
    ready = staged / place.name
    _write(ready, content)
    ready.rename(place)
    sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
