"""What lies on the bowel's wall: polyps of every form, and stool and swellings, which are none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trocar.video.annotator.renderer.bowel import Lump, Vector, View
from trocar.video.annotator.renderer.noise import Plane

POLYP, STOOL, SWELLING = "polyp", "stool", "swelling"
_POLYPS = (0.13, 0.71, 0.12, 0.04)
FORMS = ("flat", "sessile", "stalked")


@dataclass(frozen=True, slots=True)
class Growth:
    """A lump and what it is."""

    kind: str
    lump: Lump


def draw_growths(random: np.random.Generator, view: View, normals: Plane) -> list[Growth]:
    """Place polyps and what could be taken for them on the wall in view.

    Parameters
    ----------
    view : of the wall alone.
    normals : (3, height, width), into the room.
    """
    found = [_polyp(random, view, normals) for _ in range(int(random.choice(len(_POLYPS), p=_POLYPS)))]
    if random.random() < 0.16:
        found += [_stool(random, view, normals) for _ in range(int(random.integers(1, 7)))]
    if random.random() < 0.2:
        found.append(_swelling(random, view, normals))
    return found


def _polyp(random: np.random.Generator, view: View, normals: Plane) -> Growth:
    place, normal, pixel = _place(random, view, normals)
    # Its width on the screen, from a sixth of the picture's height to nearly all of it.
    share = float(np.exp(random.uniform(np.log(0.17), np.log(0.95))))
    size = share * view.depth.shape[0] / 2 * pixel
    form = FORMS[int(random.choice(3, p=(0.15, 0.6, 0.25)))]
    tall, lift = {
        "flat": (random.uniform(0.25, 0.45), random.uniform(0.0, 0.15)),
        "sessile": (random.uniform(0.6, 1.15), random.uniform(0.1, 0.8)),
        "stalked": (random.uniform(0.8, 1.3), random.uniform(1.0, 1.9)),
    }[form]
    normal = _unit(normal + random.normal(0, 0.3, 3).astype(np.float32))
    radii = size * np.array([1.0, random.uniform(0.65, 1.0), tall], dtype=np.float32)
    centre = place + normal * np.float32(lift * radii[2])
    # Nothing may touch the lens.
    room = float(np.linalg.norm(centre - view.start)) / (1.5 * float(radii.max()))
    if room < 1:
        radii *= np.float32(room)
        centre = place + normal * np.float32(lift * radii[2])
    lobed = random.random() < 0.35
    count = int(random.integers(2, 7))
    heights = random.uniform(0, 1, count) * (random.uniform(0.06, 0.16) if lobed else random.uniform(0, 0.05))
    stiff = random.uniform(2.0, 7.0 if lobed else 4.0)
    least = float(radii.min())
    stalk = (place - normal * radii[2], least * random.uniform(0.3, 0.5)) if form == "stalked" else None
    lump = _lump(random, centre, normal, radii, heights, stiff, least * random.uniform(0.05, 0.6), stalk)
    return Growth(POLYP, lump)


def _stool(random: np.random.Generator, view: View, normals: Plane) -> Growth:
    """Crumbs and clods: they lie on the wall and do not grow out of it."""
    place, normal, pixel = _place(random, view, normals)
    size = float(np.exp(random.uniform(np.log(0.015), np.log(0.16)))) * view.depth.shape[0] / 2 * pixel
    radii = size * random.uniform(0.5, 1.4, 3).astype(np.float32)
    heights = random.uniform(0.04, 0.2, 5)
    return Growth(
        STOOL, _lump(random, place, normal, radii, heights, random.uniform(3, 9), float(radii.min()) * 0.08)
    )


def _swelling(random: np.random.Generator, view: View, normals: Plane) -> Growth:
    """The wall pushed in from outside: broad, without an edge, coloured as the rest; or the end of a fold."""
    place, normal, _ = _place(random, view, normals)
    depth = float(np.linalg.norm(place - view.start))
    wide = depth * random.uniform(0.3, 0.7)
    long = wide * random.uniform(1.2, 3.0)
    radii = np.array([wide, long, wide * random.uniform(0.2, 0.4)], dtype=np.float32)
    return Growth(
        SWELLING,
        _lump(
            random,
            place - normal * radii[2] * np.float32(0.3),
            normal,
            radii,
            np.zeros(1),
            1.0,
            float(radii[2]) * 2,
        ),
    )


def _lump(
    random: np.random.Generator,
    centre: Vector,
    normal: Vector,
    radii: Vector,
    heights: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    stiff: float,
    blend: float,
    stalk: tuple[Vector, float] | None = None,
) -> Lump:
    """A lump that stands up along `normal`, turned about it at will."""
    first = _unit(np.cross(normal, _unit(random.normal(0, 1, 3).astype(np.float32))))
    axes = np.stack([first, np.cross(normal, first), normal])
    waves = []
    for height in heights:
        direction = _unit(random.normal(0, 1, 3).astype(np.float32)) * stiff * random.uniform(0.6, 1.4)
        waves.append((*direction, random.uniform(0, 6.3), height))
    return Lump(
        centre.astype(np.float32),
        (axes / radii[:, None]).astype(np.float32),
        float(radii.min()),
        np.array(waves, dtype=np.float32),
        max(blend, 1e-3),
        stalk,
    )


def _place(random: np.random.Generator, view: View, normals: Plane) -> tuple[Vector, Vector, float]:
    """A place on the wall in view and not far, its normal, and the width of a pixel there."""
    height, width = view.depth.shape
    for _ in range(8):
        row, column = (int(random.uniform(0.15, 0.85) * size) for size in (height, width))
        if view.depth[row, column] < 3.0:
            break
    depth = float(view.depth[row, column])
    beside = view.rays[:, row, column] - view.rays[:, row, column + 1]
    place = view.start + view.rays[:, row, column] * np.float32(depth)
    return place, normals[:, row, column], depth * float(np.linalg.norm(beside))


def _unit(vector: Vector) -> Vector:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), dtype=np.float32)
