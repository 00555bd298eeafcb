"""Label volumes to named structures: 3D Slicer segmentations and plain label maps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trocar.planners.io.named import Built, NamedContours, clean_name, listed
from trocar.planners.io.nrrd import LabelVolume, read_label_volume
from trocar.planners.types import Structure, require
from trocar.runtime.errors import InvalidInput

MAX_SEGMENTS = 1000
# A structure is worked on as 32-bit fractions; a gland at 0.5 mm has 2 million voxels.
MAX_STRUCTURE_VOXELS = 30_000_000


@dataclass(frozen=True, slots=True)
class _Segment:
    """Where a structure is stored: the voxels of `layer` that hold `value`."""

    name: str
    layer: int
    value: int


def read_segmentation(data: bytes, *, labels: Mapping[str, int] | None = None) -> NamedContours:
    """Read a `.seg.nrrd`, or a label NRRD with `labels`.

    Parameters
    ----------
    labels : name to voxel value, for a volume that does not name its labels (or names them otherwise).

    Raises
    ------
    InvalidInput
        The volume cannot be used (see `read_label_volume`); a segment's layer or value makes no sense;
        a label map came without `labels`.
    """
    volume = read_label_volume(data)
    if labels:
        segments = _given(volume, labels)
    else:
        segments = _slicer(volume)
        require(
            bool(segments),
            "the label map does not name its labels: say which is which with --labels, such as "
            f"--labels ctv=1,ptv=2; values found: {listed(_values(volume))}",
        )
    return NamedContours(
        tuple(segment.name for segment in segments), lambda chosen: _build(volume, segments, chosen)
    )


def _given(volume: LabelVolume, labels: Mapping[str, int]) -> list[_Segment]:
    layers = len(volume.layers_lzyx)
    require(layers == 1, f"--labels needs a volume of one layer, this one has {layers}")
    for name, value in labels.items():
        require(value != 0, f'label "{clean_name(name)}": 0 is the background')
        if not _present(volume.layers_lzyx[0], value):
            raise InvalidInput(
                f'label "{clean_name(name)}": no voxel has the value {value}; '
                f"values found: {listed(_values(volume))}"
            )
    return [_Segment(clean_name(name), 0, int(value)) for name, value in labels.items()]


def _slicer(volume: LabelVolume) -> list[_Segment]:
    """Segments named in the header. Slicer leaves Layer out where each segment has one of its own."""
    layers = len(volume.layers_lzyx)
    found = sorted(
        {
            int(match[1])
            for key in volume.fields
            if (match := re.fullmatch(r"Segment(\d{1,6})_(ID|Name)", key))
        }
    )
    require(len(found) <= MAX_SEGMENTS, f"NRRD: {len(found)} segments, more than {MAX_SEGMENTS}")
    segments: list[_Segment] = []
    for order, number in enumerate(found):
        spare = volume.fields.get(f"Segment{number}_ID", "")
        name = clean_name(volume.fields.get(f"Segment{number}_Name", spare))
        layer = _whole(volume, f"Segment{number}_Layer", order if layers > 1 else 0)
        value = _whole(volume, f"Segment{number}_LabelValue", 1)
        require(0 <= layer < layers, f'segment "{name}": layer {layer} of {layers} does not exist')
        require(value != 0, f'segment "{name}": label value 0 is the background')
        segments.append(_Segment(name, layer, value))
    places: dict[tuple[int, int], str] = {}
    for segment in segments:
        other = places.setdefault((segment.layer, segment.value), segment.name)
        require(
            other is segment.name,
            f'segments "{other}" and "{segment.name}" share layer {segment.layer} and '
            f"label value {segment.value}",
        )
    return segments


def _whole(volume: LabelVolume, key: str, default: int) -> int:
    text = volume.fields.get(key)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(f'NRRD: {key} must be a whole number, got "{clean_name(text)}"') from None


def _present(layer_zyx: npt.NDArray[np.integer[Any]], value: int) -> bool:
    return any(bool((plane == value).any()) for plane in layer_zyx)


def _values(volume: LabelVolume) -> list[int]:
    """Distinct values other than 0, slice by slice, at most a few dozen."""
    seen: set[int] = set()
    for layer in volume.layers_lzyx:
        for plane in layer:
            seen |= {int(value) for value in np.unique(plane)} - {0}
            if len(seen) > 40:
                return sorted(seen)
    return sorted(seen)


def _build(volume: LabelVolume, segments: list[_Segment], chosen: Mapping[str, int]) -> Built:
    picked = {role: segments[index] for role, index in chosen.items()}
    values = {role: [segment.value] for role, segment in picked.items()}
    notes = []
    # A layer holds one label per voxel, so there a PTV drawn around the CTV is a shell, and the CTV has
    # a hole where the urethra is labelled.
    for outer, inner in (("ctv", "urethra"), ("ptv", "ctv"), ("ptv", "urethra")):
        if not {outer, inner} <= picked.keys():
            continue
        if picked[outer].layer == picked[inner].layer and picked[outer] != picked[inner]:
            values[outer].append(picked[inner].value)
            notes.append(
                f"{outer.upper()} and {inner} are labels of one layer, which cannot overlap: the "
                f"{inner}'s voxels on the {outer.upper()}'s slices were counted to the {outer.upper()} too."
            )
    built = {role: _structure(volume, segment, role, values[role]) for role, segment in picked.items()}
    return Built(built, tuple(notes))


def _structure(volume: LabelVolume, segment: _Segment, role: str, values: list[int]) -> Structure:
    """One label as a structure, cropped to its bounds, with an empty slice on either end.

    `values[0]` is the label itself; the others count where a slice has it.
    """
    layer = volume.layers_lzyx[segment.layer]
    hit_z = [z for z, plane in enumerate(layer) if (plane == values[0]).any()]
    require(
        bool(hit_z),
        f'structure "{segment.name}" (role {role}) is empty; contour it, or leave it out with {role}=none',
    )
    first, last = hit_z[0], hit_z[-1]
    inside = np.isin(layer[first : last + 1], values)
    inside[[z - first for z in range(first, last + 1) if z not in set(hit_z)]] = False
    y = np.flatnonzero(inside.any(axis=(0, 2)))
    x = np.flatnonzero(inside.any(axis=(0, 1)))
    voxels = (last - first + 1) * int(y[-1] - y[0] + 1) * int(x[-1] - x[0] + 1)
    require(
        voxels <= MAX_STRUCTURE_VOXELS,
        f'structure "{segment.name}" (role {role}) spans {voxels} voxels, more than {MAX_STRUCTURE_VOXELS}',
    )
    cropped = inside[:, y[0] : y[-1] + 1, x[0] : x[-1] + 1].astype(np.float32)
    z = volume.z_mm[first] + volume.pitch_z_mm * np.arange(-1, last - first + 2)
    (ox, oy), (sy, sx) = volume.origin_xy_mm, volume.spacing_yx_mm
    origin = (ox + sx * int(x[0]), oy + sy * int(y[0]))
    return Structure(segment.name, role, np.pad(cropped, ((1, 1), (0, 0), (0, 0))), z, origin, (sy, sx))
