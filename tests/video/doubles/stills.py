"""A source of plain pictures, and how to name the doubles as workers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trocar.video.frames import UInt8Array
from trocar.video.remote import WorkerSpec
from trocar.video.source import Picture


def double(**arguments: object) -> WorkerSpec:
    return WorkerSpec("doubles:double", arguments)


class Still:
    def __init__(self, index: int, fps: float, size: tuple[int, int]) -> None:
        self.pts_s = index / fps
        self.height, self.width = size
        self._index = index

    def write(self, image_bgr: UInt8Array) -> None:
        image_bgr[...] = np.uint8(self._index % 251)


class Stills:
    """A source of plain frames, each of its own shade; from the middle, or `turn`, in another size."""

    def __init__(
        self,
        count: int,
        *,
        fps: float = 25.0,
        size: tuple[int, int] = (72, 128),
        live: bool = False,
        then: tuple[int, int] | None = None,
        turn: int | None = None,
    ) -> None:
        self.name, self.live, self.fps, self.frames = "stills", live, fps, count
        self.corrupt, self.broke_off = 0, ""
        self._count, self._sizes = count, (size, then or size)
        self._turn = count // 2 if turn is None else turn

    def pictures(self) -> Iterator[Picture]:
        return (
            Still(index, self.fps or 25.0, self._sizes[index >= self._turn]) for index in range(self._count)
        )

    def close(self) -> None:
        pass
