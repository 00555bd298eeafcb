"""One rendered frame: picture, labels and tips, decided by a seed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from trocar.video.annotator.renderer.clutter import add_clutter, cover_tips, soil
from trocar.video.annotator.renderer.effects import add_smoke, draw_border, draw_camera, photograph
from trocar.video.annotator.renderer.instruments import draw_instrument
from trocar.video.annotator.renderer.noise import Plane
from trocar.video.annotator.renderer.poses import draw_pose
from trocar.video.annotator.renderer.strokes import Labels, Layer, draw_layer
from trocar.video.annotator.renderer.tissue import paint_tissue
from trocar.video.types import HEIGHT, WIDTH, PixelClass

_COUNT = (0.13, 0.3, 0.32, 0.18, 0.07)


@dataclass(frozen=True, slots=True)
class Scene:
    """A frame and the truth about it.

    Parameters
    ----------
    image_rgb : (height, width, 3) uint8.
    labels : (height, width) uint8 of `PixelClass`.
    tips_xy : (n, 2) px, pixel centres at halves; only tips in view.
    """

    image_rgb: npt.NDArray[np.uint8]
    labels: Labels
    tips_xy: npt.NDArray[np.float64]


def render_frame(seed: int | tuple[int, ...], shape: tuple[int, int] = (HEIGHT, WIDTH)) -> Scene:
    """Render one frame; the same seed and shape give the same frame."""
    random = np.random.default_rng(seed)
    border = draw_border(random, shape)
    planes = paint_tissue(random, shape).colour
    add_clutter(random, planes)
    labels = np.full(shape, PixelClass.TISSUE, dtype=np.uint8)
    tips = np.zeros((0, 2))
    # Instruments enter from the edge of the picture, which is the border's where there is one.
    field = (min(border.half[0], shape[0] / 2), min(border.half[1], shape[1] / 2))
    for _ in range(int(random.choice(len(_COUNT), p=_COUNT))):
        instrument = draw_instrument(random)
        pose = draw_pose(random, instrument, shape, field)
        layer = draw_layer(instrument, pose, shape)
        soil(random, layer)
        below = planes.copy() if random.random() < 0.15 else None
        cast_shadow(random, planes, layer)
        blur_layer(random, layer, pose.radius)
        tips = lay(planes, labels, tips, layer)
        if below is not None:
            tips = cover_tips(random, planes, labels, tips, below)
    if random.random() < 0.3:
        add_smoke(random, planes, random.uniform(0.1, 1.0))
    image, seen = photograph(random, planes, border, draw_camera(random))
    labels[~seen] = PixelClass.BACKGROUND
    return Scene(image, labels, visible(tips, labels))


def lay(
    planes: Plane, labels: Labels, tips: npt.NDArray[np.float64], layer: Layer
) -> npt.NDArray[np.float64]:
    """Put an instrument over the scene; returns the tips, its own and those it leaves in view."""
    planes *= 1 - layer.cover
    planes += layer.colour
    over = layer.labels > 0
    labels[over] = layer.labels[over]
    return np.concatenate([visible(tips, np.where(over, 0, labels)), layer.tips_xy])


def visible(tips: npt.NDArray[np.float64], labels: Labels) -> npt.NDArray[np.float64]:
    """The tips that lie on a clasper in view."""
    cells = np.floor(tips).astype(np.int64)
    inside = (cells >= 0).all(1) & (cells[:, 0] < labels.shape[1]) & (cells[:, 1] < labels.shape[0])
    tips, cells = tips[inside], cells[inside]
    return np.asarray(tips[labels[cells[:, 1], cells[:, 0]] == PixelClass.CLASPER], dtype=np.float64)


def cast_shadow(random: np.random.Generator, planes: Plane, layer: Layer) -> None:
    """Darken what lies behind, to the side that the light's offset from the lens throws it."""
    if random.random() < 0.4:
        return
    unit = layer.cover.shape[0] / 256.0
    step = random.normal(0, 7, 2) * unit
    small = cv2.resize(layer.cover, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), random.uniform(0.6, 2.5) * unit)
    matrix = np.array([[4, 0, step[0]], [0, 4, step[1]]])
    shadow = cv2.warpAffine(small, matrix, (layer.cover.shape[1], layer.cover.shape[0]))
    planes *= 1 - random.uniform(0.2, 0.7) * shadow


def blur_layer(random: np.random.Generator, layer: Layer, radius: float) -> None:
    """Movement during the exposure, or out of focus, the more the nearer the lens."""
    unit = layer.cover.shape[0] / 256.0
    near = min(1.0, radius / (25 * unit))
    if random.random() < 0.8 - 0.4 * near:
        return
    if random.random() < 0.5:
        sigma = random.uniform(0.7, 1.5 + 4.0 * near) * unit

        def blur(plane: Plane) -> Plane:
            return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma))

    else:
        kernel = motion_kernel(random.uniform(3, 15) * unit, random.uniform(0, np.pi))

        def blur(plane: Plane) -> Plane:
            return np.asarray(cv2.filter2D(plane, -1, kernel))

    layer.cover[:] = blur(layer.cover)
    for plane in layer.colour:
        plane[:] = blur(plane)


def motion_kernel(length: float, angle: float) -> Plane:
    """A line of a length, px, that sums to 1."""
    size = int(np.ceil(length)) | 1
    kernel = np.zeros((size, size), dtype=np.float32)
    middle = size // 2
    dx, dy = np.cos(angle) * length / 2, np.sin(angle) * length / 2
    ends = np.round(np.array([(middle - dx, middle - dy), (middle + dx, middle + dy)])).astype(int)
    cv2.line(kernel, tuple(ends[0].tolist()), tuple(ends[1].tolist()), 1.0, 1, cv2.LINE_AA)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)
