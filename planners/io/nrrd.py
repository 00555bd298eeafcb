"""NRRD volumes of labels, read without trusting the file.

The header is parsed by pynrrd and checked before any data is touched; the data is decompressed here,
because a reader that serves others must bound what it inflates. Orientation is taken from the header
alone: a volume that does not say which way is posterior is refused.
"""

from __future__ import annotations

import bz2
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trocar.planners.io.named import listed
from trocar.planners.types import Float64Array, require
from trocar.runtime.errors import InvalidInput

MAX_HEADER_BYTES = 1024 * 1024
MAX_DATA_BYTES = 256 * 1024 * 1024
OBLIQUE_DEG = 0.1
# How a space's axes point, as signs of LPS.
_SPACES: Mapping[str, tuple[float, float, float]] = {
    "left-posterior-superior": (1.0, 1.0, 1.0),
    "lps": (1.0, 1.0, 1.0),
    "right-anterior-superior": (-1.0, -1.0, 1.0),
    "ras": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0),
    "las": (1.0, -1.0, 1.0),
}
_INTEGERS: Mapping[str, str] = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
}


@dataclass(frozen=True, slots=True)
class LabelVolume:
    """Layers of labels on an axis-aligned grid in patient LPS.

    Parameters
    ----------
    layers_lzyx : (layers, nz, ny, nx) integers, every axis ascending.
    z_mm : (nz,) slice centres, `pitch_z_mm` apart.
    fields : the header's own key/value pairs.
    """

    layers_lzyx: npt.NDArray[np.integer[Any]]
    z_mm: Float64Array
    pitch_z_mm: float
    origin_xy_mm: tuple[float, float]
    spacing_yx_mm: tuple[float, float]
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Layout:
    """The header's geometry: which file axis is the list, and the domain axes' vectors in LPS."""

    sizes: tuple[int, ...]
    list_axis: int | None
    domain: tuple[int, int, int]
    directions_mm: Float64Array
    origin_mm: Float64Array


def read_label_volume(data: bytes) -> LabelVolume:
    """Read an attached NRRD of integer labels: 3D, or 4D with a list axis of layers.

    Parameters
    ----------
    data : the file.

    Raises
    ------
    InvalidInput
        Anything that is not such a volume, in one line: malformed or detached header, a claim beyond
        256 MiB, sizes or spacings that are not positive, an unknown space, an oblique grid, data that
        is truncated, corrupt or longer than claimed.
    """
    head, body = _split(data)
    header = _parsed(head)
    require(
        not {"data file", "datafile"} & header.keys(),
        "NRRD: a detached header (data in another file) is not read; save the volume as one file",
    )
    skips = [name for name in ("line skip", "lineskip", "byte skip", "byteskip") if header.get(name, 0) != 0]
    require(not skips, f"NRRD: {listed(skips)} is not supported")
    layout = _layout(header)
    kind = str(header.get("type")).lower()
    require(kind in _INTEGERS, f'NRRD: labels must be integers of up to 32 bits, got type "{kind}"')
    dtype = np.dtype(_INTEGERS[kind])
    claimed = math.prod(layout.sizes) * dtype.itemsize
    require(
        claimed <= MAX_DATA_BYTES,
        f"NRRD: the header claims {math.prod(layout.sizes)} voxels ({claimed} bytes), "
        f"more than the limit of {MAX_DATA_BYTES} bytes",
    )
    if dtype.itemsize > 1:
        endian = str(header.get("endian")).lower()
        require(endian in ("little", "big"), f'NRRD: expected endian little or big, got "{endian}"')
        dtype = dtype.newbyteorder("<" if endian == "little" else ">")
    raw = _inflated(body, str(header.get("encoding")).lower(), claimed)
    values = np.frombuffer(raw, dtype=dtype).reshape(layout.sizes[::-1])
    fields = {key: value for key, value in header.items() if isinstance(value, str)}
    return _oriented(values, layout, fields)


def _split(data: bytes) -> tuple[list[bytes], memoryview]:
    """Header lines and the data behind the blank line."""
    require(data[:4] == b"NRRD", "NRRD: the file does not begin with NRRD")
    lines: list[bytes] = []
    at = 0
    while at < min(len(data), MAX_HEADER_BYTES):
        end = data.find(b"\n", at, MAX_HEADER_BYTES)
        if end < 0:
            break
        line = data[at:end]
        at = end + 1
        if not line.strip():
            return lines, memoryview(data)[at:]
        lines.append(line)
    raise InvalidInput(f"NRRD: the header has no end within {min(len(data), MAX_HEADER_BYTES)} bytes")


