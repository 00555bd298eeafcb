"""Where training frames come from: the renderer, in worker processes, or a folder of labelled frames."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from trocar.video.annotator.labels import tip_bells
from trocar.video.annotator.renderer import Scene, render_frame, render_polyp

_TRAIN, _HELD = 0x7472_6169, 0x6865_6C64
BLOCK = 16
TipMaps = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames of one size.

    Parameters
    ----------
    images : (n, height, width, 3) uint8 RGB.
    labels : (n, height, width) uint8; see `trocar.video.annotator.labels`.
    bells : (n, height / 4, width / 4) float32; -1 where nobody marked tips.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    bells: TipMaps

    def __len__(self) -> int:
        return len(self.images)


class Source(Protocol):
    """Training frames by epoch, the same whenever they are asked for."""

    def epoch(self, number: int, count: int, shape: tuple[int, int]) -> Iterator[Frames]:
        """Blocks of frames, `count` in all."""

    def held(self, count: int, shape: tuple[int, int]) -> Frames:
        """Frames that no epoch gives."""

    def facts(self) -> dict[str, Any]:
        """What the frames are, for the record."""

    def close(self) -> None:
        """Let go of what was held for the frames' sake."""


class RendererSource:
    """Rendered frames; `workers` processes render ahead, none means in this one.

    Parameters
    ----------
    kind : `tools` or `polyps`.
    """

    def __init__(self, seed: int, workers: int = 0, kind: str = "tools") -> None:
        self.seed, self.kind = seed, kind
        self._pool = ProcessPoolExecutor(workers, get_context("spawn"), _one_thread) if workers else None
        self._ahead: dict[tuple[int, int, tuple[int, int]], Future[Frames]] = {}

    def epoch(self, number: int, count: int, shape: tuple[int, int]) -> Iterator[Frames]:
        """Blocks of frames in the order of their seeds, whoever renders them."""
        starts = list(range(0, count, BLOCK))
        for place, start in enumerate(starts):
            wanted = [(number, each) for each in starts[place : place + 12]]
            missing = 12 - len(wanted)
            wanted += [(number + 1, each) for each in starts[:missing]]
            yield self._block(number, start, min(BLOCK, count - start), shape, wanted)

    def _block(
        self, number: int, start: int, count: int, shape: tuple[int, int], ahead: list[tuple[int, int]]
    ) -> Frames:
        if self._pool is None:
            return rendered(self.kind, _seeds((_TRAIN, self.seed, number), start, count), shape)
        for epoch, first in ahead:
            if (epoch, first, shape) not in self._ahead:
                seeds = _seeds((_TRAIN, self.seed, epoch), first, BLOCK)
                self._ahead[epoch, first, shape] = self._pool.submit(rendered, self.kind, seeds, shape)
        block = self._ahead.pop((number, start, shape)).result()
        # What was made ahead for a size that is over.
        for key in [key for key in self._ahead if key[0] < number or (key[0] == number and key[2] != shape)]:
            self._ahead.pop(key).cancel()
        return Frames(block.images[:count], block.labels[:count], block.bells[:count])

    def held(self, count: int, shape: tuple[int, int]) -> Frames:
        """Frames from seeds that training never takes."""
        return rendered(self.kind, _seeds((_HELD, 0, 0), 0, count), shape)

    def facts(self) -> dict[str, Any]:
        """The data's record."""
        return {"data": f"rendered {self.kind}"}

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def rendered(kind: str, seeds: list[tuple[int, ...]], shape: tuple[int, int]) -> Frames:
    """Render frames of seeds."""
    render = {"tools": render_frame, "polyps": render_polyp}[kind]
    return stacked([render(seed, shape) for seed in seeds])


def stacked(scenes: list[Scene]) -> Frames:
    """Scenes of one size as arrays."""
    return Frames(
        np.stack([scene.image_rgb for scene in scenes]),
        np.stack([scene.labels for scene in scenes]),
        np.stack([tip_bells(scene.tips_xy, scene.labels.shape) for scene in scenes]),
    )


def augmented(frames: Frames, random: np.random.Generator) -> Frames:
    """Mirror and recolour a batch anew."""
    images, labels, bells = frames.images.copy(), frames.labels.copy(), frames.bells.copy()
    for number in range(len(images)):
        flips = tuple(axis for axis, chance in ((0, 0.3), (1, 0.5)) if random.random() < chance)
        if flips:
            images[number] = np.flip(images[number], flips)
            labels[number] = np.flip(labels[number], flips)
            bells[number] = np.flip(bells[number], flips)
        gains, gamma = np.exp(random.normal(0, 0.08, 3)), np.exp(random.normal(0, 0.12))
        curve = (np.arange(256) / 255.0) ** gamma
        table = np.clip(255.0 * curve[:, None] * gains + 0.5, 0, 255).astype(np.uint8)
        images[number] = cv2.LUT(images[number], np.ascontiguousarray(table[None]))
    return Frames(images, labels, bells)


def _seeds(stream: tuple[int, int, int], start: int, count: int) -> list[tuple[int, ...]]:
    return [(*stream, each) for each in range(start, start + count)]


def _one_thread() -> None:
    cv2.setNumThreads(1)
