"""What every sink is, and how its file appears: complete, under its own name, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from trocar.runtime.errors import InvalidInput
from trocar.video.frames import Annotation, Instance, Shown


@dataclass(frozen=True, slots=True)
class Stream:
    """What a sink must know before the first frame.

    Parameters
    ----------
    name : of the source, as shown to people; no folder.
    height, width : of the first frame, pixels.
    fps : frames a second, nominal.
    frames : how many there will be; None where nobody knows.
    objects : what instances may be called, such as `instrument`.
    """

    name: str
    height: int
    width: int
    fps: float
    frames: int | None
    objects: tuple[str, ...]


class Sink(Protocol):
    """Takes frames in order and writes files."""

    def write(self, shown: Shown) -> None:
        """Take a frame; its arrays are only lent.

        Raises
        ------
        InvalidInput
            It cannot be written: the disk is full, or the frame does not fit the format.
        """

    def close(self) -> tuple[Path, ...]:
        """Finish, put the files in place, and say which."""

    def abandon(self) -> None:
        """Remove what was begun."""


OpenSink = Callable[[Path, Stream], Sink]


class Whole:
    """A file that is written beside its place and moved there when it is complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(f".{path.name}.partial")
        if not path.parent.is_dir():
            raise InvalidInput(
                f"expected a folder to write {path.name} in, got {path.parent}: no such folder"
            )

    def publish(self) -> tuple[Path, ...]:
        """Move it into place."""
        with writing(self.path):
            os.replace(self.partial, self.path)
        return (self.path,)

    def write_text(self, text: str) -> tuple[Path, ...]:
        """Write and publish a text in one go."""
        try:
            with writing(self.path):
                self.partial.write_text(text, encoding="utf-8")
        except InvalidInput:
            self.remove()
            raise
        return self.publish()

    def remove(self) -> None:
        """Leave nothing."""
        self.partial.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says into one line with the file's name."""
    try:
        yield
    except OSError as error:
        # pydicom wraps the system's words in a traceback of its own.
        said = error.strerror or str(error).strip().rpartition("\n")[2]
        raise InvalidInput(f"cannot write {path}: {said}; nothing was kept of it") from error


def outlines(mask: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.int32]]:
    """Return the outer outlines of a mask's parts, the largest first.

    Parameters
    ----------
    mask : (height, width) bool.

    Returns
    -------
    (n, 2) int32 each, n >= 3, x and y of the outline's corners: filled, they are the mask's parts.
    """
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = [np.asarray(one, np.int32).reshape(-1, 2) for one in found if len(one) >= 3]
    return sorted(polygons, key=len, reverse=True)


def instance_mask(annotation: Annotation, one: Instance) -> npt.NDArray[np.bool_]:
    """Return the pixels of one instance, (height, width) bool: the objects' pixels in its box.

    Two instruments whose boxes overlap share the pixels of the overlap: a label map does not tell them apart.
    """
    left, top, right, bottom = one.box_xyxy_px
    mask = np.zeros(annotation.labels.shape, bool)
    mask[top:bottom, left:right] = annotation.labels[top:bottom, left:right] >= annotation.object_from
    return mask