def _parsed(lines: list[bytes]) -> dict[str, Any]:
    import nrrd

    # pynrrd reads sizes as floats and cuts them to 64 bits: 2.5 would pass for 2.
    sizes = [line for line in lines if line.startswith(b"sizes:")]
    require(len(sizes) == 1, f"NRRD: expected one line of sizes, got {len(sizes)}")
    try:
        text = [line.decode("utf-8", "replace") for line in lines if line is not sizes[0]]
        header = nrrd.read_header(text)
        header["sizes"] = [int(figure) for figure in sizes[0][len(b"sizes:") :].split()]
    except Exception as error:  # pynrrd raises whatever the text trips over
        detail = " ".join(str(error).split())[:120]
        raise InvalidInput(f"NRRD: the header cannot be parsed ({detail or type(error).__name__})") from None
    return dict(header)


def _layout(header: Mapping[str, Any]) -> _Layout:
    sizes = tuple(header["sizes"])
    dimension = int(header.get("dimension") or 0)
    require(dimension in (3, 4), f"NRRD: expected 3 dimensions, or 4 with layers, got {dimension}")
    require(len(sizes) == dimension, f"NRRD: dimension is {dimension} but sizes has {len(sizes)} figures")
    require(all(size >= 1 for size in sizes), f"NRRD: sizes must be positive, got {listed(sizes)}")
    require("space directions" in header, "NRRD: no space directions, so the voxel size and axes are unknown")
    rows = [_row(row) for row in header["space directions"]]
    require(len(rows) == dimension, f"NRRD: {dimension} axes but {len(rows)} space directions")
    if _is_legacy(header, rows):
        return _legacy_layout(header, sizes, rows)
    lists = [axis for axis, row in enumerate(rows) if row is None]
    require(
        len(lists) == dimension - 3,
        f"NRRD: expected {dimension - 3} axes without a direction (layers), got {len(lists)}",
    )
    domain = [axis for axis, row in enumerate(rows) if row is not None]
    space = str(header.get("space", "not given")).lower()
    require(
        space in _SPACES,
        f"NRRD: space must be left-posterior-superior, right-anterior-superior or "
        f'left-anterior-superior, got "{space}"',
    )
    signs = np.array(_SPACES[space])
    directions = np.array([row for row in rows if row is not None], dtype=np.float64)
    require(directions.shape == (3, 3), "NRRD: each space direction must have 3 figures")
    origin = _origin(header, 3)
    return _Layout(
        sizes,
        lists[0] if lists else None,
        (domain[0], domain[1], domain[2]),
        directions * signs,
        origin * signs,
    )


def _is_legacy(header: Mapping[str, Any], rows: list[Float64Array | None]) -> bool:
    """Whether 3D Slicer before 4.11 wrote it: four space axes, of which the last counts segments."""
    return (
        header.get("space dimension") == 4
        and "Segmentation_Extent" in header
        and len(rows) == 4
        and all(row is not None and row.shape == (4,) for row in rows)
    )


def _legacy_layout(
    header: Mapping[str, Any], sizes: tuple[int, ...], rows: list[Float64Array | None]
) -> _Layout:
    """Read Slicer's older form: RAS without saying so, and an origin that is the reference image's.

    The stored block begins at the first indices of Segmentation_Extent.
    """
    matrix = np.array(rows, dtype=np.float64)
    require(
        bool(np.all(matrix[:3, 3] == 0.0) and np.all(matrix[3, :3] == 0.0)),
        "NRRD: the segments' axis is mixed with a spatial one",
    )
    extent = str(header["Segmentation_Extent"]).split()
    try:
        first = np.array([int(extent[0]), int(extent[2]), int(extent[4])], dtype=np.float64)
    except (IndexError, ValueError):
        raise InvalidInput("NRRD: Segmentation_Extent must have 6 whole numbers") from None
    signs = np.array(_SPACES["ras"])
    directions = matrix[:3, :3]
    origin = _origin(header, 4)[:3] + first @ directions
    return _Layout(sizes, 3, (0, 1, 2), directions * signs, origin * signs)


