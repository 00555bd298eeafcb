"""Scores of label maps against what people marked: Dice, IoU and the normalised surface Dice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
# ROBUST-MIS 2019 allows 13 px at a width of 960.
SURFACE_TOLERANCE = 13 / 960


@dataclass(frozen=True, slots=True)
class Scores:
    """Of one class in one frame; a class that neither has scores 1, one that only one has scores 0."""

    dice: float
    iou: float
    nsd: float


def score(found: Mask, truth: Mask, known: Mask | None = None, tolerance_px: float | None = None) -> Scores:
    """Compare two masks.

    Parameters
    ----------
    found, truth : (height, width).
    known : where the truth is known; everywhere if absent.
    tolerance_px : how far surfaces may lie apart; `SURFACE_TOLERANCE` of the width if absent.
    """
    if known is not None:
        found, truth = found & known, truth & known
    overlap, ours, theirs = (int(np.count_nonzero(mask)) for mask in (found & truth, found, truth))
    if ours + theirs == 0:
        return Scores(1.0, 1.0, 1.0)
    tolerance = SURFACE_TOLERANCE * truth.shape[1] if tolerance_px is None else tolerance_px
    return Scores(
        2 * overlap / (ours + theirs),
        overlap / (ours + theirs - overlap),
        surface_dice(found, truth, tolerance),
    )


def surface_dice(found: Mask, truth: Mask, tolerance_px: float) -> float:
    """Share of both outlines that lies within the tolerance of the other (Nikolov et al. 2018, in pixels)."""
    ours, theirs = _outline(found), _outline(truth)
    total = int(ours.sum()) + int(theirs.sum())
    if total == 0:
        return 1.0
    if not ours.any() or not theirs.any():
        return 0.0
    near = int((_distance(theirs)[ours] <= tolerance_px).sum()) + int(
        (_distance(ours)[theirs] <= tolerance_px).sum()
    )
    return near / total


def _outline(mask: Mask) -> Mask:
    """The pixels of a mask with a neighbour outside it; the picture's edge is no outline."""
    solid = mask.astype(np.uint8)
    inner: Any = cv2.erode(solid, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    return np.asarray((solid > 0) & (inner == 0), dtype=bool)


def _distance(outline: Mask) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.distanceTransform((~outline).astype(np.uint8), cv2.DIST_L2, 5), dtype=np.float32)
