"""POSIX shared memory that clients registered: found inside its namespace, and survived when it goes away.

A region is mapped once, its size is looked at for every use, and its pages are guarded: an object that its
owner truncates in the middle of a run costs that request, not the server.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
import weakref
from pathlib import Path

import numpy as np

from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels import _native
from trocar.runtime.server.auth import caller
from trocar.runtime.server.inference.span import Span
from trocar.runtime.session.base import Array, element_type

# Where the C library keeps what shm_open makes, a flat folder.
FOLDER = Path("/dev/shm")
# Others' objects of the same user: frames that clients hand to VideoService, and semaphores of the C library.
RESERVED = ("trocar-video-", "sem.")
_KEY = re.compile(r"/?([A-Za-z0-9_][A-Za-z0-9_.-]{0,200})")


class PosixRegion:
    """A mapped object. It is unmapped when nobody uses it any more, registered or not."""

    kind = "POSIX shared memory"

    def __init__(self, name: str, key: str, offset: int, size_bytes: int, descriptor: int) -> None:
        self.name, self.key, self.offset, self.size_bytes = name, key, offset, size_bytes
        self._descriptor = descriptor
        self._pages = np.frombuffer(mmap.mmap(descriptor, offset + size_bytes), np.uint8)
        self._guard = _native.guard_pages(self._pages.ctypes.data, self._pages.nbytes)
        weakref.finalize(self, _close, self._guard, descriptor)

    def view(self, span: Span, dtype: str, shape: tuple[int, ...], what: str) -> Array:
        """Return the elements of a span, in place; keep the region as long as the array.

        Raises
        ------
        InvalidInput
            The span does not lie in the region, or the object no longer holds it.
        """
        span.require_within(self.size_bytes, what)
        start = self.offset + span.offset
        self.require_whole(start + span.size_bytes, what)
        return self._pages[start : start + span.size_bytes].view(element_type(dtype)).reshape(shape)

    def require_whole(self, size_bytes: int | None = None, what: str = "shared memory") -> None:
        """Raise `InvalidInput` where the object shrank, before now or while it was in use."""
        needed = self.offset + self.size_bytes if size_bytes is None else size_bytes
        if _native.pages_whole(self._guard, self._descriptor, needed):
            return
        there = os.fstat(self._descriptor).st_size
        raise InvalidInput(
            f"{what}: expected {needed} bytes in {self.key!r} as registered, got {there}, or pages that "
            "were gone for a while; register it anew"
        )


def _close(guard: int, descriptor: int) -> None:
    _native.release_pages(guard)
    os.close(descriptor)


def open_region(name: str, key: str, offset: int, size_bytes: int, prefix: str, folder: Path) -> PosixRegion:
    """Map an object of this name space and this user.

    Parameters
    ----------
    name : the region's.
    key, offset, size_bytes : the object's name, and what of it is mapped.
    prefix : with which the object's name has to begin, beside the caller's own.
    folder : where objects are.

    Raises
    ------
    InvalidInput
        The key is not a plain name, or the object is not there, not this user's, no plain memory or too
        small.
    """
    descriptor = _open(name, key, prefix, folder)
    try:
        there = os.fstat(descriptor).st_size
        if offset + size_bytes > there:
            raise InvalidInput(
                f"region {name!r}: expected {key!r} to hold {size_bytes} bytes from {offset}, "
                f"got an object of {there}"
            )
        return PosixRegion(name, key, offset, size_bytes, descriptor)
    except (OSError, ValueError, RuntimeError) as error:
        os.close(descriptor)
        raise InvalidInput(f"region {name!r}: {key!r} cannot be mapped: {error}") from error
    except BaseException:
        os.close(descriptor)
        raise


def _open(name: str, key: str, prefix: str, folder: Path) -> int:
    plain = _KEY.fullmatch(key)
    token = caller()
    prefixes = {prefix for prefix in (prefix, token.shared_memory_prefix if token else "") if prefix}
    if plain is None or not all(map(plain[1].startswith, prefixes)):
        begins = " and ".join(map(repr, sorted(prefixes)))
        raise InvalidInput(
            f"region {name!r}: expected a key such as '/{max(prefixes, key=len, default='name')}', one "
            f"plain name{f' that begins with {begins}' if begins else ''}, got {key!r:.80}"
        )
    if plain[1].startswith(RESERVED):
        raise InvalidInput(f"region {name!r}: expected a key of the client's own, got {key!r:.80}")
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(folder / plain[1], flags)
    except OSError as error:
        raise InvalidInput(f"region {name!r}: cannot open {key!r}: {error.strerror}") from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
        os.close(descriptor)
        raise InvalidInput(
            f"region {name!r}: expected {key!r} to be shared memory of the server's user, got another's "
            "or another kind of file"
        )
    return descriptor
