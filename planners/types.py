"""The nouns of planning, as frozen dataclasses.

Frame: DICOM patient LPS in mm (+x left, +y posterior, +z superior). Arrays are ordered z, y, x.
A needle runs along z; a seed's axis is +z.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trocar.runtime.errors import InvalidInput

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

ROLES = ("ctv", "ptv", "urethra", "rectum", "bladder")
COLUMN_LABELS = ("A", "a", "B", "b", "C", "c", "D", "d", "E", "e", "F", "f", "G")
SEED_LENGTH_MM = 4.5


@dataclass(frozen=True, slots=True)
class Grid:
    """An axis-aligned voxel grid; `origin_xyz_mm` is the centre of voxel [0, 0, 0]."""

    origin_xyz_mm: tuple[float, float, float]
    spacing_zyx_mm: tuple[float, float, float]
    shape_zyx: tuple[int, int, int]

    @property
    def voxel_cc(self) -> float:
        """Volume of one voxel, cm3."""
        return float(np.prod(self.spacing_zyx_mm)) / 1000.0

    @property
    def axes_zyx_mm(self) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Voxel centre coordinates along z, y and x."""
        (x0, y0, z0), (dz, dy, dx), (nz, ny, nx) = self.origin_xyz_mm, self.spacing_zyx_mm, self.shape_zyx
        z, y, x = (np.arange(count, dtype=np.float64) for count in (nz, ny, nx))
        return z0 + dz * z, y0 + dy * y, x0 + dx * x

    def points_xyz_mm(self, index_zyx: npt.NDArray[np.integer[Any]]) -> Float64Array:
        """Voxel centres (n, 3) of indices (n, 3)."""
        zyx = np.asarray(self.origin_xyz_mm[::-1]) + index_zyx * np.asarray(self.spacing_zyx_mm)
        return np.ascontiguousarray(zyx[:, ::-1])


@dataclass(frozen=True, slots=True)
class Structure:
    """One contoured organ: a stack of parallel slices, evenly spaced or not.

    Parameters
    ----------
    name : the name in the file.
    role : one of `ROLES`.
    occupancy_zyx : (nz, ny, nx) float32, the covered fraction of each pixel, 0 to 1.
    z_mm : (nz,) float64, slice centres, strictly increasing.
    origin_xy_mm : centre of pixel [0, 0].
    spacing_yx_mm : pixel pitch.
    """

    name: str
    role: str
    occupancy_zyx: Float32Array
    z_mm: Float64Array
    origin_xy_mm: tuple[float, float]
    spacing_yx_mm: tuple[float, float]


@dataclass(frozen=True, slots=True)
class ImageSeries:
    """A series of images that a structure set refers to: (SOP class, SOP instance) of each image.

    `study` is the SOP class and instance by which the set refers to their study.
    """

    study: tuple[str, str]
    series_uid: str
    images: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose a DICOM structure set is, as it says; what it leaves out is empty.

    `roi_names` maps ROI numbers to names; `series` are the images of its frame of reference, and `image_at`
    maps the z (mm) of a plane with a contour to the image that the contour refers to.
    """

    sop_uid: str
    study_uid: str
    frame_uid: str
    frame_uids: frozenset[str]
    patient_name: str
    patient_id: str
    birth_date: str
    sex: str
    roi_names: Mapping[int, str]
    series: tuple[ImageSeries, ...] = ()
    image_at: Mapping[float, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """A patient or phantom: structures by role, and what was assumed while reading them.

    `identity` is that of the DICOM file it came from; `derived` says of each role that nobody contoured how
    its structure was made; `labels` and `roles` are what was asked of its reader.
    """

    name: str
    structures: Mapping[str, Structure]
    assumptions: tuple[str, ...] = ()
    input_sha256: str = ""
    phantom_seed: int | None = None
    identity: Identity | None = None
    derived: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Template:
    """The needle template: hole (column, row) at origin + pitch * (column, row).

    Columns count from the patient's right (-x, label A); rows count from anterior (-y). Labels
    follow the printed template: 1.0 is the most posterior row, and each row is half a unit.
    """

    origin_xy_mm: tuple[float, float]
    pitch_mm: float = 5.0
    columns: int = 13
    rows: int = 13

    def hole_xy_mm(self, column: int, row: int) -> tuple[float, float]:
        """Centre of a hole, mm."""
        return self.origin_xy_mm[0] + self.pitch_mm * column, self.origin_xy_mm[1] + self.pitch_mm * row

    def label(self, column: int, row: int) -> str:
        """Printed name of a hole, such as D3.5."""
        letter = COLUMN_LABELS[column] if self.columns <= len(COLUMN_LABELS) else f"c{column + 1}-"
        return f"{letter}{1.0 + 0.5 * (self.rows - 1 - row):.1f}"


@dataclass(frozen=True, slots=True)
class Planes:
    """Seed planes across the needles: z0, z0 + pitch, ..."""

    z0_mm: float
    pitch_mm: float = 5.0
    count: int = 14


@dataclass(frozen=True, slots=True)
class Lattice:
    """Where a seed may sit: template holes x planes."""

    template: Template
    planes: Planes


@dataclass(frozen=True, slots=True)
class Needle:
    """One needle and the centres of its seeds, base to apex order by z."""

    label: str
    x_mm: float
    y_mm: float
    seeds_z_mm: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A seed plan in the patient frame. `lattice` is absent where the file did not say."""

    source: str
    strength_u: float
    prescription_gy: float
    needles: tuple[Needle, ...]
    lattice: Lattice | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seeds_xyz_mm(self) -> Float64Array:
        """Seed centres (n, 3), mm."""
        seeds = [(needle.x_mm, needle.y_mm, z) for needle in self.needles for z in needle.seeds_z_mm]
        return np.array(seeds, dtype=np.float64).reshape(-1, 3)

    @property
    def total_strength_u(self) -> float:
        """Air-kerma strength of all seeds, U."""
        return self.strength_u * sum(len(needle.seeds_z_mm) for needle in self.needles)


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A case on one evaluation grid: the covered fraction of every voxel, by role."""

    grid: Grid
    fractions: Mapping[str, Float32Array]

    def volume_cc(self, role: str) -> float:
        """Volume of a structure, cm3."""
        return float(self.fractions[role].sum(dtype=np.float64)) * self.grid.voxel_cc


@dataclass(frozen=True, slots=True)
class Finding:
    """One checked rule. `severity` is `fail` (not acceptable), `warn`, `note` (an assumption) or `pass`."""

    rule: str
    measured: float | str
    limit: float | str
    unit: str
    severity: str
    source: str


@dataclass(frozen=True, slots=True)
class Validity:
    """The plan's proof: every rule checked, with what was measured."""

    findings: tuple[Finding, ...]

    @property
    def acceptable(self) -> bool:
        """Whether no rule failed."""
        return all(finding.severity != "fail" for finding in self.findings)


def require(condition: bool, message: str) -> None:
    """Raise `InvalidInput` with the message unless the condition holds."""
    if not condition:
        raise InvalidInput(message)
