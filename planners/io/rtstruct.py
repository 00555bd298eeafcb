"""DICOM RT Structure Sets. No image is needed: contours carry patient coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trocar.planners.io.contours import MAX_POINTS, build_contours, checked_contour
from trocar.planners.io.dicom import (
    DEFLATED,
    RT_STRUCTURE_SET,
    is_dicom,
    open_dicom,
    plain,
    refusing,
    text,
)
from trocar.planners.io.named import Built, NamedContours, clean_name, listed
from trocar.planners.types import Float64Array, require
from trocar.runtime.errors import InvalidInput

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
# A contour whose z varies more than this does not lie in an axial plane.
AXIAL_MM = 0.05
MAX_FOLDER_FILES = 20_000


def find_rtstruct(folder: Path) -> Path:
    """Find the only RT Structure Set of a folder (not of its subfolders).

    Raises
    ------
    InvalidInput
        There is none, or more than one.
    """
    from pydicom.filereader import read_partial

    files = sorted(path for path in folder.iterdir() if path.is_file())
    require(len(files) <= MAX_FOLDER_FILES, f"{len(files)} files in the folder, more than {MAX_FOLDER_FILES}")
    hits = []
    for path in files:
        with path.open("rb") as stream:
            head = stream.read(4096)
            if not is_dicom(head) or DEFLATED in head:
                continue
            stream.seek(0)
            try:
                part = read_partial(stream, stop_when=lambda tag, _vr, _length: tag > 0x00080016)
                found = text(part, "SOPClassUID")
            except Exception:  # another file's damage is not this one's
                continue
            if found == RT_STRUCTURE_SET:
                hits.append(path)
    require(
        len(hits) == 1,
        f'expected one RT Structure Set in folder "{clean_name(folder.name)}", found '
        f"{listed([clean_name(path.name) for path in hits])} among {len(files)} files",
    )
    return hits[0]


def read_rtstruct(data: bytes) -> NamedContours:
    """Read an RT Structure Set.

    Closed planar contours in axial planes make a structure; points are passed over; holes are inner
    contours or key-holes. What a structure that plays no role looks like does not matter.

    Raises
    ------
    InvalidInput
        Not such a file, or damaged; and, for a structure that is used: an open contour, a contour out
        of the axial plane, a frame of reference that is missing or not the file's, no contour.
    """
    with refusing("RTSTRUCT"):
        return _read(data)


def _read(data: bytes) -> NamedContours:
    dataset = open_dicom(data, "RTSTRUCT", RT_STRUCTURE_SET)
    regions = list(dataset.get("StructureSetROISequence") or ())
    require(bool(regions), "RTSTRUCT: no structures (empty or missing Structure Set ROI Sequence)")
    require(
        "ROIContourSequence" in dataset,
        "RTSTRUCT: the ROI Contour Sequence is missing; is the file truncated?",
    )
    names = tuple(text(region, "ROIName") for region in regions)
    drawn: dict[int, Any] = {int(item.ReferencedROINumber): item for item in dataset.ROIContourSequence}
    frames = _frames(dataset)

    def build(chosen: Mapping[str, int]) -> Built:
        with refusing("RTSTRUCT"):  # sequences are parsed when first looked at
            _check_frames(regions, names, chosen, frames)
            contours: list[list[tuple[float, Float64Array]]] = [[] for _ in names]
            for index in set(chosen.values()):
                contours[index] = _contours(names[index], drawn.get(int(regions[index].ROINumber)))
        return build_contours(names, contours, chosen)

    return NamedContours(names, build)


def _frames(dataset: Any) -> set[str]:
    """Every frame of reference the file declares."""
    items = (dataset, *(dataset.get("ReferencedFrameOfReferenceSequence") or ()))
    return {uid for item in items if (uid := text(item, "FrameOfReferenceUID"))}


def _check_frames(
    regions: list[Any], names: tuple[str, ...], chosen: Mapping[str, int], frames: set[str]
) -> None:
    require(
        bool(frames), "RTSTRUCT: the file declares no frame of reference, so its coordinates mean nothing"
    )
    used: dict[str, str] = {}
    for index in chosen.values():
        uid = text(regions[index], "ReferencedFrameOfReferenceUID")
        require(
            uid in frames,
            f'RTSTRUCT: structure "{names[index]}" refers to frame of reference "{uid}", '
            f"which the file does not declare",
        )
        used[uid] = names[index]
    require(
        len(used) <= 1,
        f"RTSTRUCT: structures {listed(list(used.values()))} are in different frames of reference",
    )


def _contours(name: str, item: Any) -> list[tuple[float, Float64Array]]:
    contours: list[tuple[float, Float64Array]] = []
    total = 0
    for contour in (item.get("ContourSequence") if item is not None else None) or ():
        kind = text(contour, "ContourGeometricType") or "not given"
        if kind == "POINT":
            continue
        require(
            kind in _CLOSED,
            f'RTSTRUCT: structure "{name}" has an open contour (type {kind}); expected CLOSED_PLANAR',
        )
        points = _points(name, contour)
        total += len(points)
        require(total <= MAX_POINTS, f'RTSTRUCT: structure "{name}" has more than {MAX_POINTS} points')
        z = points[:, 2]
        require(
            float(np.ptp(z)) <= AXIAL_MM,
            f'RTSTRUCT: structure "{name}" has a contour that is not in an axial plane: '
            f"z = {z.min():.2f} to {z.max():.2f} mm",
        )
        contours.append(checked_contour(name, float(z.mean()), points[:, :2]))
    return contours


def _points(name: str, contour: Any) -> Float64Array:
    """Contour Data (n, 3), from the stored decimal strings: pydicom's own objects are slow to make."""
    element = contour.get_item("ContourData") if "ContourData" in contour else None
    value = getattr(element, "value", None)
    figures: Any = value.split(b"\\") if isinstance(value, bytes) else (value or ())
    try:
        flat = np.array([float(figure) for figure in np.atleast_1d(np.asarray(figures, dtype=object))])
    except (TypeError, ValueError):
        raise InvalidInput(f'RTSTRUCT: structure "{name}" has contour data that are not figures') from None
    require(
        len(flat) >= 9 and len(flat) % 3 == 0,
        f'RTSTRUCT: structure "{name}" has a contour of {len(flat)} figures; '
        f"expected 3 per point, 3 points or more",
    )
    require(
        bool(np.isfinite(flat).all()), f'RTSTRUCT: structure "{name}" has a coordinate that is not finite'
    )
    claimed = plain(contour, "NumberOfContourPoints")
    require(
        claimed in (None, len(flat) // 3),
        f'RTSTRUCT: structure "{name}" has a contour that claims {claimed} points and holds {len(flat) // 3}',
    )
    return flat.reshape(-1, 3)
