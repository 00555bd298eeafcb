"""DVHs of five structures on 1e6 voxels, beside a NumPy mask and histogram and what memory allows."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trocar.planners.types import Anatomy, Float32Array

NAME = "dvh"
HELP = "dose-volume histograms: one native pass against NumPy, with the memory-bandwidth floor"

PRESCRIPTION_GY = 145.0
LIMIT_MS = 5.0
# Centre x, y, z and radius as parts of the grid's edge: CTV, PTV, urethra, rectum, bladder.
BALLS = {
    "ctv": (0.0, 0.0, 0.0, 0.21),
    "ptv": (0.0, 0.0, 0.0, 0.24),
    "urethra": (0.0, 0.0, 0.0, 0.04),
    "rectum": (0.0, 0.38, 0.0, 0.15),
    "bladder": (0.0, -0.1, 0.35, 0.25),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--size", type=int, default=100, help="voxels along each axis of the 1 mm grid")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure both ways on the same volumes and check what they find."""
    from trocar.bench.floors import copy_bandwidth_gb_s
    from trocar.bench.timing import beside, interleave
    from trocar.planners.dvh import dvh
    from trocar.planners.types import require

    require(args.size >= 20 and args.repeats >= 1, "expected size >= 20 and repeats >= 1")
    dose_gy, anatomy = _scene(args.size, args.seed)
    cases: dict[str, Callable[[], Any]] = {
        "native": lambda: dvh(dose_gy, anatomy, prescription_gy=PRESCRIPTION_GY),
        "numpy_mask_and_histogram": lambda: _mask_and_histogram(dose_gy, anatomy),
    }
    times = interleave(cases, args.repeats)
    timings = {name: timing.document() for name, timing in times.items()}
    timings["native"]["limit_ms"] = LIMIT_MS
    bandwidth = copy_bandwidth_gb_s()
    floor_ms = (1 + len(BALLS)) * dose_gy.nbytes / (bandwidth * 1e6)
    timings["native"] = beside(timings["native"], floor_ms, "dose and volumes read once")
    p50 = {name: timing["p50_ms"] for name, timing in timings.items()}
    found = cases["native"]()
    d90_error_gy = max(
        abs(found[role].d_gy(90) - _exact_d90_gy(dose_gy, fraction))
        for role, fraction in anatomy.fractions.items()
    )
    return {
        "voxels": dose_gy.size,
        "structures": len(BALLS),
        "timings": timings,
        "times_faster": p50["numpy_mask_and_histogram"] / p50["native"],
        "floor": {
            "copy_bandwidth_gb_s": bandwidth,
            "read_once_ms": floor_ms,
            "native_over_floor": p50["native"] / floor_ms,
        },
        "d90_error_gy_max": d90_error_gy,
        "passed": d90_error_gy <= 0.02,
    }


def _scene(size: int, seed: int) -> tuple[Float32Array, Anatomy]:
    """Balls with partial voxels at their rims, in the sum of inverse squares of 100 points."""
    import numpy as np

    from trocar.planners.types import Anatomy, Grid

    edge = (size - 1) / 2
    grid = Grid((-edge,) * 3, (1.0, 1.0, 1.0), (size,) * 3)
    z, y, x = grid.axes_zyx_mm
    z, y = z[:, None, None], y[:, None]
    fractions = {}
    for role, (cx, cy, cz, radius) in BALLS.items():
        distance = np.sqrt((x - cx * size) ** 2 + (y - cy * size) ** 2 + (z - cz * size) ** 2)
        fractions[role] = np.clip(radius * size - distance + 0.5, 0.0, 1.0).astype(np.float32)
    dose = np.zeros(grid.shape_zyx)
    for a, b, c in np.random.default_rng(seed).uniform(-0.2 * size, 0.2 * size, (100, 3)):
        dose += 1.0 / ((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2 + 1.0)
    dose *= PRESCRIPTION_GY / np.percentile(dose[fractions["ctv"] > 0], 5)
    return dose.astype(np.float32), Anatomy(grid, fractions)


def _mask_and_histogram(dose_gy: Float32Array, anatomy: Anatomy) -> dict[str, Any]:
    """Do what a NumPy user would: a mask, a weighted histogram and a cumulative sum a structure."""
    import numpy as np

    bins, top = 40000, 5.0 * PRESCRIPTION_GY
    curves = {}
    for role, fraction in anatomy.fractions.items():
        mask = fraction > 0
        volume, _ = np.histogram(dose_gy[mask], bins=bins, range=(0.0, top), weights=fraction[mask])
        curves[role] = np.cumsum(volume[::-1])[::-1]
    return curves


def _exact_d90_gy(dose_gy: Float32Array, fraction: Float32Array) -> float:
    """Find D90 by sorting: the specification."""
    import numpy as np

    mask = fraction > 0
    order = np.argsort(-dose_gy[mask], kind="stable")
    reached = np.cumsum(fraction[mask][order].astype(np.float64))
    return float(dose_gy[mask][order][np.searchsorted(reached, 0.9 * reached[-1])])
