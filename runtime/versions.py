"""What trocar runs on here: libraries, kernels, devices. `trocar --version --verbose`."""

from __future__ import annotations

import importlib
import platform
from importlib.metadata import PackageNotFoundError, version

from trocar.runtime.errors import TrocarError

LIBRARIES = ("numpy", "grpcio", "protobuf", "cryptography", "pydicom", "pynrrd", "opencv-python-headless")


def installed(distribution: str) -> str:
    """The version of a distribution, or that it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def describe() -> list[str]:
    """One line a thing; what is missing or broken is said and hides nothing else."""
    return [
        f"python {platform.python_version()} on {platform.platform()}",
        *(f"{name} {installed(name)}" for name in LIBRARIES),
        f"onnxruntime-gpu {installed('onnxruntime-gpu')}: {_providers()}",
        f"CPU kernels: {_cpu_kernels()}",
        f"CUDA kernels: {_cuda_kernels()}",
        f"GPU: {_gpu()}",
    ]


def _providers() -> str:
    try:
        found = importlib.import_module("onnxruntime").get_available_providers()
    except Exception as error:  # a broken install fails in its own ways
        return f"not available ({type(error).__name__}: {error})"
    return "built with " + ", ".join(found)


def _cpu_kernels() -> str:
    try:
        native = importlib.import_module("trocar.runtime.kernels._native")
    except ImportError as error:
        return f"not available ({error})"
    return f"for {native.instruction_set()}, loaded from {native.__file__}"


def _cuda_kernels() -> str:
    from trocar.runtime.kernels import cuda

    try:
        built = cuda.build()
    except (ImportError, TrocarError) as error:
        return f"not available ({error})"
    if built is None:
        return "not built: nvcc was not there"
    driver = f"the driver has CUDA {built.driver}" if built.driver else "no driver"
    return f"architectures {' '.join(built.architectures)}, by nvcc {built.nvcc}; {driver}"


def _gpu() -> str:
    from trocar.runtime.device import choose_device

    found = choose_device("auto", ("CUDAExecutionProvider",))
    return found.name if found.kind == "cuda" else f"none ({found.why})"
