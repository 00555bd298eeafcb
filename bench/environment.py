"""What a measurement ran on: without it a figure says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = (
    "trocar",
    "numpy",
    "onnxruntime-gpu",
    "opencv-python-headless",
    "kornia-rs",
    "grpcio",
    "protobuf",
    "tensorrt-rtx-cu13",
    "tensorrt-cu13",
)
# Instructions that kernels and libraries choose their code by.
INSTRUCTIONS = (
    *(
        "sse4_2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "avx512_vnni",
        "avx512_bf16",
    ),
    *("avx512_fp16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"),
    *("neon", "asimd", "asimddp", "sve", "sve2", "i8mm", "bf16"),
)
# Where these differ, two measurements are of different machines.
MACHINE = ("cpu", "isa", "cores", "governor", "gpu")
# Where these differ, they are of one machine in different states.
STATE = ("system", "python", "packages")
BUSY_LOAD = 0.5
"""Load a core before a run, from which other work disturbed it."""


def record() -> dict[str, Any]:
    """Processor, its instructions and governor, GPUs, load, versions and, in a checkout, the git commit."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_line("model name") or platform.processor(),
        "isa": _instructions(),
        "cores": len(os.sched_getaffinity(0)),
        "governor": _governor(),
        "gpu": _gpus(),
        "load_1min": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "commit": _commit(Path(__file__).resolve().parent.parent),
    }


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any], names: tuple[str, ...]
) -> dict[str, tuple[Any, Any]]:
    """Entries of that name that both records have and that differ; packages one by one."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in names:
        if name not in before or name not in after or before[name] == after[name]:
            continue
        if isinstance(before[name], Mapping) and isinstance(after[name], Mapping):
            for package in sorted({*before[name], *after[name]}):
                pair = (before[name].get(package), after[name].get(package))
                if pair[0] != pair[1]:
                    found[package] = pair
        else:
            found[name] = (before[name], after[name])
    return found


def busy(environment: Mapping[str, Any]) -> bool:
    """Whether other work was on the machine when the measurement began."""
    return float(environment.get("load_1min", 0.0)) > BUSY_LOAD * float(environment.get("cores", 1))


def _cpu_line(name: str) -> str:
    """The first line of that name of /proc/cpuinfo; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _instructions() -> str:
    flags = (_cpu_line("flags") or _cpu_line("Features")).split()
    return " ".join(name for name in INSTRUCTIONS if name in flags)


def _governor() -> str:
    """What sets the clock's pace; a virtual machine does not say."""
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return "not shown"


def _gpus() -> list[str]:
    """Name and driver of each GPU, by nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.replace(",", ", driver") for line in done.stdout.splitlines() if line]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(root: Path) -> str | None:
    """The commit of the checkout that holds this file, `-dirty` where it was changed; None elsewhere."""
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
