"""Training frames from a data set's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from trocar.runtime.errors import InvalidInput
from trocar.video.annotator.data import BLOCK, Frames
from trocar.video.annotator.labels import tip_bells
from trocar.video.annotator.loaders import LabelledFrame, encoding_of, find_pairs, load_frame

_HELD_SHARE = 10


class FolderSource:
    """Labelled frames of one data set; every tenth is held back.

    Parameters
    ----------
    folder : in the data set's own layout.
    name : one of `ENCODINGS`.
    polyps : whether a polyp model is trained.

    Raises
    ------
    InvalidInput
        No frames, fewer than two, or a data set of the other model.
    """

    def __init__(self, seed: int, folder: Path, name: str, *, polyps: bool = False) -> None:
        self.seed, self.folder, self.name = seed, folder, name
        self._encoding = encoding_of(name)
        if self._encoding.polyps != polyps:
            raise InvalidInput(
                f"--data {name}: expected a data set of {'polyps' if polyps else 'instruments'}"
            )
        pairs = find_pairs(folder, self._encoding)
        if len(pairs) < 2:
            raise InvalidInput(f"{folder}: expected at least 2 labelled frames, got {len(pairs)}")
        self._held = pairs[::_HELD_SHARE]
        self._train = [pair for number, pair in enumerate(pairs) if number % _HELD_SHARE]

    def epoch(self, number: int, count: int, shape: tuple[int, int]) -> Iterator[Frames]:
        """Blocks of frames in an order of the epoch's own; the folder is gone through as often as needed."""
        random = np.random.default_rng([self.seed, number])
        order = np.concatenate(
            [random.permutation(len(self._train)) for _ in range(-(-count // len(self._train)))]
        )
        for start in range(0, count, BLOCK):
            chosen = order[start : min(start + BLOCK, count)]
            yield self._frames([self._train[int(each)] for each in chosen], shape)

    def held(self, count: int, shape: tuple[int, int]) -> Frames:
        """The first of the frames held back."""
        return self._frames(self._held[:count], shape)

    def facts(self) -> dict[str, Any]:
        """The data's record."""
        return {"data": self.name, "labelled_frames": len(self._train), "held_back_frames": len(self._held)}

    def close(self) -> None:
        """Nothing is held open."""

    def _frames(self, pairs: list[tuple[Path, Path]], shape: tuple[int, int]) -> Frames:
        frames = [
            _resized(load_frame(frame, mask, self._encoding, frame.name), shape) for frame, mask in pairs
        ]
        images, labels, bells = zip(*frames, strict=True)
        return Frames(np.stack(images), np.stack(labels), np.stack(bells))


def _resized(frame: LabelledFrame, shape: tuple[int, int]) -> tuple[Any, Any, Any]:
    """A frame at the network's size."""
    size = (shape[1], shape[0])
    scale = np.array([shape[1] / frame.labels.shape[1], shape[0] / frame.labels.shape[0]])
    tips = frame.tips_xy * scale if frame.tips_xy is not None else np.zeros((0, 2))
    return (
        cv2.resize(frame.image_rgb, size, interpolation=cv2.INTER_AREA),
        cv2.resize(frame.labels, size, interpolation=cv2.INTER_NEAREST),
        tip_bells(tips, shape)
        if frame.tips_xy is not None
        else np.full((shape[0] // 4, shape[1] // 4), -1, np.float32),
    )
