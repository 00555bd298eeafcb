"""Writes a case as the `.seg.nrrd` that 3D Slicer reads: names in the header, layers where organs overlap."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trocar.planners.types import Case, Structure
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
SPACING_TOLERANCE_MM = 1e-6

Bool = npt.NDArray[np.bool_]


def write_seg_nrrd(case: Case) -> bytes:
    """Encode every structure of a case.

    Parameters
    ----------
    case : structures that share one pixel grid; their slices may differ but share one even spacing.

    Returns
    -------
    The file, gzip-encoded, LPS; voxels are binary at half cover.

    Raises
    ------
    InvalidInput
        The structures do not share a grid.
    """
    import nrrd

    structures = list(case.structures.values())
    z0_mm, dz_mm, count = _common_slices(structures)
    masks = [_mask(structure, z0_mm, dz_mm, count) for structure in structures]
    layers = _layers(masks)
    volume = np.zeros((max(layer for layer, _ in layers) + 1, *masks[0].shape), dtype=np.uint8)
    for mask, (layer, label) in zip(masks, layers, strict=True):
        volume[layer][mask] = label

    first = structures[0]
    dy_mm, dx_mm = first.spacing_yx_mm
    header: dict[str, Any] = {
        "type": "uint8",
        "dimension": 4,
        "space": "left-posterior-superior",
        "kinds": ["list", "domain", "domain", "domain"],
        "space directions": np.array([[np.nan] * 3, [dx_mm, 0, 0], [0, dy_mm, 0], [0, 0, dz_mm]]),
        "space origin": np.array([*first.origin_xy_mm, z0_mm]),
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


def _common_slices(structures: Sequence[Structure]) -> tuple[float, float, int]:
    """Return first slice, spacing and number of slices of the stack that holds every structure's."""
    if not structures:
        raise InvalidInput("expected a case with structures, got none")
    first = structures[0]
    for other in structures[1:]:
        same = other.origin_xy_mm == first.origin_xy_mm and other.spacing_yx_mm == first.spacing_yx_mm
        if not same or other.occupancy_zyx.shape[1:] != first.occupancy_zyx.shape[1:]:
            raise InvalidInput(
                f"expected one pixel grid, got another for {other.name!r} than for {first.name!r}"
            )
    z_mm = np.unique(np.concatenate([structure.z_mm for structure in structures]))
    steps = np.diff(z_mm)
    if z_mm.size < 2 or float(np.ptp(steps)) > SPACING_TOLERANCE_MM:
        raise InvalidInput(
            f"expected evenly spaced slices, got {steps.min(initial=0):g}-{steps.max(initial=0):g} mm"
        )
    return float(z_mm[0]), float(steps.mean()), int(z_mm.size)


def _mask(structure: Structure, z0_mm: float, dz_mm: float, count: int) -> Bool:
    """Return the structure on the common stack."""
    mask = np.zeros((count, *structure.occupancy_zyx.shape[1:]), dtype=bool)
    index = np.rint((structure.z_mm - z0_mm) / dz_mm).astype(int)
    mask[index] = structure.occupancy_zyx >= INSIDE
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
