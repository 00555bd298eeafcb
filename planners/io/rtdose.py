"""DICOM RT Dose: a dose on its own grid, and the DVHs that came with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trocar.planners.io.dicom import RT_DOSE, figure, figures, open_dicom, refusing, text
from trocar.planners.types import Float32Array, Float64Array, Grid, require

MAX_VOXELS = 50_000_000
MAX_BINS = 100_000
EVEN_MM = 1e-3
UNITS = {"GY": 1.0, "CGY": 0.01}


@dataclass(frozen=True, slots=True)
class StatedDvh:
    """A cumulative DVH of one ROI less the excluded ones: volume (n,) cm3 at the dose (n,) Gy or more."""

    roi: int
    excluded: frozenset[int]
    dose_gy: Float64Array
    above_cc: Float64Array

    def v_cc(self, dose_gy: float) -> float:
        """Volume at a dose or more, cm3; linear between the bins."""
        return float(np.interp(dose_gy, self.dose_gy, self.above_cc))

    def d_cc_gy(self, volume_cc: float) -> float | None:
        """Least dose to the hottest volume; None where the curve ends above that volume."""
        if volume_cc < self.above_cc[-1]:
            return None
        index = int(np.argmax(self.above_cc <= volume_cc))
        if index == 0:
            return float(self.dose_gy[0])
        above, below = self.above_cc[index - 1], self.above_cc[index]
        share = (above - volume_cc) / (above - below)
        return float(self.dose_gy[index - 1] + share * (self.dose_gy[index] - self.dose_gy[index - 1]))


@dataclass(frozen=True, slots=True)
class StatedDose:
    """A dose as a planning system gave it: (nz, ny, nx) float32 Gy at the voxel centres of `grid`.

    `plan_uid` names the RT Plan it belongs to; it is empty where the file does not say.
    """

    dose_gy: Float32Array
    grid: Grid
    dvhs: tuple[StatedDvh, ...]
    plan_uid: str
    frame_uid: str


def read_rtdose(data: bytes) -> StatedDose:
    """Read an RT Dose of 16 or 32 bits in axial planes.

    Image Position (Patient) is the centre of the first pixel; a frame's z is that position's plus its offset
    in the Grid Frame Offset Vector (or the offset itself, where the vector begins with the position's z).

    Raises
    ------
    InvalidInput
        Not such a file, damaged, relative, oblique, unevenly spaced, or not a physical dose in Gy.
    """
    with refusing("RTDOSE"):
        dataset = open_dicom(data, "RTDOSE", RT_DOSE)
        unit = text(dataset, "DoseUnits")
        require(unit in UNITS, f'RTDOSE: expected dose in GY, got "{unit or "nothing"}"')
        grid, downwards = _grid(dataset)
        dose_gy = _pixels(dataset, grid) * np.float64(figure(dataset, "DoseGridScaling", "RTDOSE"))
        require(bool(np.isfinite(dose_gy).all()), "RTDOSE: a dose is not finite")
        dose_gy = dose_gy[::-1] if downwards else dose_gy
        plans = list(dataset.get("ReferencedRTPlanSequence") or ())
        return StatedDose(
            np.ascontiguousarray(dose_gy * UNITS[unit], dtype=np.float32),
            grid,
            tuple(_dvh(item) for item in dataset.get("DVHSequence") or ()),
            text(plans[0], "ReferencedSOPInstanceUID") if plans else "",
            text(dataset, "FrameOfReferenceUID"),
        )


def _grid(dataset: Any) -> tuple[Grid, bool]:
    """The grid, z ascending, and whether the file stores its planes downwards."""
    orientation = figures(dataset, "ImageOrientationPatient", 6, "RTDOSE")
    require(
        bool(np.allclose(orientation, (1, 0, 0, 0, 1, 0), atol=1e-4)),
        f"RTDOSE: expected axial planes with rows along +x and columns along +y, got {orientation.tolist()}",
    )
    x, y, z0 = figures(dataset, "ImagePositionPatient", 3, "RTDOSE")
    dy, dx = figures(dataset, "PixelSpacing", 2, "RTDOSE")
    require(dx > 0 and dy > 0, f"RTDOSE: expected a pixel spacing above 0 mm, got {dy:g}, {dx:g}")
    nz, ny, nx = (int(dataset.get(key) or 0) for key in ("NumberOfFrames", "Rows", "Columns"))
    require(
        min(nz, ny, nx) > 0 and nz * ny * nx <= MAX_VOXELS,
        f"RTDOSE: expected 1 to {MAX_VOXELS} voxels, got {nz} x {ny} x {nx}",
    )
    require(nz >= 2, "RTDOSE: expected 2 planes or more, got 1")
    offsets = figures(dataset, "GridFrameOffsetVector", nz, "RTDOSE")
    steps = np.diff(offsets)
    require(
        bool((np.abs(steps - steps[0]) <= EVEN_MM).all()) and abs(steps[0]) > EVEN_MM,
        f"RTDOSE: expected evenly spaced planes, got steps of {steps.min():g} to {steps.max():g} mm",
    )
    z = z0 + offsets if offsets[0] == 0 else offsets
    require(offsets[0] == 0 or offsets[0] == z0, "RTDOSE: expected frame offsets that begin at 0 or at z")
    step = float((offsets[-1] - offsets[0]) / (nz - 1))
    origin = (float(x), float(y), float(min(z[0], z[-1])))
    return Grid(origin, (abs(step), float(dy), float(dx)), (nz, ny, nx)), step < 0


def _pixels(dataset: Any, grid: Grid) -> npt.NDArray[np.unsignedinteger[Any]]:
    bits = int(dataset.get("BitsAllocated") or 0)
    require(bits in (16, 32), f"RTDOSE: expected 16 or 32 bits a voxel, got {bits}")
    require(
        int(dataset.get("PixelRepresentation") or 0) == 0, "RTDOSE: a dose with negative values is not read"
    )
    data = dataset.get("PixelData") or b""
    wanted = int(np.prod(grid.shape_zyx)) * bits // 8
    require(
        wanted <= len(data) <= wanted + 1,
        f"RTDOSE: expected {wanted} bytes of pixel data, got {len(data)}",
    )
    order = "<" if dataset.original_encoding[1] else ">"
    pixels = np.frombuffer(data, dtype=f"{order}u{bits // 8}", count=wanted * 8 // bits)
    return pixels.reshape(grid.shape_zyx)


def _dvh(item: Any) -> StatedDvh:
    where = "RTDOSE: DVH"
    rois: dict[str, list[int]] = {"INCLUDED": [], "EXCLUDED": []}
    for part in item.get("DVHReferencedROISequence") or ():
        kind = text(part, "DVHROIContributionType") or "INCLUDED"
        require(kind in rois, f'{where}: expected ROIs INCLUDED or EXCLUDED, got "{kind}"')
        rois[kind].append(int(part.ReferencedROINumber))
    included = rois["INCLUDED"]
    require(len(included) == 1, f"{where}: expected one included ROI, got {len(included)}")
    kinds = tuple(text(item, key) for key in ("DVHType", "DVHVolumeUnits", "DoseUnits"))
    require(
        kinds == ("CUMULATIVE", "CM3", "GY"),
        f"{where}: expected CUMULATIVE in CM3 and GY, got {'/'.join(kinds)}",
    )
    data = figures(item, "DVHData", None, where)
    require(
        4 <= len(data) <= 2 * MAX_BINS and len(data) % 2 == 0,
        f"{where}: expected pairs of dose and volume, got {len(data)} figures",
    )
    widths, above_cc = data[::2] * figure(item, "DVHDoseScaling", where), data[1::2]
    require(bool((widths >= 0).all() and (above_cc >= 0).all()), f"{where}: a bin is negative")
    require(bool((np.diff(above_cc) <= 1e-6).all()), f"{where}: a cumulative volume rises")
    # A pair is a bin's width and the volume at or above its lower edge.
    edges = np.concatenate([[0.0], np.cumsum(widths)[:-1]])
    return StatedDvh(included[0], frozenset(rois["EXCLUDED"]), edges, above_cc)
