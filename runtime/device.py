"""Which device a network runs on, and why: decided by trying, said in one line."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trocar.runtime.errors import DeviceError, InvalidInput
from trocar.runtime.session.cuda import Gpu, find_gpu

DEVICES = ("auto", "cpu", "cuda")
# What ONNX Runtime's provider is linked against.
_TENSORRT_LIBRARY = "libnvinfer.so.10"


@dataclass(frozen=True, slots=True)
class Device:
    """`kind` is `cpu` or `cuda`, `name` the hardware's own, `why` the reason in a few words."""

    kind: str
    name: str
    why: str

    def __str__(self) -> str:
        """One line for logs and provenance."""
        return f"{self.kind} ({self.name}): {self.why}"


def choose_device(wanted: str, providers: tuple[str, ...]) -> Device:
    """Say where to try first.

    Parameters
    ----------
    wanted : one of `DEVICES`; `auto` takes CUDA where it works.
    providers : the execution providers that the installed ONNX Runtime was built with. That one is built
        in says nothing about whether it works here, so the driver is asked, and the session tries it.

    Raises
    ------
    InvalidInput
        No such device.
    DeviceError
        `cuda` was asked for and is not there.
    """

    def look() -> Device | str:
        if "CUDAExecutionProvider" not in providers:
            return "ONNX Runtime was built without CUDA"
        found = find_gpu()
        return _gpu(found.name) if isinstance(found, Gpu) else found

    return _chosen(wanted, look)


def kernel_device(wanted: str) -> Device:
    """Say where native kernels run for callers that have no array on a device yet.

    Parameters
    ----------
    wanted : one of `DEVICES`; `auto` takes CUDA where kernels were built for it and the driver has a device.

    Raises
    ------
    InvalidInput
        No such device.
    DeviceError
        `cuda` was asked for and is not there.
    """
    from trocar.runtime.kernels import cuda

    def look() -> Device | str:
        why_not = cuda.why_not()
        return _gpu(str(cuda.properties()["name"])) if why_not is None else why_not

    return _chosen(wanted, look)


def _chosen(wanted: str, look: Callable[[], Device | str]) -> Device:
    """Look for a GPU where one is wanted; `look` says why there is none."""
    if wanted not in DEVICES:
        raise InvalidInput(f"expected a device of {', '.join(DEVICES)}, got {wanted!r}")
    if wanted == "cpu":
        return cpu("asked for")
    found = look()
    if isinstance(found, Device):
        return found
    if wanted == "cuda":
        raise DeviceError(f"expected a CUDA device, got none: {found}")
    return cpu(f"no CUDA: {found}")


def _gpu(name: str) -> Device:
    return Device("cuda", name, "the driver has it")


def cpu(why: str) -> Device:
    """Return the CPU, with the reason for taking it."""
    return Device("cpu", _cpu_name(), why)


def tensorrt_failure() -> str | None:
    """Say why TensorRT's library cannot be loaded; None where it can.

    A provider that lacks its library says so on stderr in many lines; this asks before it does.
    """
    try:
        ctypes.CDLL(_TENSORRT_LIBRARY)
    except OSError:
        return f"{_TENSORRT_LIBRARY} is not there"
    return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
