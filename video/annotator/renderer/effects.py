"""What lies between the scene and the file: smoke, blur, the endoscope's border, the camera, compression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from trocar.video.annotator.renderer.noise import Plane, cut
from trocar.video.annotator.renderer.tissue import grid

Mask = npt.NDArray[np.bool_]
Image = npt.NDArray[np.uint8]
BORDERS = ("none", "circle", "bars", "letterbox", "octagon")


@dataclass(frozen=True, slots=True)
class Border:
    """The shape of the endoscope's picture in the frame; lengths in px.

    Parameters
    ----------
    half : height and width of half the picture: a circle's radius twice for a circle.
    soft : over how many px its edge fades.
    level : brightness of what surrounds it.
    """

    kind: str
    centre_yx: tuple[float, float]
    half: tuple[float, float]
    soft: float
    level: float

    def inside(self, shape: tuple[int, int]) -> Plane:
        """How far inside the picture each pixel lies, px, negative outside."""
        rows, columns = grid(shape)
        down, right = np.abs(rows - self.centre_yx[0]), np.abs(columns - self.centre_yx[1])
        if self.kind == "none":
            return np.full(shape, 1e6, dtype=np.float32)
        if self.kind == "circle":
            return np.asarray(self.half[0] - np.hypot(down, right), dtype=np.float32)
        box = np.minimum(self.half[0] - down, self.half[1] - right)
        if self.kind == "octagon":
            corner = (0.72 * (self.half[0] + self.half[1]) - down - right) / np.sqrt(2)
            box = np.minimum(box, corner)
        return np.asarray(box, dtype=np.float32)


def draw_border(random: np.random.Generator, shape: tuple[int, int], kind: str | None = None) -> Border:
    """A border, or none."""
    height, width = shape
    if kind is None:
        kind = BORDERS[int(random.choice(len(BORDERS), p=(0.4, 0.33, 0.14, 0.05, 0.08)))]
    half = (height / 2, width / 2)
    centre = (height / 2, width / 2)
    if kind == "circle":
        radius = height * random.uniform(0.42, 0.92)
        half = (radius, radius)
        centre = (height * random.uniform(0.42, 0.58), width * random.uniform(0.44, 0.56))
    elif kind == "bars":
        half = (height * random.uniform(0.44, 0.5), width * random.uniform(0.28, 0.48))
        centre = (height / 2, width * random.uniform(0.46, 0.54))
    elif kind == "letterbox":
        half = (height * random.uniform(0.36, 0.48), width * 0.51)
    elif kind == "octagon":
        half = (height * random.uniform(0.42, 0.51), width * random.uniform(0.3, 0.51))
    soft = random.uniform(0.5, 6.0) if kind == "circle" else 0.5
    return Border(kind, centre, half, soft, float(random.choice((0.0, random.uniform(0, 0.09)))))


@dataclass(frozen=True, slots=True)
class Camera:
    """How the camera turns light into bytes; `captioned` is the share of frames with words over them."""

    gains: tuple[float, float, float]
    gamma: float
    contrast: float
    saturation: float
    noise: float
    blur: float
    sharpen: float
    shrink: float
    jpeg: int
    vignette: float
    captioned: float = 0.12


def draw_camera(random: np.random.Generator) -> Camera:
    """A camera's look."""
    exposure = np.exp(random.normal(0.1, 0.3))
    gains = exposure * np.exp(random.normal(0, 0.1, 3))
    return Camera(
        gains=(float(gains[0]), float(gains[1]), float(gains[2])),
        gamma=float(np.exp(random.normal(-0.1, 0.25))),
        contrast=float(random.uniform(0.7, 1.35)),
        saturation=float(random.uniform(0.4, 1.4)),
        noise=float(random.uniform(0, 0.045)) if random.random() < 0.7 else 0.0,
        blur=float(random.uniform(0.3, 1.8)) if random.random() < 0.45 else 0.0,
        sharpen=float(random.uniform(0.3, 1.8)) if random.random() < 0.35 else 0.0,
        shrink=float(random.uniform(0.4, 0.9)) if random.random() < 0.25 else 1.0,
        jpeg=int(random.integers(35, 97)),
        vignette=float(random.uniform(0, 0.9)) if random.random() < 0.7 else 0.0,
    )


def add_smoke(random: np.random.Generator, planes: Plane, density: float) -> None:
    """Lay drifting smoke over everything; `density` 0 to 1."""
    shape = (planes.shape[1], planes.shape[2])
    unit = shape[0] / 256.0
    cloud = cut(random, "cloud", shape, random.uniform(60, 200) * unit)
    cloud = cloud + 0.35 * cut(random, "cloud", shape, random.uniform(25, 60) * unit)
    share = np.clip((0.5 + 0.35 * cloud) * density, 0, 0.92)
    level = random.uniform(0.5, 0.95)
    tint = level * np.exp(random.normal(0, 0.05, 3))
    for plane, value in zip(planes, tint, strict=True):
        plane += (np.float32(value) - plane) * share


