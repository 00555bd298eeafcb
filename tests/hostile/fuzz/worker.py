"""Reads damaged files one by one and says how each ended; for `test_fuzz.py`, and for one file by hand.

    python worker.py SEEDS SEED FIRST STEP END

SEEDS is a folder of KIND.N files. A line of JSON comes before and after each file, so that whoever reads them
knows which one a killed worker died of.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mutate import mutated

from trocar.planners.case import case_from_bytes
from trocar.planners.geometry import anatomy, default_lattice, evaluation_grid
from trocar.planners.io.rtdose import read_rtdose
from trocar.planners.io.rtplan import read_rtplan
from trocar.planners.types import ROLES, Case
from trocar.runtime.errors import TrocarError

MOST_CPU_S = 5.0
MOST_BYTES = 1 << 30


def right_case(data: bytes) -> None:
    """Read a case; check it and the volumes that planning makes of it."""
    labels = {"ctv": 1} if b"Segment0" not in data and data[:4] == b"NRRD" else None
    case = case_from_bytes(data, filename_hint="x.nrrd", labels=labels)
    assert {"ctv", "ptv", "urethra"} <= set(case.structures) <= set(ROLES)
    assert all(isinstance(note, str) for note in case.assumptions)
    for role, one in case.structures.items():
        assert one.role == role
        assert one.name.isprintable()
        assert one.occupancy_zyx.dtype == np.float32
        assert np.isfinite(one.occupancy_zyx).all()
        assert 0 <= one.occupancy_zyx.min() <= one.occupancy_zyx.max() <= 1
        assert one.z_mm.shape == one.occupancy_zyx.shape[:1]
        assert np.isfinite(one.z_mm).all()
        assert (np.diff(one.z_mm) > 0).all()
        assert np.isfinite([*one.origin_xy_mm, *one.spacing_yx_mm]).all()
        assert min(one.spacing_yx_mm) > 0
    _right_volumes(case)


def _right_volumes(case: Case) -> None:
    lattice, _ = default_lattice(case, None, None)
    volumes = anatomy(case, evaluation_grid(case, lattice))
    assert volumes.fractions.keys() == case.structures.keys()
    for fraction in volumes.fractions.values():
        assert fraction.shape == volumes.grid.shape_zyx
        assert np.isfinite(fraction).all()
        assert 0 <= fraction.min() <= fraction.max() <= 1


def right_plan(data: bytes) -> None:
    """Read an RT Plan; check every figure."""
    plan = read_rtplan(data)
    assert plan.kind in ("HDR", "PERMANENT")
    assert 1 <= plan.fractions <= 100
    assert plan.prescription_gy is None or 0 < plan.prescription_gy < 1e4
    for source in plan.sources:
        assert 0 < source.strength_u < 1e6
        assert 0 < source.half_life_days < 1e6
    for channel in plan.channels:
        count = len(channel.positions_xyz_mm)
        assert channel.positions_xyz_mm.shape == channel.directions_xyz.shape == (count, 3)
        assert count == len(channel.times_s) > 0
        assert (np.abs(channel.positions_xyz_mm) <= 10_000).all()
        assert np.isfinite(channel.times_s).all()
        assert (channel.times_s >= 0).all()
        np.testing.assert_allclose(np.linalg.norm(channel.directions_xyz, axis=1), 1)
    assert np.isfinite(plan.trak_ugy)
    if plan.kind == "PERMANENT":
        seeds = plan.seed_plan("i125-6711").seeds_xyz_mm
        assert len(seeds) == sum(len(channel.positions_xyz_mm) for channel in plan.channels)


def right_dose(data: bytes) -> None:
    """Read an RT Dose; check grid, dose and curves."""
    found = read_rtdose(data)
    assert found.dose_gy.shape == found.grid.shape_zyx
    assert np.isfinite(found.dose_gy).all()
    assert found.dose_gy.min() >= 0
    assert np.isfinite([*found.grid.origin_xyz_mm, *found.grid.spacing_zyx_mm]).all()
    assert min(found.grid.spacing_zyx_mm) > 0
    for curve in found.dvhs:
        assert curve.dose_gy.shape == curve.above_cc.shape
        assert np.isfinite(curve.dose_gy).all()
        assert (np.diff(curve.dose_gy) >= 0).all()
        assert np.isfinite(curve.v_cc(1.0))


READERS: dict[str, Callable[[bytes], None]] = {
    "nrrd": right_case,
    "rtstruct": right_case,
    "rtplan": right_plan,
    "rtdose": right_dose,
}


def outcome(kind: str, data: bytes) -> tuple[str, str]:
    """Read one file: `right`, `refused` with the message, or `fault` with what went wrong."""
    try:
        READERS[kind](data)
    except TrocarError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):
                return "fault", f"out of memory behind: {error}"
            cause = cause.__context__
        return "refused", str(error)
    except BaseException:
        return "fault", traceback.format_exc(limit=-4)
    return "right", ""


def _say(**said: Any) -> None:
    print(json.dumps(said), flush=True)


def _peak_bytes() -> int:
    """Most memory held since the last call; the kernel counts anew after each."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def main() -> None:
    """Read every STEPth file from FIRST to END."""
    folder, (seed, first, step, end) = Path(sys.argv[1]), map(int, sys.argv[2:6])
    seeds: dict[str, list[bytes]] = {}
    for path in sorted(folder.iterdir()):
        seeds.setdefault(path.stem, []).append(path.read_bytes())
    warnings.simplefilter("ignore")
    for kind, files in seeds.items():
        for data in files:
            assert outcome(kind, data) == ("right", ""), (kind, outcome(kind, data))
    address_space = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    for number in range(first, end, step):
        kind, data = mutated(number, seeds, seed)
        _say(begin=number, kind=kind)
        # What goes past either limit ends this process, and this file with it; other work does not count.
        resource.setrlimit(resource.RLIMIT_AS, (address_space + MOST_BYTES, resource.RLIM_INFINITY))
        signal.setitimer(signal.ITIMER_PROF, MOST_CPU_S)
        _peak_bytes()
        ended, detail = outcome(kind, data)
        signal.setitimer(signal.ITIMER_PROF, 0)
        peak = _peak_bytes()
        if peak > MOST_BYTES:
            ended, detail = "fault", f"{peak >> 20} MiB of memory; {detail}"
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        _say(end=number, kind=kind, outcome=ended, detail=detail, peak=peak)


if __name__ == "__main__":
    main()
