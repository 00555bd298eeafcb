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

from trocar.video.frames import Quality, UInt8Array

Float32Array = npt.NDArray[np.float32]

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


def inspect(image_bgr: UInt8Array) -> Quality:
    """Measure one frame.

    Parameters
    ----------
    image_bgr : (height, width, 3) uint8.
    """
    small = _reduced(image_bgr)
    blue, green, red = map(
        _float32, cv2.split(small)
    )  # whole planes: a reduction over an axis of 3 is many times slower
    least, most = np.minimum(np.minimum(blue, green), red), np.maximum(np.maximum(blue, green), red)
    view = field_of_view(most)
    if np.count_nonzero(view) < _LEAST_PIXELS:
        return Quality(exposure=float(small.mean()), blur=1.0)
    grey = _float32(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY))
    fine, coarse = _detail(grey)
    return Quality(
        smoke=_smoke(least, most, view),
        blur=_blur(fine[view], coarse[view]),
        fouling=_fouling(fine, grey, view),
        highlights=float(np.mean((least[view] > _BRIGHT) & (most[view] - least[view] < _WASHED_OUT))),
        exposure=float(grey[view].mean()),
        out_of_body=_out_of_body(blue[view], green[view], red[view]),
    )


def field_of_view(brightness: Float32Array) -> npt.NDArray[np.bool_]:
    """Return where the endoscope looks: the hull of the largest lit region, drawn in by a few pixels.

    Parameters
    ----------
    brightness : (rows, columns) float32, 0 to 1, the greatest of the colours of a reduced picture.

    Returns
    -------
    (rows, columns) bool; all False in a black picture.
    """
    lit = (brightness > _LIT).astype(np.uint8)
    count, regions, stats, _ = cv2.connectedComponentsWithStats(lit, connectivity=4)
    mask: npt.NDArray[Any] = np.zeros(lit.shape, np.uint8)
    if count > 1:
        largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        outlines, _ = cv2.findContours(
            (regions == largest).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        hull = cv2.convexHull(np.concatenate(outlines))
        cv2.fillConvexPoly(mask, hull, 1)
        mask = cv2.erode(mask, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_REPLICATE)
    return mask.astype(bool)


def _reduced(image_bgr: UInt8Array) -> Float32Array:
    height, width = image_bgr.shape[:2]
    columns = min(_COLUMNS, width)
    rows = max(1, round(height * columns / width))
    # Of a large frame every second pixel is enough: the mean over what remains hides the gaps.
    step = 2 if width >= 4 * _COLUMNS else 1
    small = cv2.resize(image_bgr[::step, ::step], (columns, rows), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / np.float32(255)


def _float32(image: npt.NDArray[Any]) -> Float32Array:
    return np.asarray(image, dtype=np.float32)


def _smoke(least: Float32Array, most: Float32Array, view: npt.NDArray[np.bool_]) -> float:
    dark = cv2.erode(least, np.ones((_DARK_WINDOW_PX, _DARK_WINDOW_PX), np.uint8))
    saturation = (most - least) / np.maximum(most, np.float32(1e-3))
    logit = _SMOKE_DARK[0] * (float(dark[view].mean()) - _SMOKE_DARK[1]) - _SMOKE_SATURATION[0] * (
        float(saturation[view].mean()) - _SMOKE_SATURATION[1]
    )
    return 1 / (1 + math.exp(-logit))


def _detail(grey: Float32Array) -> tuple[Float32Array, Float32Array]:
    smooth = cv2.GaussianBlur(grey, (0, 0), _FINE_SIGMA_PX)
    return grey - smooth, smooth - cv2.GaussianBlur(grey, (0, 0), _COARSE_SIGMA_PX)


def _blur(fine: Float32Array, coarse: Float32Array) -> float:
    spread = float(coarse.std())
    if spread < 1e-4:  # a plain picture has no focus to judge
        return 1.0
    ratio = float(fine.std()) / spread
    return min(1.0, max(0.0, (_SHARP - ratio) / (_SHARP - _BLURRED)))


def _fouling(fine: Float32Array, grey: Float32Array, view: npt.NDArray[np.bool_]) -> float:
    """Return the share of lit tiles that lack the detail which the rest of the view has."""
    rows, columns = (size // _TILE_PX * _TILE_PX for size in grey.shape)

    def tiled(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        blocks = values[:rows, :columns].reshape(rows // _TILE_PX, _TILE_PX, columns // _TILE_PX, _TILE_PX)
        return np.asarray(blocks.mean(axis=(1, 3)))

    inside = tiled(view.astype(np.float32)) > 0.99
    lit = inside & (tiled(grey) > 0.1)
    if np.count_nonzero(lit) < 4:
        return 0.0
    detail = np.sqrt(tiled(fine * fine))[lit]
    return float(np.mean(detail < _FOULED * np.median(detail)))


def _out_of_body(blue: Float32Array, green: Float32Array, red: Float32Array) -> float:
    lit = red + green + blue > 3 * _LIT
    if not lit.any():
        return 0.0
    tissue = (red - blue > _RED_OVER_BLUE * red + _NOISE) & (_GREEN_OVER_RED * red >= green)
    share = float(np.mean(tissue[lit]))
    return min(1.0, max(0.0, (_PATIENT - share) / (_PATIENT - _ROOM)))
