"""Contours handed over in memory, as a request carries them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from trocar.planners.geometry import rasterise_contours
from trocar.planners.io.named import Built, NamedContours, clean_name
from trocar.planners.types import Float64Array, require

Contour = tuple[float, npt.ArrayLike]
MAX_POINTS = 5_000_000
# Farther from the frame's origin than this is a wrong unit or a broken figure, not a patient.
MAX_COORDINATE_MM = 10_000.0


def read_contours(structures: Mapping[str, Sequence[Contour]]) -> NamedContours:
    """Name the structures of a request.

    Parameters
    ----------
    structures : name to closed polygons: (z_mm, (n, 2) x, y mm) each, patient LPS. Polygons on one
        plane combine by even-odd.

    Raises
    ------
    InvalidInput
        A polygon has the wrong shape or a coordinate that is not finite; too many points.
    """
    names = tuple(clean_name(name) for name in structures)
    parsed = [
        [checked_contour(name, z_mm, points) for z_mm, points in contours]
        for name, contours in zip(names, structures.values(), strict=True)
    ]
    count = sum(len(points) for contours in parsed for _, points in contours)
    require(count <= MAX_POINTS, f"{count} contour points, more than {MAX_POINTS}")
    return NamedContours(names, lambda chosen: build_contours(names, parsed, chosen))


def checked_contour(name: str, z_mm: float, points: npt.ArrayLike) -> tuple[float, Float64Array]:
    """Check one polygon: (n, 2) finite coordinates of a patient's size, n >= 3."""
    try:
        xy, z = np.asarray(points, dtype=np.float64), float(z_mm)
    except (TypeError, ValueError, OverflowError):
        xy, z = np.empty(0), 0.0
    require(
        xy.ndim == 2 and xy.shape[1] == 2 and len(xy) >= 3,
        f'structure "{name}": a contour must have 3 points (x, y) or more, got shape {xy.shape}',
    )
    require(
        bool(np.isfinite(xy).all()) and bool(np.isfinite(z)),
        f'structure "{name}": a contour has a coordinate that is not finite',
    )
    largest = max(float(np.abs(xy).max()), abs(z))
    require(
        largest <= MAX_COORDINATE_MM,
        f'structure "{name}": a contour coordinate of {largest:g} mm is beyond {MAX_COORDINATE_MM:g} mm',
    )
    return z, xy


def build_contours(
    names: Sequence[str], contours: Sequence[Sequence[tuple[float, Float64Array]]], chosen: Mapping[str, int]
) -> Built:
    """Rasterise the chosen structures."""
    for role, index in chosen.items():
        require(
            len(contours[index]) > 0,
            f'structure "{names[index]}" (role {role}) is empty; '
            f"contour it, or leave it out with {role}=none",
        )
    return Built({role: rasterise_contours(names[i], role, contours[i]) for role, i in chosen.items()})


def contours_sha256(structures: Mapping[str, Sequence[Contour]]) -> str:
    """Digest of contours as canonical JSON: names sorted, no spaces, shortest decimal figures."""
    document = {
        name: [[float(z_mm), np.asarray(points, dtype=np.float64).tolist()] for z_mm, points in contours]
        for name, contours in structures.items()
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
