"""Dose of 100 lattice seeds on a 60 x 60 x 60 grid at 1 mm, beside what NumPy and memory allow."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trocar.planners.dose.engine import DoseEngine
    from trocar.planners.types import Float32Array, Float64Array, Grid

NAME = "dose"
HELP = "TG-43 dose: superposed and exact against NumPy, with the memory-bandwidth floor"

STRENGTH_U = 0.42
LIMITS_MS = {"superposed": 5.0, "superposed_first": 5.0, "exact": 150.0, "matrix_800x3000": 20.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--source", default="i125-6711")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--size", type=int, default=60, help="voxels along each axis of the 1 mm grid")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--seed", type=int, default=7)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure every path on the same seeds and check that they agree."""
    import numpy as np

    from trocar.bench.floors import copy_bandwidth_gb_s
    from trocar.bench.timing import beside, interleave
    from trocar.planners.dose.engine import DoseEngine
    from trocar.planners.dose.reference import dose_gy
    from trocar.planners.dose.source import load_source
    from trocar.planners.types import Grid, require

    require(
        args.seeds >= 1 and args.repeats >= 1 and args.size >= 10,
        "expected seeds, repeats >= 1 and size >= 10",
    )
    rng = np.random.default_rng(args.seed)
    source = load_source(args.source)
    engine = DoseEngine(source)
    grid = Grid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (args.size,) * 3)
    seeds = 5.0 * rng.integers(1, max(2, args.size // 5), size=(args.seeds, 3)).astype(np.float64)
    points = _voxel_centres(grid)
    kernel = _full_kernel(engine, args.size)
    candidates, samples = rng.uniform(0, args.size, (800, 3)), rng.uniform(0, args.size, (3000, 3))
    threads = args.threads

    cases: dict[str, Callable[[], Any]] = {
        "superposed": lambda: engine.grid_gy(seeds, STRENGTH_U, grid, threads=threads),
        "superposed_first": lambda: DoseEngine(source).grid_gy(seeds, STRENGTH_U, grid, threads=threads),
        "exact": lambda: engine.points_gy(seeds, STRENGTH_U, points, threads=threads),
        "matrix_800x3000": lambda: engine.matrix_gy_u(candidates, samples, threads=threads),
        "numpy_shift_and_add": lambda: _shift_and_add(kernel, seeds, grid),
        "numpy_reference": lambda: dose_gy(source, points, seeds, STRENGTH_U),
    }
    times = interleave(cases, args.repeats, fewer={"numpy_reference": 2, "exact": max(3, args.repeats // 2)})
    timings = {name: timing.document() for name, timing in times.items()}
    for name, limit in LIMITS_MS.items():
        timings[name]["limit_ms"] = limit
    p50 = {name: timing["p50_ms"] for name, timing in timings.items()}
    floor = _floor(copy_bandwidth_gb_s(), grid, args.seeds, p50["superposed"])
    for name in ("superposed", "superposed_first", "exact"):
        timings[name] = beside(timings[name], floor["once_ms"], "the grid written once")

    exact = cases["exact"]()
    sample = rng.integers(0, len(points), 2000)
    differences = {
        "exact_to_reference_max": _difference(
            exact[sample], dose_gy(source, points[sample], seeds, STRENGTH_U)
        ),
        "superposed_to_exact_max": _difference(cases["superposed"]().ravel(), exact),
        "shift_and_add_to_exact_max": _difference(cases["numpy_shift_and_add"]().ravel(), exact),
    }
    return {
        "threads": threads,
        "timings": timings,
        "times_faster": {
            "superposed_than_numpy_shift_and_add": p50["numpy_shift_and_add"] / p50["superposed"],
            "superposed_than_numpy_reference": p50["numpy_reference"] / p50["superposed"],
            "exact_than_numpy_reference": p50["numpy_reference"] / p50["exact"],
        },
        "floor": floor,
        "relative_difference": differences,
        "passed": max(differences.values()) <= 1e-5,
    }


def _floor(bandwidth_gb_s: float, grid: Grid, seeds: int, superposed_ms: float) -> dict[str, float]:
    """What memory alone would cost, at the measured copy bandwidth of one thread.

    `once` is the traffic that nothing avoids: the grid written once. `streamed` reads one kernel value
    for every seed and voxel from memory, as a shift-and-add without cache blocking does.
    """
    import numpy as np

    grid_bytes = float(np.prod(grid.shape_zyx)) * 4
    once_ms, streamed_ms = (size / (bandwidth_gb_s * 1e6) for size in (grid_bytes, grid_bytes * (seeds + 1)))
    return {
        "copy_bandwidth_gb_s": bandwidth_gb_s,
        "once_ms": once_ms,
        "streamed_ms": streamed_ms,
        "superposed_over_once": superposed_ms / once_ms,
        "superposed_over_streamed": superposed_ms / streamed_ms,
    }


def _voxel_centres(grid: Grid) -> Float64Array:
    import numpy as np

    return grid.points_xyz_mm(np.argwhere(np.ones(grid.shape_zyx, dtype=bool)))


def _full_kernel(engine: DoseEngine, size: int) -> Float32Array:
    """The kernel as a plain cube, (2 n - 1) voxels a side: what a NumPy user would precompute."""
    import numpy as np

    from trocar.planners.types import Grid

    side = 2 * size - 1
    cube = Grid((1.0 - size,) * 3, (1.0, 1.0, 1.0), (side,) * 3)
    dose = engine.points_gy([[0.0, 0.0, 0.0]], STRENGTH_U, _voxel_centres(cube))
    return dose.reshape(cube.shape_zyx).astype(np.float32)


def _shift_and_add(kernel: Float32Array, seeds_xyz_mm: Float64Array, grid: Grid) -> Float32Array:
    import numpy as np

    nz, ny, nx = grid.shape_zyx
    dose = np.zeros(grid.shape_zyx, dtype=np.float32)
    for x, y, z in seeds_xyz_mm.astype(int).tolist():
        dose += kernel[nz - 1 - z : 2 * nz - 1 - z, ny - 1 - y : 2 * ny - 1 - y, nx - 1 - x : 2 * nx - 1 - x]
    return dose


def _difference(values: Any, expected: Any) -> float:
    import numpy as np

    return float(np.max(np.abs(values / expected - 1.0)))
