"""ONNX Runtime: a session whose provider is the one that ran, not the one that was hoped for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trocar.runtime.device import Device, choose_device, cpu
from trocar.runtime.errors import DeviceError, InvalidInput
from trocar.runtime.session.base import Array, TensorSpec, check_feeds

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
DTYPES = {
    "tensor(bool)": "bool",
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
}
MAX_MODEL_BYTES = 1 << 30
_FATAL_ONLY = 4


class OrtSession:
    """A graph in ONNX Runtime. `open_session` makes it."""

    def __init__(self, native: Any, device: Device, name: str) -> None:
        self.inputs = tuple(_spec(node, name) for node in native.get_inputs())
        self.outputs = tuple(_spec(node, name) for node in native.get_outputs())
        self.provider: str = native.get_providers()[0]
        self.device = device
        self._native = native
        self._name = name
        self._output_names = [spec.name for spec in self.outputs]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once; see `Session.run`.

        Contiguous inputs are read where they lie and outputs are handed over, not copied: binding
        buffers by hand measured no faster on the CPU, from 24 bytes to 8 MB.
        """
        check_feeds(self.inputs, feeds)
        try:
            values = self._native.run(self._output_names, dict(feeds))
        except Exception as error:  # its errors share no base class of their own
            raise DeviceError(f"{self._name}: ONNX Runtime failed: {_first_line(error)}") from error
        return dict(zip(self._output_names, values, strict=True))


def open_session(source: Path | bytes, *, threads: int = 1, device: str = "auto") -> OrtSession:
    """Open a model.

    Parameters
    ----------
    source : an ONNX file, or its bytes. Weights in other files are refused: nothing vouches for them.
    threads : threads within one operation; operations run one after the other.
    device : `auto`, `cpu` or `cuda`.

    Raises
    ------
    InvalidInput
        The file cannot be read, or is not a model that ONNX Runtime can run.
    DeviceError
        `cuda` was asked for and does not work.
    """
    import onnxruntime

    if threads < 1:
        raise InvalidInput(f"expected 1 thread or more, got {threads}")
    data, name = (source, "model") if isinstance(source, bytes) else (_read(source), str(source))
    chosen = choose_device(device, tuple(onnxruntime.get_available_providers()))
    if chosen.kind == "cuda":
        session, failure = _try_cuda(onnxruntime, data, name, threads, chosen)
        if session is not None:
            return session
        if device == "cuda":
            raise DeviceError(f"{name}: expected CUDA on {chosen.name} to work; {failure}")
        chosen = cpu(f"{chosen.name} does not work: {failure}")
    return OrtSession(_open(onnxruntime, data, name, threads, [CPU]), chosen, name)


def _try_cuda(
    onnxruntime: Any, data: bytes, name: str, threads: int, chosen: Device
) -> tuple[OrtSession | None, str]:
    """Open on CUDA and run once: libraries load late, and a missing one shows only there."""
    # A provider that fails to load logs several coloured lines; `device.why` says it in one.
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    onnxruntime.preload_dlls()
    native = _open(onnxruntime, data, name, threads, [CUDA, CPU])
    if native.get_providers()[0] != CUDA:
        return None, f"ONNX Runtime gave {native.get_providers()[0]}"
    session = OrtSession(native, chosen, name)
    smallest = {
        spec.name: np.zeros([size if isinstance(size, int) else 1 for size in spec.shape], spec.dtype)
        for spec in session.inputs
    }
    try:
        session.run(smallest)
    except DeviceError as error:
        return None, str(error)
    return session, ""


def _open(onnxruntime: Any, data: bytes, name: str, threads: int, providers: list[str]) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _FATAL_ONLY
    # Threads that spin while they wait were no faster alone, slower on a busy machine, and take the cores
    # that the work after the network needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # External weights would be looked for in the working directory. Nothing can lie below this one.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        return onnxruntime.InferenceSession(data, options, providers=providers)
    except Exception as error:  # its errors share no base class of their own
        raise InvalidInput(f"{name}: expected an ONNX model: {_first_line(error)}") from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MODEL_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read the model {path}: {error.strerror}") from error
    if len(data) > MAX_MODEL_BYTES:
        raise InvalidInput(f"{path}: expected a model of at most {MAX_MODEL_BYTES} bytes, got more")
    return data


def _spec(node: Any, model: str) -> TensorSpec:
    if node.type not in DTYPES:
        raise InvalidInput(f"{model}: expected {node.name} to be {', '.join(DTYPES)}, got {node.type}")
    return TensorSpec(node.name, DTYPES[node.type], tuple(node.shape))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
