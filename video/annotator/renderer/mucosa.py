"""The look of the bowel's wall: colour, vessels, and the light of the endoscope on it."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np

from trocar.video.annotator.renderer.bowel import View
from trocar.video.annotator.renderer.lumps import POLYP, STOOL, Growth
from trocar.video.annotator.renderer.noise import Plane, cut
from trocar.video.annotator.renderer.tissue import grow_vessel

# The size of the vessels' map around and along the tube.
_VESSELS = (1536, 640)
# A polyp beside the bowel around it: the same, redder, paler, darker, yellower.
_CHANGES = ((1.0, 1.0, 1.0), (1.05, 0.72, 0.72), (1.12, 1.2, 1.2), (0.75, 0.65, 0.65), (1.05, 0.95, 0.7))
_CHANGED = (0.48, 0.2, 0.12, 0.1, 0.1)


@dataclass(frozen=True, slots=True)
class Surface:
    """What is seen, pixel by pixel.

    Parameters
    ----------
    normals : (3, height, width), towards the lens's side.
    around, along : place on the wall, 0 to 1.
    """

    view: View
    normals: Plane
    around: Plane
    along: Plane


def draw_mucosa(random: np.random.Generator, surface: Surface, growths: list[Growth], unit: float) -> Plane:
    """Colours (3, height, width) of the wall and what grows on it, before light."""
    shape = (surface.view.depth.shape[0], surface.view.depth.shape[1])
    first, other = _colour(random), _colour(random)
    other = first + (other - first) * random.uniform(0, 0.5)
    mix = np.clip(0.5 + 0.4 * cut(random, "cloud", shape, random.uniform(30, 180) * unit), 0, 1)
    detail = 1 + random.uniform(0, 0.1) * cut(random, "rough", shape, random.uniform(5, 40) * unit)
    colour = np.stack([(a + (b - a) * mix) * detail for a, b in zip(first, other, strict=True)])
    colour = np.asarray(colour, dtype=np.float32)
    if random.random() < 0.7:
        _add_vessels(random, colour, surface)
    if random.random() < 0.15:
        _add_patches(random, colour, shape, unit)
    for growth, owner in zip(growths, surface.view.owner, strict=True):
        if growth.kind == POLYP:
            _colour_polyp(random, colour, growth, owner, shape, unit)
        elif growth.kind == STOOL:
            _colour_stool(random, colour, growth, owner, shape, unit)
    return colour


def lit(random: np.random.Generator, surface: Surface, colour: Plane, unit: float) -> Plane:
    """Light a surface from beside the lens: weaker with distance and slant, mirrored where it is wet."""
    view = surface.view
    shape = (view.depth.shape[0], view.depth.shape[1])
    bumps = 0.1 * random.random() ** 2 * unit
    relief = cut(random, "rough" if random.random() < 0.4 else "cloud", shape, random.uniform(5, 30) * unit)
    relief = relief * np.float32(bumps / (0.02 * unit))
    slope: list[Plane] = [
        np.asarray(cv2.Sobel(relief, cv2.CV_32F, *axes, scale=0.125), dtype=np.float32)
        for axes in ((1, 0), (0, 1))
    ]
    towards = -view.rays
    lamp = random.normal(0, 0.07, 3).astype(np.float32)
    beam = towards * view.depth + lamp[:, None, None]
    away = np.sqrt((beam * beam).sum(axis=0))
    facing = (surface.normals * beam).sum(axis=0) / np.maximum(away, 1e-4)
    # Where something stands before what is far behind, the step between is no slope of either.
    far = np.log(view.depth)
    steep = np.hypot(*(cv2.Sobel(far, cv2.CV_32F, *axes, scale=0.125) for axes in ((1, 0), (0, 1)))) * unit
    facing = np.maximum(facing, np.clip(steep * 25 - 1, 0, 1) * random.uniform(0.2, 0.8))
    # Fine unevenness tilts towards one side of the picture or the other.
    side = random.normal(0, 0.3, 2)
    facing = facing - (slope[0] * side[0] + slope[1] * side[1]) * 0.15
    wrap = random.uniform(0.0, 0.35)
    shade = np.clip((facing + wrap) / (1 + wrap), 0.02, 1.5)
    shade /= (random.uniform(0.1, 0.5) + away**2) ** random.uniform(0.6, 1.1)
    shade *= _crowded(random, view.depth, unit)
    shade = shade ** random.uniform(0.45, 0.95)
    # The endoscope sets its own exposure.
    shade *= random.uniform(0.65, 1.05) / np.percentile(shade[::4, ::4], random.uniform(55, 92))
    shade = np.minimum(shade, 1.6)
    shade += random.uniform(0, 0.06)
    planes = colour * shade
    if random.random() < 0.9:
        planes += _highlights(random, facing, slope, unit) * np.minimum(shade, 1.0)
    return np.ascontiguousarray(planes, dtype=np.float32)


def _crowded(random: np.random.Generator, depth: Plane, unit: float) -> Plane:
    """How much of the light that goes astray gets where something nearer stands beside it."""
    far = np.log(depth)
    dark = np.ones_like(depth)
    for size in (6, 22):
        wide = round(size * random.uniform(0.7, 1.5) * unit) | 1
        near = cv2.blur(far, (wide, wide))
        dark *= np.exp(-random.uniform(0.2, 1.6) * np.clip(far - near, 0, 0.6))
    if random.random() < 0.5:
        step = np.round(random.normal(0, 4, 2) * unit).astype(int)
        beside = np.roll(far, step, axis=(0, 1)) - far
        shadow = cv2.blur(np.clip(-beside * 4, 0, 1), (3, 3))
        dark *= 1 - random.uniform(0.1, 0.6) * shadow
    return np.asarray(dark, dtype=np.float32)


def _highlights(random: np.random.Generator, facing: Plane, slope: list[Plane], unit: float) -> Plane:
    """Mirror images of the lamp: hard-edged and irregular, where the wall faces the lens."""
    shape = (facing.shape[0], facing.shape[1])
    feature_px = random.uniform(5, 40) * unit
    film = [cut(random, "cloud", shape, feature_px) for _ in range(2)]
    rough = random.uniform(0.03, 0.25)
    tilt = np.sqrt(np.clip(1 - facing * facing, 0, 1))
    fine = 0.25 * random.random() ** 3
    off = [float(value) for value in random.normal(0, 0.12, 2)]
    miss = (tilt + off[0] + rough * film[0] + fine * slope[0]) ** 2 + (
        off[1] + rough * film[1] + fine * slope[1]
    ) ** 2
    width = random.uniform(0.05, 0.2)
    glint = np.exp(-miss / width**2)
    if random.random() < 0.6:
        hard = random.uniform(2, 6)
        glint = np.clip(glint * hard - 0.4 * hard, 0, 1)
    if random.random() < 0.75:
        patches = cut(random, "cloud", shape, random.uniform(30, 120) * unit)
        glint = glint * np.clip(patches + random.uniform(-0.7, 0.8), 0, 1)
    return np.asarray(glint * random.uniform(0.4, 1.8), dtype=np.float32)


def _colour(random: np.random.Generator) -> Plane:
    """From pink to orange, pale to deep; now and then any hue, as under a dye or a filtered light."""
    dyed = random.random() < 0.07
    hue = random.random() if dyed else random.normal(0.03, 0.025) % 1.0
    rgb = colorsys.hsv_to_rgb(hue, random.uniform(0.3, 0.8), random.uniform(0.65, 1.0))
    return np.array(rgb, dtype=np.float32)


def _add_vessels(random: np.random.Generator, colour: Plane, surface: Surface) -> None:
    """A net of vessels that lies on the wall, as it runs away from the lens."""
    mask = np.zeros(_VESSELS, dtype=np.uint8)
    size = random.uniform(1.5, 4.0)
    for _ in range(int(random.integers(10, 60))):
        start = random.uniform((0, 0), _VESSELS[::-1])
        grow_vessel(random, mask, start, random.uniform(0, 2 * np.pi), random.uniform(0.4, 1.6) * size, size)
    if random.random() < 0.5:
        mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), random.uniform(0.6, 2.0)), dtype=np.uint8)
    share = cv2.remap(
        mask,
        surface.around * np.float32(_VESSELS[1]),
        surface.along * np.float32(_VESSELS[0]),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    strength = random.uniform(0.1, 0.8) / 255.0
    tint = (0.8, 0.35, 0.38) if random.random() < 0.75 else (0.6, 0.5, 0.66)
    for plane, value in zip(colour, tint, strict=True):
        plane *= 1 - share * np.float32(strength * (1 - value))


def _add_patches(random: np.random.Generator, colour: Plane, shape: tuple[int, int], unit: float) -> None:
    """Inflamed or bled-on places, which are flat."""
    noise = cut(random, "cloud", shape, random.uniform(15, 90) * unit)
    share = np.clip((noise - random.uniform(0.6, 1.8)) * random.uniform(0.8, 4), 0, 1) * random.uniform(
        0.2, 0.9
    )
    tint = ((0.7, 0.1, 0.1), (0.5, 0.05, 0.06), (0.9, 0.75, 0.65))[int(random.integers(3))]
    for plane, value in zip(colour, tint, strict=True):
        plane += (np.float32(value) - plane) * share


def _colour_polyp(
    random: np.random.Generator,
    colour: Plane,
    growth: Growth,
    owner: Plane,
    shape: tuple[int, int],
    unit: float,
) -> None:
    """Its own tint, strong or none, its own pattern, and no vessels but faint ones."""
    size = growth.lump.size
    over = np.clip(owner / (size * random.uniform(0.04, 0.5)), 0, 1)
    inside = over > 0
    if not inside.any():
        return
    change = np.array(_CHANGES[int(random.choice(5, p=_CHANGED))]) ** random.uniform(0.2, 1.2)
    change = change * np.exp(random.normal(0, 0.06, 3) + random.normal(0, 0.06))
    keep = random.uniform(0, 1)
    texture = ("cells", "rough", "cloud")[int(random.integers(3))]
    mottle = 1 + 0.14 * random.random() ** 2 * cut(random, texture, shape, random.uniform(3, 18) * unit)
    for plane, factor in zip(colour, change, strict=True):
        mean = plane[inside].mean()
        own = (mean + (plane - mean) * keep) * mottle * np.float32(factor)
        plane += (own - plane) * over


def _colour_stool(
    random: np.random.Generator,
    colour: Plane,
    growth: Growth,
    owner: Plane,
    shape: tuple[int, int],
    unit: float,
) -> None:
    over = np.clip(owner / (growth.lump.size * 0.1) + 0.5, 0, 1)
    tints = ((0.55, 0.42, 0.12), (0.75, 0.7, 0.4), (0.35, 0.28, 0.1), (0.5, 0.32, 0.15))
    tint = np.array(tints[int(random.integers(4))]) * np.exp(random.normal(0, 0.12, 3))
    mottle = 1 + 0.2 * cut(random, "rough", shape, random.uniform(4, 16) * unit)
    for plane, value in zip(colour, tint, strict=True):
        plane += (np.float32(value) * mottle - plane) * over
