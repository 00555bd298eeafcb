"""Noise that tiles: clouds, grain, cells and streaks, made once and cut at any scale and angle."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float32]

SIZE = 512
# The size of a cloud's largest features in its tile, px: what `feature_px` is measured against.
FEATURE_PX = 64.0
_VARIANTS = 4
_SEED = 0x6E6F6973


@lru_cache(maxsize=1)
def tiles() -> Mapping[str, tuple[Plane, ...]]:
    """The tiles by kind, each of zero mean and unit deviation; read-only."""
    random = np.random.default_rng(_SEED)
    held: dict[str, tuple[Plane, ...]] = {}
    for kind, slope, low, high in (("cloud", 2.2, 8, 64), ("rough", 1.3, 8, 256), ("grain", 0.6, 8, 160)):
        held[kind] = tuple(_filtered(random, slope, low, high) for _ in range(_VARIANTS))
    held["cells"] = tuple(_cells(random, 60) for _ in range(_VARIANTS))
    held["streak"] = tuple(_streaks(random) for _ in range(_VARIANTS))
    for variants in held.values():
        for tile in variants:
            tile.flags.writeable = False
    return MappingProxyType(held)


def cut(
    random: np.random.Generator,
    kind: str,
    shape: tuple[int, int],
    feature_px: float,
    stretch: float = 1.0,
) -> Plane:
    """A window of noise of a random place and angle.

    Parameters
    ----------
    kind : `cloud`, `rough`, `grain`, `cells` or `streak`.
    shape : height and width, px.
    feature_px : size of the largest features.
    stretch : how many times longer than wide.

    Returns
    -------
    float32, zero mean and unit deviation over the whole tile.
    """
    variants = tiles()[kind]
    tile = variants[int(random.integers(len(variants)))]
    angle = float(random.uniform(0.0, 2.0 * np.pi))
    offset = random.uniform(0.0, SIZE, 2)
    # Smooth noise is cut coarse and enlarged: what is lost is below a pixel.
    step = 4 if kind == "cloud" and feature_px >= FEATURE_PX / 2 else 1
    zoom = FEATURE_PX / feature_px * step
    cos, sin = np.cos(angle) * zoom, np.sin(angle) * zoom
    matrix = np.array([[cos, sin, offset[0]], [-sin / stretch, cos / stretch, offset[1]]], dtype=np.float64)
    size = (-(-shape[1] // step) + 1, -(-shape[0] // step) + 1) if step > 1 else (shape[1], shape[0])
    window = cv2.warpAffine(
        tile, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_WRAP
    )
    if step > 1:
        whole = cv2.resize(window, (size[0] * step, size[1] * step), interpolation=cv2.INTER_LINEAR)
        window = whole[: shape[0], : shape[1]]
    return np.ascontiguousarray(window)


def _filtered(random: np.random.Generator, slope: float, low: float, high: float) -> Plane:
    """White noise under a power law between two frequencies, cycles a tile."""
    rows = np.fft.fftfreq(SIZE)[:, None] * SIZE
    columns = np.fft.rfftfreq(SIZE)[None, :] * SIZE
    frequency = np.hypot(rows, columns)
    gain = np.where((frequency >= low) & (frequency <= high), np.maximum(frequency, 1.0) ** -slope, 0.0)
    spectrum = np.fft.rfft2(random.standard_normal((SIZE, SIZE)))
    return _standard(np.fft.irfft2(spectrum * gain, s=(SIZE, SIZE)))


def _cells(random: np.random.Generator, count: int) -> Plane:
    """Distance to the nearest of scattered points, on a torus: lobules, fat, mucosa."""
    points = np.full((SIZE, SIZE), 255, dtype=np.uint8)
    for row, column in random.integers(0, SIZE, (count, 2)):
        points[row, column] = 0
    tiled: Any = cv2.distanceTransform(np.tile(points, (3, 3)), cv2.DIST_L2, 5)
    return _standard(tiled[SIZE : 2 * SIZE, SIZE : 2 * SIZE])


def _streaks(random: np.random.Generator) -> Plane:
    """Brushed metal: noise drawn out along the columns."""
    noise = random.standard_normal((SIZE, SIZE)).astype(np.float32)
    tiled = cv2.GaussianBlur(np.tile(noise, (1, 3)), (0, 0), sigmaX=14.0, sigmaY=0.7)
    return _standard(tiled[:, SIZE : 2 * SIZE])


def _standard(values: npt.NDArray[Any]) -> Plane:
    return np.asarray((values - values.mean()) / values.std(), dtype=np.float32)
