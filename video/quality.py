"""How well a frame can be seen: smoke, blur, fouling, highlights, exposure, inside or outside a body.

Everything is measured inside the endoscope's field of view, on a picture of about 320 columns. Smoke raises
the dark channel (He, Sun, Tang, "Single image haze removal using dark channel prior", CVPR 2009) and lowers
saturation; it lowers contrast at every scale alike, so blur is the *ratio* of fine to coarse detail and does
not see it.

Scores are bounded measures and not probabilities: their scales were set on a few real and rendered frames.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from trocar.runtime.kernels.preprocess import preprocess
from trocar.video.frames import Quality, UInt8Array

Float32Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_COLUMNS = 320
# Anything brighter than this is lit by the endoscope.
_LIT = 0.06
# A view this small says nothing.
_LEAST_PIXELS = 64
_DARK_WINDOW_PX = 7
# Logistic in dark channel and saturation: 0.2 in clear scenes, 0.55 in a thin veil, 0.87 behind thick smoke.
_SMOKE_DARK, _SMOKE_SATURATION = (6.0, 0.35), (5.0, 0.30)
# Fine over coarse detail: 0.45 and more in focus, about 0.12 where nothing is.
_SHARP, _BLURRED = 0.45, 0.12
_FINE_SIGMA_PX, _COARSE_SIGMA_PX = 1.0, 4.0
_TILE_PX = 20
# A tile is fouled where it has less than this share of the view's usual detail.
_FOULED = 0.2
_BRIGHT, _WASHED_OUT = 0.92, 0.15
# Tissue is redder than blue by this share of its red, and not greener than red by more than noise.
_RED_OVER_BLUE, _GREEN_OVER_RED = 0.05, 1.05
_NOISE = 0.005
# Shares of such pixels: a patient leaves more than the second, instruments and smoke included; a room less
# than the first.
_ROOM, _PATIENT = 0.22, 0.34
_WINDOWS = {size: np.ones((size, size), np.uint8) for size in (5, _DARK_WINDOW_PX)}


class Inspector:
    """Measures one stream's frames, one at a time, in memory that it keeps: `inspect` for those in a row."""

    def __init__(self) -> None:
        self._held: _Planes | None = None

    def __call__(self, image_bgr: UInt8Array) -> Quality:
        """Measure one frame.

        Parameters
        ----------
        image_bgr : (height, width, 3) uint8.
        """
        if self._held is None or self._held.frame_shape != image_bgr.shape:
            self._held = _Planes(image_bgr.shape)
        held = self._held
        held.take(image_bgr)
        held.find_view()
        if held.seen < _LEAST_PIXELS:
            level = sum(cv2.mean(plane)[0] for plane in (held.blue, held.green, held.red)) / 3
            return Quality(exposure=level, blur=1.0)
        held.find_detail()
        return Quality(
            smoke=_smoke(held),
            blur=_blur(held),
            fouling=_fouling(held),
            highlights=_highlights(held),
            exposure=cv2.mean(held.grey, mask=held.view)[0],
            out_of_body=_out_of_body(held),
        )


def inspect(image_bgr: UInt8Array) -> Quality:
    """Measure one frame by itself; see `Inspector`."""
    return Inspector()(image_bgr)