def _row(row: Any) -> Float64Array | None:
    """One axis' direction, or None where the header says `none`."""
    if row is None:
        return None
    values = np.atleast_1d(np.asarray(row, dtype=np.float64))
    # pynrrd gives `none` as a row of NaN; a vector with only some NaN is an error kept for later.
    return None if bool(np.isnan(values).all()) else values


def _origin(header: Mapping[str, Any], count: int) -> Float64Array:
    require("space origin" in header, "NRRD: no space origin, so the position is unknown")
    origin = np.atleast_1d(np.asarray(header["space origin"], dtype=np.float64))
    require(origin.shape == (count,), f"NRRD: space origin must have {count} figures, got {origin.size}")
    require(bool(np.isfinite(origin).all()), "NRRD: the space origin is not finite")
    return origin


def _inflated(body: memoryview, encoding: str, claimed: int) -> bytes | memoryview | bytearray:
    """Return exactly the claimed bytes of data, never holding more than one byte beyond them."""
    if encoding == "raw":
        require(
            len(body) >= claimed,
            f"NRRD: truncated: the header claims {claimed} bytes of data, {len(body)} are there",
        )
        return body[:claimed]
    decoder: Any
    if encoding in ("gzip", "gz"):
        decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
    elif encoding in ("bzip2", "bz2"):
        decoder = bz2.BZ2Decompressor()
    else:
        raise InvalidInput(f'NRRD: encoding must be raw, gzip or bzip2, got "{encoding}"')
    try:
        raw = decoder.decompress(body, claimed + 1)
    except (zlib.error, OSError, EOFError, ValueError) as error:
        raise InvalidInput(f"NRRD: the {encoding} data is corrupt ({error})") from None
    require(
        len(raw) >= claimed,
        f"NRRD: truncated: the header claims {claimed} bytes of data, {len(raw)} could be read",
    )
    require(len(raw) == claimed, f"NRRD: the data holds more than the {claimed} bytes the header claims")
    return raw  # type: ignore[no-any-return]


def _oriented(values: npt.NDArray[Any], layout: _Layout, fields: Mapping[str, str]) -> LabelVolume:
    """Turn axes to layer, z, y, x and directions to ascending; nothing is resampled."""
    vectors = layout.directions_mm
    require(bool(np.isfinite(vectors).all()), "NRRD: a space direction is not finite")
    pitch = np.linalg.norm(vectors, axis=1)
    require(
        bool((pitch > 0).all()),
        f"NRRD: voxel spacing must be > 0, got {listed([f'{p:g}' for p in pitch])} mm",
    )
    require(bool((pitch < 1000).all()), f"NRRD: voxel spacing of {pitch.max():g} mm is not a patient's")
    world = np.abs(vectors).argmax(axis=1)
    cosine = np.abs(vectors)[np.arange(3), world] / pitch
    angle_deg = float(np.degrees(np.arccos(np.clip(cosine, 0.0, 1.0))).max())
    require(
        angle_deg <= OBLIQUE_DEG and sorted(world) == [0, 1, 2],
        f"NRRD: the grid is oblique: an axis is {angle_deg:.1f} degrees off the patient's axes "
        f"(limit {OBLIQUE_DEG:g}); resample it to an axis-aligned grid",
    )
    # NumPy sees the file's axes in reverse.
    last = len(layout.sizes) - 1
    spatial = {int(w): last - layout.domain[i] for i, w in enumerate(world)}
    order = [spatial[2], spatial[1], spatial[0]]
    if layout.list_axis is not None:
        order.insert(0, last - layout.list_axis)
    array = values.transpose(order)
    if layout.list_axis is None:
        array = array[None]
    start = np.zeros(3)
    step = np.zeros(3)
    for i, w in enumerate(int(w) for w in world):
        signed, count = float(vectors[i, w]), layout.sizes[layout.domain[i]]
        low = float(layout.origin_mm[w])
        if signed < 0:
            array = np.flip(array, axis=3 - w)
            low += signed * (count - 1)
        start[w], step[w] = low, pitch[i]
    z = start[2] + step[2] * np.arange(array.shape[1])
    return LabelVolume(
        array, z, float(step[2]), (float(start[0]), float(start[1])), (float(step[1]), float(step[0])), fields
    )