def add_text(random: np.random.Generator, image: Image) -> None:
    """Words and numbers over the picture, as recorders write them."""
    unit = image.shape[0] / 256.0
    for _ in range(int(random.integers(1, 5))):
        letters = "".join(
            random.choice(list("ABCDEFGHKLMNPRSTUVX0123456789:/-. "), int(random.integers(3, 16)))
        )
        place = (
            int(random.uniform(-0.02, 0.9) * image.shape[1]),
            int(random.uniform(0.04, 1.0) * image.shape[0]),
        )
        level = int(random.integers(140, 256))
        colour = (
            (level, level, level)
            if random.random() < 0.7
            else tuple(int(v) for v in random.integers(0, 256, 3))
        )
        cv2.putText(
            image,
            letters,
            place,
            cv2.FONT_HERSHEY_SIMPLEX,
            random.uniform(0.25, 0.6) * unit,
            colour,
            1,
            cv2.LINE_AA,
        )


def photograph(
    random: np.random.Generator, planes: Plane, border: Border, camera: Camera
) -> tuple[Image, Mask]:
    """Turn light into a frame.

    Returns
    -------
    The frame (height, width, 3) RGB and where it shows the scene.
    """
    shape = (planes.shape[1], planes.shape[2])
    inside = border.inside(shape)
    _expose(planes, camera, shape)
    if border.kind != "none":
        fade = np.clip(inside / border.soft, 0, 1)
        planes *= fade
        planes += np.float32(border.level) * (1 - fade)
    image = np.ascontiguousarray(np.moveaxis(planes, 0, 2))
    if camera.shrink < 1.0:
        small = cv2.resize(image, None, fx=camera.shrink, fy=camera.shrink, interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(small, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR))
    if camera.blur:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), camera.blur * shape[0] / 256.0))
    if camera.sharpen:
        soft = cv2.GaussianBlur(image, (0, 0), 1.5 * shape[0] / 256.0)
        image = np.asarray(cv2.addWeighted(image, 1 + camera.sharpen, soft, -camera.sharpen, 0))
    if camera.noise:
        _noise(random, image, camera.noise)
    frame: Image = np.clip(image * 255.0 + 0.5, 0, 255).astype(np.uint8)
    if random.random() < camera.captioned:
        add_text(random, frame)
    return _compressed(frame, camera.jpeg), inside > 0


def _expose(planes: Plane, camera: Camera, shape: tuple[int, int]) -> None:
    if camera.vignette:
        rows, columns = grid(shape)
        far = ((rows / shape[0] - 0.5) ** 2 + (columns / shape[0] - 0.5 * shape[1] / shape[0]) ** 2) * 2.0
        planes *= 1.0 / (1.0 + camera.vignette * far)
    grey = planes.mean(axis=0)
    for plane, gain in zip(planes, camera.gains, strict=True):
        plane -= grey
        plane *= np.float32(camera.saturation)
        plane += grey
        plane *= np.float32(gain)
    np.clip(planes, 0, None, out=planes)
    # A soft shoulder, as cameras have: highlights reach white, mid tones stay.
    planes[:] = cv2.pow(planes.reshape(3 * shape[0], shape[1]), 2.0 * camera.contrast).reshape(planes.shape)
    planes /= 1.0 + 0.35 * planes
    planes[:] = cv2.pow(planes.reshape(3 * shape[0], shape[1]), 0.5 * camera.gamma).reshape(planes.shape)
    np.clip(planes, 0, 1, out=planes)


def _noise(random: np.random.Generator, image: Plane, sigma: float) -> None:
    """Sensor noise, fine or smeared by the camera's own filter."""
    shape: tuple[Any, ...] = image.shape
    grains = np.empty(shape, dtype=np.float32)
    cv2.setRNGSeed(int(random.integers(2**31 - 1)))
    fill: Any = cv2.randn
    fill(grains, 0.0, sigma)
    if random.random() < 0.4:
        grains = np.asarray(cv2.blur(grains, (3, 1) if random.random() < 0.5 else (2, 2))) * np.float32(1.7)
    image += grains


def _compressed(frame: Image, quality: int) -> Image:
    kind = [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, data = cv2.imencode(".jpg", frame, kind)
    if not done:
        raise RuntimeError("expected OpenCV to write a JPEG")
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)