class _Planes:
    """A reduced frame plane by plane, and room for what is computed from it: as large for every frame.

    Whole planes: a reduction over an axis of 3 is many times slower.
    """

    def __init__(self, frame_shape: tuple[int, ...]) -> None:
        self.frame_shape = frame_shape
        height, width = frame_shape[:2]
        columns = min(_COLUMNS, width)
        rows = max(1, round(height * columns / width))
        shape = (rows, columns)
        # Of a large frame two rows for each one here are enough: the mean along them hides the gaps.
        self._step = max(1, height // (2 * rows))
        self._bytes, self.view = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        self._colours = np.empty((*shape, 3), np.float32)
        self._planes = np.empty((3, *shape), np.float32)
        self.blue, self.green, self.red = self._planes
        self.least, self.most = np.empty((2, *shape), np.float32)
        self.grey, self.fine, self.coarse, self.room, self.other = np.empty((5, *shape), np.float32)
        self.yes, self.no = np.empty((2, *shape), np.bool_)
        self._regions = np.empty(shape, np.int32)
        self.seen = 0

    def take(self, image_bgr: UInt8Array) -> None:
        """Reduce a frame into the planes."""
        rows = image_bgr[:: self._step]
        preprocess(rows, self._planes, pixel_format="bgr", resize="area", order="bgr")
        cv2.merge((self.blue, self.green, self.red), dst=self._colours)
        cv2.cvtColor(self._colours, cv2.COLOR_BGR2GRAY, dst=self.grey)
        np.minimum(np.minimum(self.blue, self.green, out=self.least), self.red, out=self.least)
        np.maximum(np.maximum(self.blue, self.green, out=self.most), self.red, out=self.most)

    def find_view(self) -> None:
        """Fill in where the endoscope looks."""
        lit = np.greater(self.most, _LIT, out=self.yes)
        mark_view(lit.view(np.uint8), self._regions, self._bytes, self.view)
        self.seen = cv2.countNonZero(self.view)

    def find_detail(self) -> None:
        """Split the picture into fine detail, coarse detail and the rest."""
        smooth = cv2.GaussianBlur(self.grey, (0, 0), _FINE_SIGMA_PX, dst=self.room)
        np.subtract(self.grey, smooth, out=self.fine)
        blurred = cv2.GaussianBlur(self.grey, (0, 0), _COARSE_SIGMA_PX, dst=self.other)
        np.subtract(smooth, blurred, out=self.coarse)

    def share(self, chosen: Mask) -> float:
        """Share of the view where a condition holds; the condition is overwritten."""
        np.logical_and(chosen, self.view.view(np.bool_), out=chosen)
        return cv2.countNonZero(chosen.view(np.uint8)) / self.seen


def mark_view(lit: UInt8Array, regions: npt.NDArray[np.int32], scratch: UInt8Array, view: UInt8Array) -> None:
    """Write where the endoscope looks: the hull of the largest lit region, drawn in by a few pixels.

    Parameters
    ----------
    lit : (rows, columns), 1 where the reduced picture is lit; overwritten.
    regions, scratch : room of the same size.
    view : 1 inside, 0 outside; nothing of a black picture is inside.
    """
    count, _, stats, _ = cv2.connectedComponentsWithStats(lit, labels=regions, connectivity=4)
    view[...] = 0
    if count < 2:
        return
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    inside = np.equal(regions, largest, out=lit.view(np.bool_))
    # The hull is that of the first and the last pixel of each row.
    rows = np.flatnonzero(inside.any(axis=1))
    first = inside.argmax(axis=1)[rows]
    # The other way round in memory of our own: `argmax` would copy.
    np.copyto(scratch, inside[:, ::-1])
    last = inside.shape[1] - 1 - scratch.argmax(axis=1)[rows]
    ends = np.stack([np.concatenate([first, last]), np.concatenate([rows, rows])], axis=1)
    scratch[...] = 0
    cv2.fillConvexPoly(scratch, cv2.convexHull(ends.astype(np.int32)), 1)
    cv2.erode(scratch, _WINDOWS[5], dst=view, borderType=cv2.BORDER_REPLICATE)


def _smoke(held: _Planes) -> float:
    dark = cv2.mean(cv2.erode(held.least, _WINDOWS[_DARK_WINDOW_PX], dst=held.room), mask=held.view)[0]
    np.subtract(held.most, held.least, out=held.room)
    saturation = np.divide(held.room, np.maximum(held.most, np.float32(1e-3), out=held.other), out=held.room)
    logit = _SMOKE_DARK[0] * (dark - _SMOKE_DARK[1]) - _SMOKE_SATURATION[0] * (
        cv2.mean(saturation, mask=held.view)[0] - _SMOKE_SATURATION[1]
    )
    return 1 / (1 + math.exp(-logit))


def _blur(held: _Planes) -> float:
    spread = _deviation(held.coarse, held.view)
    if spread < 1e-4:  # a plain picture has no focus to judge
        return 1.0
    ratio = _deviation(held.fine, held.view) / spread
    return min(1.0, max(0.0, (_SHARP - ratio) / (_SHARP - _BLURRED)))


def _deviation(values: Float32Array, view: UInt8Array) -> float:
    return float(cv2.meanStdDev(values, mask=view)[1][0, 0])


def _fouling(held: _Planes) -> float:
    """Return the share of lit tiles that lack the detail which the rest of the view has."""
    rows, columns = (size // _TILE_PX for size in held.grey.shape)
    if not rows or not columns:
        return 0.0

    def tiled(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # The mean of each tile: a few hundred values at most.
        whole = values[: rows * _TILE_PX, : columns * _TILE_PX]
        return np.asarray(cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA))

    np.copyto(held.room, held.view)
    lit = (tiled(held.room) > 0.99) & (tiled(held.grey) > 0.1)
    if np.count_nonzero(lit) < 4:
        return 0.0
    detail = np.sqrt(tiled(np.multiply(held.fine, held.fine, out=held.room)))[lit]
    return float(np.mean(detail < _FOULED * np.median(detail)))


def _highlights(held: _Planes) -> float:
    np.subtract(held.most, held.least, out=held.room)
    pale = np.less(held.room, _WASHED_OUT, out=held.no)
    bright = np.greater(held.least, _BRIGHT, out=held.yes)
    return held.share(np.logical_and(bright, pale, out=held.yes))


def _out_of_body(held: _Planes) -> float:
    total = np.add(np.add(held.red, held.green, out=held.room), held.blue, out=held.room)
    lit = np.greater(total, 3 * _LIT, out=held.yes)
    lit_share = held.share(lit)
    if not lit_share:
        return 0.0
    margin = np.add(np.multiply(held.red, _RED_OVER_BLUE, out=held.room), _NOISE, out=held.room)
    redder = np.greater(np.subtract(held.red, held.blue, out=held.other), margin, out=held.no)
    np.logical_and(lit, redder, out=lit)
    warm = np.multiply(held.red, _GREEN_OVER_RED, out=held.room)
    np.logical_and(lit, np.greater_equal(warm, held.green, out=held.no), out=lit)
    share = held.share(lit) / lit_share
    return min(1.0, max(0.0, (_PATIENT - share) / (_PATIENT - _ROOM)))
