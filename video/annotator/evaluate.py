"""Score annotators on labelled frames: the networks, and a threshold on colour to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from trocar.runtime.session.base import Session
from trocar.video.annotator.labels import IGNORE
from trocar.video.annotator.loaders import LabelledFrame, instrument_mask, surround
from trocar.video.annotator.network import TIP_STRIDE, TIP_THRESHOLD, as_input
from trocar.video.annotator.scores import Mask, Scores, score
from trocar.video.types import CLASSES, HEIGHT, WIDTH, PixelClass

Labels = npt.NDArray[np.uint8]
# From a frame (height, width, 3) RGB to its labels.
Annotate = Callable[[npt.NDArray[np.uint8]], Labels]
INSTRUMENT = "instrument"


@dataclass(frozen=True, slots=True)
class Summary:
    """Means over the frames of a set.

    Parameters
    ----------
    of : a class, or `instrument` for all its parts as one.
    frames : how many; those without the class, where the annotator marks any, score 0.
    """

    of: str
    frames: int
    dice: float
    iou: float
    nsd: float


def by_network(session: Session, least_px: int = 0) -> Annotate:
    """Annotate with a network, at the frame's own size.

    Parameters
    ----------
    least_px : instruments of a smaller area, in pixels of the network's picture, become tissue.
    """

    def annotate(image_rgb: npt.NDArray[np.uint8]) -> Labels:
        logits = session.run({"image": network_input(image_rgb)})["logits"][0]
        size = (image_rgb.shape[1], image_rgb.shape[0])
        planes = [cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in logits]
        labels = np.asarray(np.argmax(np.stack(planes), axis=0), dtype=np.uint8)
        if least_px:
            least = least_px * labels.size / (HEIGHT * WIDTH)
            labels[small_regions(labels >= PixelClass.SHAFT, least)] = PixelClass.TISSUE
        return labels

    return annotate


def small_regions(mask: Mask, least_px: float) -> Mask:
    """The connected regions of a mask that have fewer pixels."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    small = stats[:count, cv2.CC_STAT_AREA] < least_px
    small[0] = False
    return np.asarray(small[parts], dtype=bool)


def network_input(image_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """A frame of any size as the network takes it."""
    small = cv2.resize(image_rgb, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return np.asarray(as_input(small[None]), dtype=np.float32)


def grey_is_instrument(image_rgb: npt.NDArray[np.uint8]) -> Labels:
    """The baseline for instruments: what has little colour is one, after a little cleaning."""
    blurred = cv2.GaussianBlur(image_rgb, (0, 0), image_rgb.shape[1] / 300)
    saturation = cv2.cvtColor(blurred, cv2.COLOR_RGB2HSV)[..., 1]
    outside = surround(image_rgb)
    grey: Any = ((saturation < 70) & ~outside).astype(np.uint8)
    size = max(3, round(image_rgb.shape[1] / 120)) | 1
    grey = cv2.morphologyEx(grey, cv2.MORPH_OPEN, np.ones((size, size), np.uint8))
    labels = np.where(grey > 0, PixelClass.SHAFT, PixelClass.TISSUE)
    labels[outside] = PixelClass.BACKGROUND
    return labels.astype(np.uint8)


def red_is_polyp(image_rgb: npt.NDArray[np.uint8]) -> Labels:
    """The baseline for polyps: what is redder than the bowel's mean by one deviation."""
    blurred = cv2.GaussianBlur(image_rgb, (0, 0), image_rgb.shape[1] / 40).astype(np.float32)
    red = blurred[..., 0] / (blurred.sum(axis=2) + 30)
    inside = ~surround(image_rgb)
    if not inside.any():
        return np.zeros(red.shape, dtype=np.uint8)
    redder = red > red[inside].mean() + red[inside].std()
    return np.asarray(redder & inside, dtype=np.uint8)


def summarise(frames: Iterable[LabelledFrame], annotate: Annotate, *, polyps: bool = False) -> list[Summary]:
    """Score every frame and take means: instrument first, then each class that the set marks."""
    held: dict[str, list[Scores]] = {}
    for frame in frames:
        found = annotate(frame.image_rgb)
        for name, (ours, theirs) in _masks(found, frame.labels, polyps=polyps).items():
            held.setdefault(name, []).append(score(ours, theirs, frame.labels != IGNORE))
    return [
        Summary(
            name,
            len(scores),
            *(
                float(np.mean([getattr(each, figure) for each in scores]))
                for figure in ("dice", "iou", "nsd")
            ),
        )
        for name, scores in held.items()
    ]


def tip_errors(frames: Iterable[LabelledFrame], session: Session) -> list[float]:
    """How far the nearest marked tip is from each true one, per cent of the width; infinite if none is."""
    errors = []
    for frame in frames:
        if frame.tips_xy is None:
            continue
        heat = session.run({"image": network_input(frame.image_rgb)})["tips"][0, 0]
        scale = np.array([frame.labels.shape[1] / WIDTH, frame.labels.shape[0] / HEIGHT])
        found = peaks(heat) * scale
        for tip in frame.tips_xy:
            far = np.hypot(*(found - tip).T) if len(found) else np.array([np.inf])
            errors.append(float(100 * far.min() / frame.labels.shape[1]))
    return errors


def peaks(heat: npt.NDArray[Any], threshold: float = TIP_THRESHOLD) -> npt.NDArray[np.float64]:
    """Tips (n, 2) x, y in the network's px, highest first: cells no lower than their neighbours.

    Parameters
    ----------
    heat : (rows, columns) probabilities.
    """
    heat = np.asarray(heat, dtype=np.float32)
    highest = cv2.dilate(heat, np.ones((3, 3), np.uint8))
    rows, columns = np.nonzero((heat >= threshold) & (heat >= highest))
    order = np.argsort(-heat[rows, columns], kind="stable")
    return np.asarray((np.stack([columns, rows], axis=1)[order] + 0.5) * TIP_STRIDE, dtype=np.float64)


def _masks(found: Labels, truth: Labels, *, polyps: bool) -> Mapping[str, tuple[Mask, Mask]]:
    """What to compare, by name: only what the set marks."""
    if polyps:
        return {"polyp": (found == 1, truth == 1)}
    masks = {INSTRUMENT: (instrument_mask(found), instrument_mask(truth))}
    parts = [each for each in PixelClass if each >= PixelClass.SHAFT]
    if any((truth == part).any() for part in parts):
        masks |= {CLASSES[part]: (found == part, truth == part) for part in parts}
    masks[CLASSES[PixelClass.TISSUE]] = (found == PixelClass.TISSUE, truth == PixelClass.TISSUE)
    return masks
