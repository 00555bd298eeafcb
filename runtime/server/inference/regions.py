"""What clients registered, by its name: POSIX shared memory, and memory of GPUs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from trocar.runtime.errors import InvalidInput, QueueFull
from trocar.runtime.server.auth import caller
from trocar.runtime.server.inference import posix
from trocar.runtime.server.inference.ipc import CudaRegion, Gpus
from trocar.runtime.server.inference.posix import PosixRegion

Region: TypeAlias = PosixRegion | CudaRegion
_Kind = TypeVar("_Kind", PosixRegion, CudaRegion)

MAX_REGIONS = 256
MAX_NAME = 256


def _owner() -> str:
    token = caller()
    return token.name if token is not None else ""


class Regions:
    """What is registered, by the clients' names; each token sees its own alone.

    A name stands for one region, of either kind. What is listed and forgotten is of the kind that is named.

    Parameters
    ----------
    enabled : whether any may be.
    prefix : with which the name of an object of POSIX shared memory has to begin.
    folder : where these are.
    """

    def __init__(self, *, enabled: bool = True, prefix: str = "", folder: Path = posix.FOLDER) -> None:
        self._enabled = enabled
        self._prefix = prefix
        self._folder = folder
        self._gpus = Gpus()
        self._lock = threading.Lock()
        # By whose it is, and its name; nobody's where tokens are off.
        self._regions: dict[tuple[str, str], Region] = {}

    def register(self, name: str, key: str, offset: int, size_bytes: int) -> None:
        """Map an object of POSIX shared memory; see `posix.open_region`.

        Raises
        ------
        InvalidInput
            The name is taken, or the object does not do.
        QueueFull
            Too many are registered.
        """
        where = (self._prefix, self._folder)
        self._add(name, size_bytes, lambda: posix.open_region(name, key, offset, size_bytes, *where))

    def register_cuda(self, name: str, handle: bytes, device_id: int, size_bytes: int) -> None:
        """Open memory of a GPU; see `ipc.Gpus.open_region`. It raises as `register` does."""
        self._add(name, size_bytes, lambda: self._gpus.open_region(name, handle, device_id, size_bytes))

    def _add(self, name: str, size_bytes: int, opened: Callable[[], Region]) -> None:
        if not self._enabled:
            raise InvalidInput("shared memory is off: expected tensors in the request")
        if not name or len(name) > MAX_NAME:
            raise InvalidInput(f"expected a region's name of 1 to {MAX_NAME} characters, got {name!r:.80}")
        if size_bytes < 1:
            raise InvalidInput(f"region {name!r}: expected byte_size of 1 or more, got {size_bytes}")
        self._require_room(name)
        # Without the lock: a GPU's first region takes as long as the driver needs to get ready.
        region = opened()
        with self._lock:
            self._require_room(name)
            self._regions[_owner(), name] = region

    def _require_room(self, name: str) -> None:
        if (_owner(), name) in self._regions:
            raise InvalidInput(f"region {name!r} is registered already; unregister it first")
        if len(self._regions) >= MAX_REGIONS:
            raise QueueFull(f"expected at most {MAX_REGIONS} regions, got one more; unregister some")

    def unregister(self, kind: type[_Kind], name: str = "") -> None:
        """Forget a region, or all; a request that uses one keeps it until it is answered."""
        with self._lock:
            gone = [self._find(kind, name)] if name else self._own(kind)
            for region in gone:
                del self._regions[_owner(), region.name]
        # What nobody uses is closed as `gone` goes, without the lock: a GPU may have work to end first.

    def drop(self, region: Region) -> None:
        """Forget a region that was lost, unless its name stands for another one by now."""
        with self._lock:
            if self._regions.get((_owner(), region.name)) is region:
                del self._regions[_owner(), region.name]

    def status(self, kind: type[_Kind], name: str = "") -> list[_Kind]:
        """Return one region, or all."""
        with self._lock:
            return [self._find(kind, name)] if name else self._own(kind)

    def find(self, name: str) -> Region | None:
        """Return a region, if there is one of that name; without a lock."""
        return self._regions.get((_owner(), name))

    def get(self, name: str) -> Region:
        """Return a region to use."""
        with self._lock:
            found = self.find(name)
            if found is None:
                own: list[Region] = [*self._own(PosixRegion), *self._own(CudaRegion)]
                raise InvalidInput(f"expected a registered region of {_listed(own)}, got {name!r:.80}")
            return found

    def _find(self, kind: type[_Kind], name: str) -> _Kind:
        found = self.find(name)
        if not isinstance(found, kind):
            listed = _listed(self._own(kind))
            raise InvalidInput(f"expected a region in {kind.kind}, of {listed}, got {name!r:.80}")
        return found

    def _own(self, kind: type[_Kind]) -> list[_Kind]:
        return [
            region
            for (owner, _), region in self._regions.items()
            if owner == _owner() and isinstance(region, kind)
        ]


def _listed(regions: Sequence[Region]) -> str:
    return ", ".join(sorted(region.name for region in regions)[:20]) or "none"
