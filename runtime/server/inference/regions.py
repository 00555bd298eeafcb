"""POSIX shared memory that clients registered: found inside its namespace, and survived when it goes away.

A region is mapped once, its size is looked at for every use, and its pages are guarded: an object that its
owner truncates in the middle of a run costs that request, not the server.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trocar.runtime.errors import InvalidInput, QueueFull
from trocar.runtime.kernels import _native
from trocar.runtime.server.auth import caller
from trocar.runtime.session.base import Array, element_type

# Where the C library keeps what shm_open makes, a flat folder.
FOLDER = Path("/dev/shm")
# Others' objects of the same user: frames that clients hand to VideoService, and semaphores of the C library.
RESERVED = ("trocar-video-", "sem.")
MAX_REGIONS = 256
MAX_NAME = 256
_KEY = re.compile(r"/?([A-Za-z0-9_][A-Za-z0-9_.-]{0,200})")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a region, as a request names them."""

    region: str
    offset: int
    size_bytes: int


class Region:
    """A mapped object. It is unmapped when nobody uses it any more, registered or not."""

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
        if span.offset < 0 or span.size_bytes < 0 or span.offset + span.size_bytes > self.size_bytes:
            raise InvalidInput(
                f"{what}: expected bytes within the {self.size_bytes} of region {self.name!r}, "
                f"got {span.size_bytes} from {span.offset}"
            )
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


def _owner() -> str:
    token = caller()
    return token.name if token is not None else ""


class Regions:
    """What is registered, by the clients' names; each token sees its own alone.

    Parameters
    ----------
    enabled : whether any may be.
    prefix : with which an object's name has to begin.
    """

    def __init__(self, *, enabled: bool = True, prefix: str = "", folder: Path = FOLDER) -> None:
        self._enabled = enabled
        self._prefix = prefix
        self._folder = folder
        self._lock = threading.Lock()
        # By whose it is, and its name; nobody's where tokens are off.
        self._regions: dict[tuple[str, str], Region] = {}

    def register(self, name: str, key: str, offset: int, size_bytes: int) -> None:
        """Map an object of this name space and this user.

        Raises
        ------
        InvalidInput
            The name is taken, the key is not a plain name, or the object is not there, not this user's, no
            plain memory or too small.
        QueueFull
            Too many are registered.
        """
        if not self._enabled:
            raise InvalidInput("shared memory is off: expected tensors in the request")
        if not name or len(name) > MAX_NAME:
            raise InvalidInput(f"expected a region's name of 1 to {MAX_NAME} characters, got {name!r:.80}")
        if size_bytes < 1:
            raise InvalidInput(f"region {name!r}: expected byte_size of 1 or more, got {size_bytes}")
        with self._lock:
            if (_owner(), name) in self._regions:
                raise InvalidInput(f"region {name!r} is registered already; unregister it first")
            if len(self._regions) >= MAX_REGIONS:
                raise QueueFull(f"expected at most {MAX_REGIONS} regions, got one more; unregister some")
            descriptor = self._open(name, key)
            try:
                there = os.fstat(descriptor).st_size
                if offset + size_bytes > there:
                    raise InvalidInput(
                        f"region {name!r}: expected {key!r} to hold {size_bytes} bytes from {offset}, "
                        f"got an object of {there}"
                    )
                self._regions[_owner(), name] = Region(name, key, offset, size_bytes, descriptor)
            except (OSError, ValueError, RuntimeError) as error:
                os.close(descriptor)
                raise InvalidInput(f"region {name!r}: {key!r} cannot be mapped: {error}") from error
            except BaseException:
                os.close(descriptor)
                raise

    def unregister(self, name: str = "") -> None:
        """Forget a region, or all; a request that uses one keeps it until it is answered."""
        with self._lock:
            if not name:
                for region in self._own():
                    del self._regions[_owner(), region.name]
            elif self._regions.pop((_owner(), name), None) is None:
                raise InvalidInput(f"expected a region of {self._listed()}, got {name!r:.80}")

    def drop(self, region: Region) -> None:
        """Forget a region that was lost, unless its name stands for another one by now."""
        with self._lock:
            if self._regions.get((_owner(), region.name)) is region:
                del self._regions[_owner(), region.name]

    def status(self, name: str = "") -> list[Region]:
        """Return one region, or all."""
        with self._lock:
            return [self._find(name)] if name else self._own()

    def find(self, name: str) -> Region | None:
        """Return a region, if there is one of that name; without a lock."""
        return self._regions.get((_owner(), name))

    def get(self, name: str) -> Region:
        """Return a region to use."""
        with self._lock:
            return self._find(name)

    def _find(self, name: str) -> Region:
        found = self._regions.get((_owner(), name))
        if found is None:
            raise InvalidInput(f"expected a registered region of {self._listed()}, got {name!r:.80}")
        return found

    def _own(self) -> list[Region]:
        return [region for (owner, _), region in self._regions.items() if owner == _owner()]

    def _listed(self) -> str:
        return ", ".join(sorted(region.name for region in self._own())[:20]) or "none"

    def _open(self, name: str, key: str) -> int:
        plain = _KEY.fullmatch(key)
        token = caller()
        prefixes = {
            prefix for prefix in (self._prefix, token.shared_memory_prefix if token else "") if prefix
        }
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
            descriptor = os.open(self._folder / plain[1], flags)
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
