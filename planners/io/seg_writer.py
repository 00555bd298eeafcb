"""Writes a case as the `.seg.nrrd` that 3D Slicer reads: names in the header, layers where organs overlap."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trocar.planners.types import Case, Grid, Structure
from trocar.runtime.errors import InvalidInput

# Display colours by role, red green blue.
COLOURS = {
    "ctv": "0.9 0.3 0.3",
    "ptv": "0.9 0.6 0.1",
    "urethra": "0.9 0.9 0.2",
    "rectum": "0.6 0.4 0.2",
    "bladder": "0.3 0.5 0.9",
}
NAMES = {"ctv": "CTV", "ptv": "PTV", "urethra": "Urethra", "rectum": "Rectum", "bladder": "Bladder"}
# Half a voxel's covering counts as inside.
INSIDE = 0.5
TOLERANCE_MM = 1e-6
TOLERANCE_STEPS = 1e-3

Bool = npt.NDArray[np.bool_]


def write_seg_nrrd(case: Case) -> bytes:
    """Encode every structure of a case.

    Parameters
    ----------
    case : structures whose pixels lie on one lattice, each covering any part of it.

    Returns
    -------
    The file, gzip-encoded, LPS; voxels are binary at half cover.

    Raises
    ------
    InvalidInput
        The structures' pixels do not lie on one lattice.
    """
    import nrrd

    structures = list(case.structures.values())
    frame = _common_frame(structures)
    masks = [_mask(structure, frame) for structure in structures]
    layers = _layers(masks)
    volume = np.zeros((max(layer for layer, _ in layers) + 1, *frame.shape_zyx), dtype=np.uint8)
    for mask, (layer, label) in zip(masks, layers, strict=True):
        volume[layer][mask] = label

    dz_mm, dy_mm, dx_mm = frame.spacing_zyx_mm
    header: dict[str, Any] = {
        "type": "uint8",
        "dimension": 4,
        "space": "left-posterior-superior",
        "kinds": ["list", "domain", "domain", "domain"],
        "space directions": np.array([[np.nan] * 3, [dx_mm, 0, 0], [0, dy_mm, 0], [0, 0, dz_mm]]),
        "space origin": np.array(frame.origin_xyz_mm),
        "encoding": "gzip",
    }
    for number, (structure, mask, place) in enumerate(zip(structures, masks, layers, strict=True)):
        header |= _segment_fields(number, structure, mask, place)
    header |= {
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
    }
    # nrrd's first index is the fastest: layer, x, y, z.
    data = np.ascontiguousarray(volume.transpose(0, 3, 2, 1))
    return _encode(nrrd, data, header)


def _encode(nrrd: Any, data: npt.NDArray[np.uint8], header: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    nrrd.write(buffer, data, dict(header), index_order="F")
    head, blank, body = buffer.getvalue().partition(b"\n\n")
    # pynrrd's comment with the time of day would make equal cases unequal files.
    head = b"\n".join(line for line in head.split(b"\n") if not line.startswith(b"# on "))
    return head + blank + body


def _common_frame(structures: Sequence[Structure]) -> Grid:
    """Return the grid that holds every structure's pixels: same pitches, whole steps apart."""
    if not structures:
        raise InvalidInput("expected a case with structures, got none")
    z_mm = np.unique(np.concatenate([structure.z_mm for structure in structures]))
    steps = np.diff(z_mm)
    if z_mm.size < 2 or float(np.ptp(steps)) > TOLERANCE_MM:
        found = f"{steps.min(initial=0):g}-{steps.max(initial=0):g} mm"
        raise InvalidInput(f"expected evenly spaced slices, got steps of {found}")
    pitch_yx = structures[0].spacing_yx_mm
    for structure in structures:
        if not np.allclose(structure.spacing_yx_mm, pitch_yx, rtol=0, atol=TOLERANCE_MM):
            raise InvalidInput(f"expected one pixel spacing, got {structure.spacing_yx_mm} and {pitch_yx} mm")
    first_xy = np.min([structure.origin_xy_mm for structure in structures], axis=0)
    origin_xyz_mm = (float(first_xy[0]), float(first_xy[1]), float(z_mm[0]))
    frame = Grid(origin_xyz_mm, (float(steps.mean()), *pitch_yx), (z_mm.size, 0, 0))
    ends = [
        np.add(_place_yx(structure, frame), structure.occupancy_zyx.shape[1:]) for structure in structures
    ]
    ny, nx = np.max(ends, axis=0)
    return replace(frame, shape_zyx=(z_mm.size, int(ny), int(nx)))


def _place_yx(structure: Structure, frame: Grid) -> tuple[int, int]:
    """Return the row and column of the frame where the structure's first pixel lies."""
    offset_xy_mm = np.subtract(structure.origin_xy_mm, frame.origin_xyz_mm[:2])
    steps_xy = offset_xy_mm / frame.spacing_zyx_mm[:0:-1]
    whole = np.rint(steps_xy)
    if np.abs(steps_xy - whole).max() > TOLERANCE_STEPS:
        raise InvalidInput(f"expected pixels on one lattice, got {structure.name!r} off it")
    return int(whole[1]), int(whole[0])


def _mask(structure: Structure, frame: Grid) -> Bool:
    """Return the structure on the frame."""
    mask = np.zeros(frame.shape_zyx, dtype=bool)
    row, column = _place_yx(structure, frame)
    _, ny, nx = structure.occupancy_zyx.shape
    index = np.rint((structure.z_mm - frame.origin_xyz_mm[2]) / frame.spacing_zyx_mm[0]).astype(int)
    mask[index, row : row + ny, column : column + nx] = structure.occupancy_zyx >= INSIDE
    return mask


def _layers(masks: Sequence[Bool]) -> list[tuple[int, int]]:
    """Give each mask the first layer where it overlaps nothing, and the next label value there."""
    taken: list[Bool] = []
    labels: list[int] = []
    places = []
    for mask in masks:
        layer = next((i for i, other in enumerate(taken) if not (other & mask).any()), len(taken))
        if layer == len(taken):
            taken.append(np.zeros_like(mask))
            labels.append(0)
        taken[layer] |= mask
        labels[layer] += 1
        places.append((layer, labels[layer]))
    return places


def _segment_fields(number: int, structure: Structure, mask: Bool, place: tuple[int, int]) -> dict[str, str]:
    layer, label = place
    name = NAMES.get(structure.role, structure.name)
    fields = {
        "ID": name,
        "Name": name,
        "NameAutoGenerated": "0",
        "Color": COLOURS.get(structure.role, "0.7 0.7 0.7"),
        "ColorAutoGenerated": "0",
        "Extent": _extent(mask),
        "LabelValue": str(label),
        "Layer": str(layer),
        "Tags": "|",
    }
    return {f"Segment{number}_{key}": value for key, value in fields.items()}


def _extent(mask: Bool) -> str:
    """Return first and last index along x, y, z; Slicer writes an empty segment as 0 -1."""
    if not mask.any():
        return "0 -1 0 -1 0 -1"
    bounds = []
    for axis in (2, 1, 0):
        others = tuple(other for other in range(3) if other != axis)
        index = np.flatnonzero(mask.any(axis=others))
        bounds += [int(index[0]), int(index[-1])]
    return " ".join(map(str, bounds))
