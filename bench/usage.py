"""Processor time, memory and energy of the processes that did the work."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters at one moment: energy by source in J, with the value at which each begins anew."""

    at_s: float
    cpu_s: float
    rss_mib: float
    energy_j: Mapping[str, float]
    wraps_j: Mapping[str, float]


class Meter:
    """Reads what processes used from its making on.

    Parameters
    ----------
    processes : by process id; this one if none is given.
    powercap : where the kernel shows RAPL.
    """

    def __init__(self, processes: Sequence[int] = (), *, powercap: Path = POWERCAP) -> None:
        self._processes = tuple(processes) or (os.getpid(),)
        self._powercap = powercap
        self._first = self._read()

    def document(self, requests: int = 0) -> dict[str, Any]:
        """What was used since; of energy that nothing counts here, that.

        Parameters
        ----------
        requests : divide it by so many too; not where it is 0.
        """
        now, first = self._read(), self._first
        used = {"cpu_s": now.cpu_s - first.cpu_s}
        for source, joules in now.energy_j.items():
            spent = joules - first.energy_j[source]
            used[f"energy_{source}_j"] = spent + (now.wraps_j[source] if spent < 0 else 0.0)
        found: dict[str, Any] = {
            "seconds": round(now.at_s - first.at_s, 3),
            **{name: round(value, 3) for name, value in used.items()},
            "rss_mib": round(now.rss_mib, 1),
            "rss_growth_mib": round(now.rss_mib - first.rss_mib, 1),
        }
        if not now.energy_j:
            found["energy"] = f"not measured: no RAPL to read under {self._powercap}, no GPU by NVML"
        if requests:
            found |= {f"{name}_per_request": value / requests for name, value in used.items()}
            found["rss_growth_kib_per_request"] = 1024 * (now.rss_mib - first.rss_mib) / requests
        return found

    def _read(self) -> Reading:
        used = [_process(one) for one in self._processes]
        energy, wraps = _rapl(self._powercap)
        gpus = _nvml()
        return Reading(
            time.monotonic(),
            sum(cpu_s for cpu_s, _ in used),
            sum(rss_mib for _, rss_mib in used),
            energy | gpus,
            wraps | dict.fromkeys(gpus, 0.0),
        )


def resident_mib(process: int, field: str = "VmRSS") -> float:
    """What a process holds, or at most held (`VmHWM`), MiB; proc(5)."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def _process(process: int) -> tuple[float, float]:
    """Processor time of all its threads, s, and resident memory, MiB; proc(5)."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _rapl(powercap: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Energy counters of whole packages, where this user may read them (root alone on most kernels)."""
    energy, wraps = {}, {}
    for zone in sorted(powercap.glob("intel-rapl:*")):
        if zone.name.count(":") == 1:
            try:
                energy[zone.name] = int((zone / "energy_uj").read_text()) / 1e6
                wraps[zone.name] = int((zone / "max_energy_range_uj").read_text()) / 1e6
            except OSError:
                energy.pop(zone.name, None)
    return energy, wraps


def _nvml() -> dict[str, float]:
    """Energy counters of GPUs, where nvidia-ml-py and a driver are there."""
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # no package, or no driver: its errors have no base class without the library
        return {}
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return {
            f"gpu{index}": nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
            for index, handle in enumerate(handles)
        }
    except nvml.NVMLError:
        return {}
    finally:
        nvml.nvmlShutdown()
