"""What the plan generator sees of a case: a window of lattice sites with distances, rules and strength.

The window is 16 x 16 x 16 sites (plane, row, column), centred on where seeds may stand. Distances come
from a grid at half the lattice's pitch, so that no distance transform runs on the evaluation grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trocar.planners.dose.engine import DoseEngine
from trocar.planners.geometry import signed_distance_mm
from trocar.planners.problem import Candidates, SearchProblem
from trocar.planners.types import Anatomy, Float32Array, Float64Array, Lattice

SIDE = 16
CHANNELS = (
    "ctv_distance",
    "ptv_distance",
    "urethra_distance",
    "rectum_distance",
    "candidate",
    "hole_parity",
    "plane_parity",
    "strength",
)
DISTANCE_UNIT_MM = 10.0
DISTANCE_REACH = 1.5
# ln of a seed's dose at 1 cm on the transverse axis, in prescriptions, for 0.42 U of I-125 6711 and 145 Gy.
_USUAL_STRENGTH = float(np.log(0.42 * 18.53 / 145.0))


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the lattice that the network sees: its first plane, row and column (may be negative)."""

    plane0: int
    row0: int
    column0: int

    def sites(
        self, candidates: Candidates, columns: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Window index (n, 3) plane, row, column of candidates, and which of them lie inside."""
        row, column = np.divmod(candidates.hole, columns)
        origin = (self.plane0, self.row0, self.column0)
        index = np.stack([candidates.plane, row, column], axis=1).astype(np.int64) - origin
        return index, np.all((index >= 0) & (index < SIDE), axis=1)


def window_of(candidates: Candidates, lattice: Lattice) -> Window:
    """The window centred on the candidates."""
    row, column = np.divmod(candidates.hole, lattice.template.columns)
    first = [
        (int(axis.min()) + int(axis.max()) + 1) // 2 - SIDE // 2 for axis in (candidates.plane, row, column)
    ]
    return Window(*first)


def features(
    anatomy: Anatomy,
    problem: SearchProblem,
    window: Window,
    engine: DoseEngine,
    *,
    strength_u: float,
    prescription_gy: float,
) -> Float32Array:
    """The network's input, (8, 16, 16, 16) float32: `CHANNELS` at every site of the window.

    Distances are signed (negative inside), in cm, clipped to +-1.5; a structure that the case lacks is
    far away. Parities are +-1, counted from the window's first site.
    """
    out = np.empty((len(CHANNELS), SIDE, SIDE, SIDE), dtype=np.float32)
    for channel, role in enumerate(("ctv", "ptv", "urethra", "rectum")):
        out[channel] = DISTANCE_REACH
        if role in anatomy.fractions:
            distance = _site_distance_mm(anatomy, role, problem.lattice, window)
            out[channel] = np.clip(distance / DISTANCE_UNIT_MM, -DISTANCE_REACH, DISTANCE_REACH)
    out[4] = 0.0
    index, inside = window.sites(problem.candidates, problem.lattice.template.columns)
    out[4][tuple(index[inside].T)] = 1.0
    out[5], out[6] = parities()
    one_cm = engine.points_gy(np.zeros((1, 3)), strength_u, np.array([[10.0, 0.0, 0.0]]))
    out[7] = np.log(float(one_cm[0]) / prescription_gy) - _USUAL_STRENGTH
    return out


def parities() -> tuple[Float32Array, Float32Array]:
    """Hole parity (row + column) and plane parity of every site of a window, +-1."""
    plane, row, column = np.indices((SIDE, SIDE, SIDE))
    hole = 1 - 2 * ((row + column) % 2)
    return hole.astype(np.float32), (1 - 2 * (plane % 2)).astype(np.float32)


def dose_kernel_gy_u(engine: DoseEngine, pitch_xy_mm: float, pitch_z_mm: float) -> Float32Array:
    """Total dose of one seed at lattice offsets -15..15, (31, 31, 31) float32, Gy per U.

    The site of the seed itself has the dose at half a pitch across: what its cell's rim gets.
    """
    offset = np.arange(1 - SIDE, SIDE, dtype=np.float64)
    z, y, x = np.meshgrid(offset * pitch_z_mm, offset * pitch_xy_mm, offset * pitch_xy_mm, indexing="ij")
    x[SIDE - 1, SIDE - 1, SIDE - 1] = 0.5 * pitch_xy_mm
    points = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    return np.asarray(engine.points_gy(np.zeros((1, 3)), 1.0, points), dtype=np.float32).reshape(x.shape)


def _site_distance_mm(anatomy: Anatomy, role: str, lattice: Lattice, window: Window) -> Float32Array:
    """Signed distance at the window's sites, measured on cells of half the pitch."""
    template, planes = lattice.template, lattice.planes
    starts = (
        planes.z0_mm + planes.pitch_mm * window.plane0,
        template.origin_xy_mm[1] + template.pitch_mm * window.row0,
        template.origin_xy_mm[0] + template.pitch_mm * window.column0,
    )
    pitches = (planes.pitch_mm, template.pitch_mm, template.pitch_mm)
    covered: Float32Array = anatomy.fractions[role]
    for axis in range(3):
        nodes = starts[axis] + 0.5 * pitches[axis] * np.arange(2 * SIDE - 1, dtype=np.float64)
        covered = _cell_means(covered, axis, nodes, 0.5 * pitches[axis], anatomy.grid.axes_zyx_mm[axis])
    cell_mm = tuple(0.5 * pitch for pitch in pitches)
    distance = signed_distance_mm(covered, (cell_mm[0], cell_mm[1], cell_mm[2]))
    # Within a cell that the surface crosses, the covered part says where.
    crossed = (covered > 0.02) & (covered < 0.98)
    distance = np.where(crossed, (0.5 - covered) * min(cell_mm), distance)
    return np.asarray(distance[::2, ::2, ::2], dtype=np.float32)


def _cell_means(
    covered: Float32Array, axis: int, nodes_mm: Float64Array, cell_mm: float, axis_mm: Float64Array
) -> Float32Array:
    """Average the voxels within each node's cell along one axis, by how much of the cell each covers.

    A cell meets a few voxels only, so that they are added one after the other. As a matrix product it would
    be mostly zeros, on BLAS threads that wait for each other longer than it takes.
    """
    step = float(axis_mm[1] - axis_mm[0]) if len(axis_mm) > 1 else cell_mm
    first = np.floor((nodes_mm - 0.5 * cell_mm - axis_mm[0]) / step + 0.5).astype(np.int64)
    shape = [1, 1, 1]
    shape[axis] = len(nodes_mm)
    means: Float32Array | None = None
    for voxel in (first + turn for turn in range(int(np.ceil(cell_mm / step)) + 1)):
        centre = axis_mm[0] + step * voxel
        low = np.maximum(nodes_mm - 0.5 * cell_mm, centre - 0.5 * step)
        high = np.minimum(nodes_mm + 0.5 * cell_mm, centre + 0.5 * step)
        held = (voxel >= 0) & (voxel < len(axis_mm))
        weight = np.where(held, np.maximum(high - low, 0.0) / cell_mm, 0.0).astype(np.float32)
        part = covered.take(np.clip(voxel, 0, len(axis_mm) - 1), axis=axis)
        part *= weight.reshape(shape)
        means = part if means is None else np.add(means, part, out=means)
    assert means is not None
    return means
