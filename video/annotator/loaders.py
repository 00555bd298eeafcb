"""Read a folder of labelled frames, whatever data set it is of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from trocar.runtime.errors import InvalidInput
from trocar.video.annotator.encodings import ENCODINGS, Encoding
from trocar.video.annotator.labels import ANY_INSTRUMENT
from trocar.video.types import PixelClass

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
# A pixel that no channel lifts above this belongs to the black surround.
_DARK = 24


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """A frame of a data set and what its people marked.

    Parameters
    ----------
    name : path within the data set's folder.
    image_rgb : (height, width, 3) uint8.
    labels : (height, width) uint8; classes, `ANY_INSTRUMENT` or `IGNORE`.
    tips_xy : (n, 2) px, or None where the data set marks no tips.
    """

    name: str
    image_rgb: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    tips_xy: npt.NDArray[np.float64] | None


def encoding_of(name: str) -> Encoding:
    """A data set's encoding by name."""
    if name not in ENCODINGS:
        raise InvalidInput(f"data set: expected one of {', '.join(ENCODINGS)}, got {name!r}")
    return ENCODINGS[name]


def find_pairs(folder: Path, encoding: Encoding) -> list[tuple[Path, Path]]:
    """Frames and their masks, sorted by path.

    Raises
    ------
    InvalidInput
        No folder, or no frame in it has a mask.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder}: expected a folder of frames and masks")
    pictures = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in PICTURES)
    pairs = [(path, mask) for path in pictures if (mask := _mask_of(path, folder, encoding)) is not None]
    if not pairs:
        raise InvalidInput(
            f"{folder}: expected frames in {' or '.join(encoding.frames)} with masks of the same names in "
            f"{' or '.join(encoding.masks)}, found none"
        )
    return pairs


def load_frames(folder: Path, name: str) -> Iterator[LabelledFrame]:
    """Read every labelled frame of a data set's folder.

    Parameters
    ----------
    name : one of `ENCODINGS`.
    """
    encoding = encoding_of(name)
    for frame, mask in find_pairs(folder, encoding):
        yield load_frame(frame, mask, encoding, str(frame.relative_to(folder)))


def load_frame(frame: Path, mask: Path, encoding: Encoding, name: str) -> LabelledFrame:
    """Read one pair.

    Raises
    ------
    InvalidInput
        A file that is no picture, sizes that differ, or a value that the data set does not have.
    """
    image = _read(frame, cv2.IMREAD_COLOR)[..., ::-1]
    labels = decode_mask(_read_mask(mask, encoding), encoding, mask.name)
    if labels.shape != image.shape[:2]:
        raise InvalidInput(
            f"{mask.name}: expected the frame's {image.shape[1]} x {image.shape[0]} px, got "
            f"{labels.shape[1]} x {labels.shape[0]}"
        )
    labels = labels.copy()
    _mark_background(image, labels, encoding)
    tips = None
    if encoding.tips:
        place = mask.parent.parent / encoding.tips / mask.name
        tips = blobs(_read(place, cv2.IMREAD_GRAYSCALE)) if place.exists() else None
    return LabelledFrame(name, np.ascontiguousarray(image), labels, tips)


def decode_mask(mask: npt.NDArray[np.uint8], encoding: Encoding, where: str) -> npt.NDArray[np.uint8]:
    """A mask's classes.

    Parameters
    ----------
    mask : (height, width) grey, or (height, width, 3) RGB where the data set has colours.
    where : begins every message.

    Raises
    ------
    InvalidInput
        Less than nine tenths of the pixels have a value of the data set: it is another's.
    """
    if encoding.threshold is not None:
        return np.where(mask > encoding.threshold, encoding.above, encoding.other).astype(np.uint8)
    if encoding.colours:
        labels = np.full(mask.shape[:2], encoding.other, dtype=np.uint8)
        known = np.zeros(mask.shape[:2], dtype=bool)
        for colour, value in encoding.colours.items():
            same = (mask == np.array(colour, dtype=np.uint8)).all(axis=2)
            labels[same] = value
            known |= same
        share = float(known.mean())
    else:
        table = np.full(256, encoding.other, dtype=np.uint8)
        for grey, value in encoding.values.items():
            table[grey] = value
        labels = table[mask]
        known_values = np.array([*encoding.values, 0, 255])
        share = float(np.isin(mask, known_values).mean())
    if share < 0.9:
        raise InvalidInput(
            f"{where}: expected the data set's own values, {100 * (1 - share):.0f} % are others"
        )
    return labels


def blobs(map_grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Centres (n, 2) x, y of the blobs of a map of tips, px."""
    bright = (map_grey > 127).astype(np.uint8)
    count, _, _, centres = cv2.connectedComponentsWithStats(bright)
    return np.asarray(centres[1:count], dtype=np.float64) + 0.5


def instrument_mask(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Where an instrument is, whichever its part."""
    part = (labels >= PixelClass.SHAFT) & (labels <= PixelClass.CLASPER)
    return np.asarray(part | (labels == ANY_INSTRUMENT), dtype=bool)


def surround(image_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """The dark that touches the border, which no data set here but one labels."""
    dark = (image_rgb.max(axis=2) <= _DARK).astype(np.uint8)
    dark = np.asarray(cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)), dtype=np.uint8)
    _, parts = cv2.connectedComponents(dark)
    edge = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return np.asarray(np.isin(parts, edge[edge > 0]) & (dark > 0), dtype=bool)


def _mark_background(image: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], encoding: Encoding) -> None:
    if encoding.polyps:
        return
    if encoding.view is not None and encoding.view_of == labels.shape:
        top, left, height, width = encoding.view
        inside = np.zeros(labels.shape, dtype=bool)
        inside[top : top + height, left : left + width] = True
        labels[~inside] = PixelClass.BACKGROUND
    elif PixelClass.BACKGROUND not in encoding.values.values():
        labels[surround(np.ascontiguousarray(image)) & (labels == PixelClass.TISSUE)] = PixelClass.BACKGROUND


def _mask_of(path: Path, folder: Path, encoding: Encoding) -> Path | None:
    """The mask of a frame, in the first place where there is one."""
    inner = path.relative_to(folder).as_posix()
    for frames in encoding.frames:
        for masks in encoding.masks:
            if frames.startswith("_") and inner.endswith(frames):
                other = folder / (inner[: -len(frames)] + masks)
                if other.is_file():
                    return other
            parts = inner.split("/")
            if frames in parts[:-1]:
                place = len(parts) - 2 - parts[-2::-1].index(frames)
                stem = folder.joinpath(*parts[:place], *masks.split("/"), *parts[place + 1 : -1], path.stem)
                for suffix in (path.suffix, *PICTURES):
                    if stem.with_name(path.stem + suffix).is_file():
                        return stem.with_name(path.stem + suffix)
    return None


def _read(path: Path, mode: int) -> Any:
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    image = cv2.imdecode(data, mode) if len(data) else None
    if image is None:
        raise InvalidInput(f"{path.name}: expected a picture, got {len(data)} bytes that are none")
    return image


def _read_mask(path: Path, encoding: Encoding) -> npt.NDArray[np.uint8]:
    if encoding.colours:
        return np.ascontiguousarray(_read(path, cv2.IMREAD_COLOR)[..., ::-1])
    return np.asarray(_read(path, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)
