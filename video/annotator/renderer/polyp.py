"""Polyps in the bowel: the second model's frames.

Their shape is the bowel's and the lumps' in space; colours and cameras vary far beyond what colonoscopes
show, so that a polyp is known by its form and not by its hue.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from trocar.video.annotator.renderer.bowel import (
    COLUMNS,
    ROWS,
    draw_tube,
    draw_view,
    march,
    normals_of,
    refine,
)
from trocar.video.annotator.renderer.effects import Camera, Image, draw_border, draw_camera, photograph
from trocar.video.annotator.renderer.lumps import POLYP, STOOL, Growth, draw_growths
from trocar.video.annotator.renderer.mucosa import Surface, draw_mucosa, lit
from trocar.video.annotator.renderer.noise import Plane
from trocar.video.annotator.renderer.residue import add_bubbles, add_liquid, add_mucus
from trocar.video.annotator.renderer.scene import Scene, motion_kernel
from trocar.video.types import HEIGHT, WIDTH

# A polyp of which less of the picture is seen is not marked.
_LEAST_SHARE = 0.001


def render_polyp(seed: int | tuple[int, ...], shape: tuple[int, int] = (HEIGHT, WIDTH)) -> Scene:
    """Render one frame of a colonoscopy; labels are 1 on polyps and 0 elsewhere, and there are no tips."""
    random = np.random.default_rng(seed)
    # Colonoscopes have nearly square pictures, which the network sees drawn out.
    drawn = (shape[0], round(shape[0] * random.uniform(1.05, 1.8) / 16) * 16)
    unit = drawn[0] / 256.0
    surface, growths = _surface(random, drawn)
    labels = _labels(surface, growths)
    planes = lit(random, surface, draw_mucosa(random, surface, growths, unit), unit)
    if random.random() < 0.2:
        add_liquid(random, planes, unit)
    if random.random() < 0.2:
        add_mucus(random, planes, unit)
    if random.random() < 0.2:
        add_bubbles(random, planes, unit)
    kind = ("none", "octagon", "circle", "bars")[int(random.choice(4, p=(0.25, 0.5, 0.1, 0.15)))]
    border = draw_border(random, drawn, kind)
    _shake(random, planes, unit)
    image, seen = photograph(random, planes, border, _camera(random))
    if random.random() < 0.3:
        _inset(random, image)
    labels[~seen] = 0
    size = (shape[1], shape[0])
    return Scene(
        np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8),
        np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8),
        np.zeros((0, 2)),
    )


def _surface(random: np.random.Generator, drawn: tuple[int, int]) -> tuple[Surface, list[Growth]]:
    """What is seen of a bowel: found at a third of the size, then brought onto the surface pixel by pixel."""
    tube = draw_tube(random)
    whole = draw_view(random, tube, drawn)
    coarse = whole.smaller(6)
    march(tube, coarse, [])
    growths = draw_growths(random, coarse, normals_of(coarse))
    lumps = [growth.lump for growth in growths]
    view = whole.smaller(3)
    march(tube, view, lumps)
    depth = cv2.resize(view.depth, drawn[::-1], interpolation=cv2.INTER_LINEAR)
    # Outlines were found in steps of three pixels.
    whole.depth = np.asarray(cv2.blur(depth, (5, 5)), dtype=np.float32)
    refine(tube, whole, lumps, 0.08 * whole.depth)
    _, column, row = tube.along(whole.points)
    around, along = column * np.float32(1 / COLUMNS), row * np.float32(1 / ROWS)
    return Surface(whole, normals_of(whole), around, along), growths


def _labels(surface: Surface, growths: list[Growth]) -> npt.NDArray[np.uint8]:
    labels = np.zeros(surface.view.depth.shape, dtype=np.uint8)
    for growth, owner in zip(growths, surface.view.owner, strict=True):
        mine = owner > -0.1 * growth.lump.blend
        if growth.kind == POLYP and np.count_nonzero(mine) >= _LEAST_SHARE * labels.size:
            labels[mine] = 1
    for growth, owner in zip(growths, surface.view.owner, strict=True):
        if growth.kind == STOOL:
            labels[owner > 0] = 0
    return labels


def _camera(random: np.random.Generator) -> Camera:
    """Any white balance and any gamma that still shows a picture."""
    camera = draw_camera(random)
    gains = np.exp(random.normal(0, 0.1, 3) + random.normal(0.05, 0.15))
    return replace(
        camera,
        gains=(float(gains[0]), float(gains[1]), float(gains[2])),
        gamma=float(np.clip(camera.gamma, 0.6, 1.3)),
        contrast=float(np.clip(camera.contrast, 0.75, 1.25)),
        saturation=float(random.uniform(0.6, 1.45)),
        noise=0.6 * camera.noise,
        vignette=0.5 * camera.vignette,
        captioned=0.15,
    )


def _shake(random: np.random.Generator, planes: Plane, unit: float) -> None:
    """Movement: smeared, or with lines and colours taken at other times."""
    chance = random.random()
    if chance < 0.12:
        kernel = motion_kernel(random.uniform(3, 9) * unit, random.uniform(0, np.pi))
        for plane in planes:
            plane[:] = cv2.filter2D(plane, -1, kernel)
    elif chance < 0.2:
        step = round(random.uniform(1, 4) * unit)
        planes[:, 1::2] = np.roll(planes[:, 1::2], step, axis=2)
    elif chance < 0.3:
        for plane in planes:
            plane[:] = np.roll(plane, np.round(random.normal(0, 1.5, 2) * unit).astype(int), axis=(0, 1))


def _inset(random: np.random.Generator, image: Image) -> None:
    """The small panel in a corner that shows how the endoscope lies."""
    height, width = image.shape[:2]
    size = (int(random.uniform(0.1, 0.32) * width), int(random.uniform(0.15, 0.35) * height))
    left = 0 if random.random() < 0.8 else width - size[0]
    top = height - size[1] if random.random() < 0.8 else 0
    colour = ((20, 90, 40), (20, 40, 110), (10, 10, 10), (60, 120, 60), (110, 190, 130))[
        int(random.integers(5))
    ]
    cv2.rectangle(image, (left, top), (left + size[0], top + size[1]), colour, -1)
    points = random.uniform((left, top), (left + size[0], top + size[1]), (12, 2))
    cv2.polylines(image, [points.astype(np.int32)], False, (200, 220, 120), 1, cv2.LINE_AA)
