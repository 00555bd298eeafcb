"""Frames in memory that two processes share: written once, read in place by both.

The memory has no name in the file system: it is an anonymous file whose descriptor is handed to the other
process. Nobody else can open it, and nothing is left behind however either process ends.
"""

from __future__ import annotations

import mmap
import os
import threading
from dataclasses import dataclass

import numpy as np

from trocar.runtime.errors import InvalidInput
from trocar.video.frames import UInt8Array

MAX_SIDE_PX = 8192
_CHANNELS = 3
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a ring is laid out: `slots` pairs of a BGR image and a label map, each pair on pages of its own.

    Raises
    ------
    InvalidInput
        A frame has no pixels, or more than `MAX_SIDE_PX` a side.
    """

    slots: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if not (0 < self.height <= MAX_SIDE_PX and 0 < self.width <= MAX_SIDE_PX):
            raise InvalidInput(
                f"expected frames of 1 to {MAX_SIDE_PX} pixels a side, got {self.width} x {self.height}"
            )

    @property
    def slot_bytes(self) -> int:
        """Bytes from one slot to the next."""
        needed = self.height * self.width * (_CHANNELS + 1)
        return -(-needed // _PAGE) * _PAGE

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole ring."""
        return self.slots * self.slot_bytes


class Slot:
    """Room for one frame and its label map. It is free again when its last holder lets go.

    Parameters
    ----------
    index : which one of its ring.
    image_bgr : (height, width, 3) uint8.
    labels : (height, width) uint8.
    """

    def __init__(self, ring: Ring, index: int, row: UInt8Array) -> None:
        self.ring = ring
        self.index = index
        # The ring does not know its slots: in a cycle, the memory of a size no longer in use would stay until
        # the collector happens to run.
        height, width = ring.geometry.height, ring.geometry.width
        pixels = height * width
        self.image_bgr: UInt8Array = row[: pixels * _CHANNELS].reshape(height, width, _CHANNELS)
        self.labels: UInt8Array = row[pixels * _CHANNELS : pixels * (_CHANNELS + 1)].reshape(height, width)

    def retain(self) -> Slot:
        """Add a holder."""
        with self.ring.changed:
            if not self.ring.holders[self.index]:
                raise ValueError(f"slot {self.index} is free: nobody may add a holder")
            self.ring.holders[self.index] += 1
        return self

    def release(self) -> None:
        """Take a holder away."""
        with self.ring.changed:
            if not self.ring.holders[self.index]:
                raise ValueError(f"slot {self.index} is free already")
            self.ring.holders[self.index] -= 1
            self.ring.changed.notify()


class Ring:
    """The slots of one frame size. `create` makes the memory; the other process attaches its descriptor."""

    def __init__(self, descriptor: int, geometry: Geometry) -> None:
        self.descriptor = descriptor
        self.geometry = geometry
        self.changed = threading.Condition()
        # Not closed by hand: the views keep it, and it goes when the last of them does.
        memory = mmap.mmap(descriptor, geometry.total_bytes)
        self._rows = np.frombuffer(memory, dtype=np.uint8).reshape(geometry.slots, geometry.slot_bytes)
        self.holders = [0] * geometry.slots

    @classmethod
    def create(cls, slots: int, height: int, width: int) -> Ring:
        """Take memory for `slots` frames.

        Raises
        ------
        InvalidInput
            See `Geometry`.
        """
        geometry = Geometry(slots, height, width)
        descriptor = os.memfd_create("trocar-frames", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, geometry.total_bytes)
        return cls(descriptor, geometry)

    def acquire(self, *, timeout_s: float = 0.0) -> Slot | None:
        """Take a free slot for one holder; None where none came free in time."""
        with self.changed:
            return self.changed.wait_for(self._take, timeout=timeout_s)

    def slot(self, index: int) -> Slot:
        """Return a view of a slot, held or not: for the process that attached the memory."""
        return Slot(self, index, self._rows[index])

    def _take(self) -> Slot | None:
        index = next((index for index, holders in enumerate(self.holders) if not holders), None)
        if index is None:
            return None
        self.holders[index] = 1
        return self.slot(index)

    def __del__(self) -> None:
        os.close(self.descriptor)
