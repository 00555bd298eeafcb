"""ONNX Runtime: a session whose provider is the one that ran, not the one that was hoped for."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trocar.runtime.device import Device, choose_device, cpu, tensorrt_failure
from trocar.runtime.errors import DeviceError, InvalidInput, TrocarError
from trocar.runtime.session.base import (
    Array,
    Binding,
    Buffer,
    TensorSpec,
    check_bound,
    check_feeds,
    element_type,
)
from trocar.runtime.session.interrupt import FATAL_ONLY, GRAPH_ID, NO_GRAPH, Interrupt, current
from trocar.runtime.session.memory import memory_of

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
DTYPES = {
    "tensor(bfloat16)": "bfloat16",
    "tensor(bool)": "bool",
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(int8)": "int8",
    "tensor(string)": "string",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(uint8)": "uint8",
}
MAX_MODEL_BYTES = 1 << 30
# As ONNX numbers it; NumPy has no type by which it could be named.
_BFLOAT16 = 16


class OrtSession:
    """A graph in ONNX Runtime. `open_session` makes it."""

    def __init__(self, native: Any, device: Device, name: str, *, cuda_graph: bool = False) -> None:
        self.inputs = tuple(_spec(node, name) for node in native.get_inputs())
        self.outputs = tuple(_spec(node, name) for node in native.get_outputs())
        self.provider: str = native.get_providers()[0]
        self.device = device
        self._native = native
        self._name = name
        self._output_names = [spec.name for spec in self.outputs]
        dtypes = {spec.dtype for spec in (*self.inputs, *self.outputs)}
        if dtypes >= {"bfloat16", "string"}:
            raise InvalidInput(
                f"{name}: expected no strings beside bfloat16, which ONNX Runtime cannot be given"
            )
        self._has_bfloat16 = "bfloat16" in dtypes
        # A captured graph is a binding's own: its shapes and addresses are fixed.
        self._graph_ids: Iterator[int] | None = itertools.count(1) if cuda_graph else None
        self._plain = _run_options(NO_GRAPH) if cuda_graph else None

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once; see `Session.run`.

        Contiguous inputs are read where they lie and outputs are handed over, not copied.
        """
        check_feeds(self.inputs, feeds)
        interrupt = current()
        options = _options(self._plain, interrupt)
        try:
            if self._has_bfloat16:
                values = self._run_values(feeds, options)
            else:
                values = self._native.run(self._output_names, dict(feeds), options)
        except Exception as error:  # its errors share no base class of their own
            raise _failure(self._name, error, interrupt) from error
        return dict(zip(self._output_names, values, strict=True))

    def _run_values(self, feeds: Mapping[str, Array], options: Any) -> list[Array]:
        """Run where ONNX Runtime would look for NumPy's type of an element and find none."""
        from onnxruntime import OrtValue

        kept = {spec.name: np.ascontiguousarray(feeds[spec.name]) for spec in self.inputs}
        given = {
            spec.name: OrtValue.ortvalue_from_numpy_with_onnx_type(kept[spec.name], _BFLOAT16)
            if spec.dtype == "bfloat16"
            else OrtValue.ortvalue_from_numpy(kept[spec.name])
            for spec in self.inputs
        }
        values = self._native.run_with_ort_values(self._output_names, given, options)
        return [
            _bits(value) if spec.dtype == "bfloat16" else value.numpy()
            for spec, value in zip(self.outputs, values, strict=True)
        ]

    def bind(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Binding:
        """Take the caller's buffers; see `Session.bind`.

        Device arrays must be ready when `run` is called: ONNX Runtime has a stream of its own. With CUDA
        graphs, the first run captures this binding and later ones replay it.

        Raises
        ------
        InvalidInput
            Also where CUDA graphs were asked for and an array is not on the device: a replay copies nothing.
        """
        check_bound(self.inputs, self.outputs, feeds, outputs, device=self.device)
        if self._graph_ids is None:
            return self._binding(feeds, outputs, None)
        for name, buffer in (*feeds.items(), *outputs.items()):
            if isinstance(buffer, np.ndarray):
                raise InvalidInput(
                    f"{name}: expected a device array, since a CUDA graph copies none, got NumPy's"
                )
        return self._binding(feeds, outputs, _run_options(str(next(self._graph_ids))))

    def run_into(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        """Run once into the caller's buffers; no CUDA graph is captured for them."""
        check_bound(self.inputs, self.outputs, feeds, outputs, device=self.device)
        self._binding(feeds, outputs, self._plain).run()

    def _binding(
        self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer], options: Any
    ) -> _OrtBinding:
        dtypes = {spec.name: spec.dtype for spec in (*self.inputs, *self.outputs)}
        return _OrtBinding(self._native, self._name, dtypes, feeds, outputs, options)


class _OrtBinding:
    def __init__(
        self,
        native: Any,
        name: str,
        dtypes: Mapping[str, str],
        feeds: Mapping[str, Buffer],
        outputs: Mapping[str, Buffer],
        options: Any,
    ) -> None:
        self._native = native
        self._name = name
        self._options = options
        self._binding = native.io_binding()
        self._kept = (dict(feeds), dict(outputs))  # nothing else keeps their memory
        self._on_gpu = native.get_providers()[0] != CPU
        self._feeds = {key: _place(buffer, dtypes[key]) for key, buffer in feeds.items()}
        for key, place in self._feeds.items():
            self._binding.bind_input(key, *place)
        for key, buffer in outputs.items():
            self._binding.bind_output(key, *_place(buffer, dtypes[key]))
        self._run = _runner(native, self._binding)

    def run(self) -> None:
        """Run once on the buffers; see `Binding.run`."""
        interrupt = current()
        options = _options(self._options, interrupt)
        try:
            if self._on_gpu:
                # What lies on the host is copied to the GPU when it is bound, and not again.
                for key, place in self._feeds.items():
                    if place[0] == "cpu":
                        self._binding.bind_input(key, *place)
            self._run(options)
            if self._on_gpu:
                self._binding.synchronize_outputs()
        except Exception as error:  # its errors share no base class of their own
            raise _failure(self._name, error, interrupt) from error


def open_session(
    source: Path | bytes, *, threads: int = 1, device: str = "auto", cuda_graph: bool = False
) -> OrtSession:
    """Open a model on the first of TensorRT, CUDA and CPU that works here.

    Parameters
    ----------
    source : an ONNX file, or its bytes. Weights in other files are refused: nothing vouches for them.
    threads : threads within one operation; operations run one after the other.
    device : `auto`, `cpu` or `cuda`.
    cuda_graph : on CUDA, whether a binding is captured once and replayed; on the CPU it changes nothing.

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
    built = tuple(onnxruntime.get_available_providers())
    chosen = choose_device(device, built)
    if chosen.kind == "cuda":
        session, failure = _open_on_gpu(onnxruntime, data, name, threads, chosen, cuda_graph)
        if session is not None:
            return session
        native = _open(onnxruntime, data, name, threads, [CPU])  # what is no model is refused as such
        if device == "cuda":
            raise DeviceError(f"{name}: expected CUDA on {chosen.name} to work; {failure}")
        return OrtSession(native, cpu(f"{chosen.name} does not work: {failure}"), name)
    return OrtSession(_open(onnxruntime, data, name, threads, [CPU]), chosen, name)


def _open_on_gpu(
    onnxruntime: Any, data: bytes, name: str, threads: int, chosen: Device, cuda_graph: bool
) -> tuple[OrtSession | None, str]:
    """Open on TensorRT, else on CUDA; in `why`, or beside None, why not on the better one."""
    # A provider that fails to load logs several coloured lines; `device.why` says it in one.
    onnxruntime.set_default_logger_severity(FATAL_ONLY)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
        onnxruntime.preload_dlls()
    built = onnxruntime.get_available_providers()
    if TENSORRT not in built:
        missing: str | None = "ONNX Runtime was built without it"
    else:
        missing = tensorrt_failure()
    if missing is None:
        on_tensorrt = Device("cuda", chosen.name, f"{chosen.why}, and TensorRT works")
        providers = [(TENSORRT, _tensorrt_options(cuda_graph)), (CUDA, _cuda_options(False)), CPU]
        session, missing = _try(onnxruntime, data, name, threads, providers, on_tensorrt, cuda_graph)
        if session is not None:
            return session, ""
    on_cuda = Device("cuda", chosen.name, f"{chosen.why}; no TensorRT: {missing}")
    providers = [(CUDA, _cuda_options(cuda_graph)), CPU]
    return _try(onnxruntime, data, name, threads, providers, on_cuda, cuda_graph)


def _try(
    onnxruntime: Any,
    data: bytes,
    name: str,
    threads: int,
    providers: list[Any],
    device: Device,
    cuda_graph: bool,
) -> tuple[OrtSession | None, str]:
    """Open and run once: libraries load late, and a missing one shows only there."""
    wanted = providers[0][0]
    try:
        native = _open(onnxruntime, data, name, threads, providers)
    except InvalidInput as error:
        return None, str(error)
    if native.get_providers()[0] != wanted:
        return None, f"ONNX Runtime gave {native.get_providers()[0]}"
    session = OrtSession(native, device, name, cuda_graph=cuda_graph)
    smallest = {spec.name: _smallest(spec) for spec in session.inputs}
    try:
        session.run(smallest)
    except DeviceError as error:
        return None, str(error)
    return session, ""


def _cuda_options(cuda_graph: bool) -> dict[str, str]:
    return {"enable_cuda_graph": "1"} if cuda_graph else {}


def _tensorrt_options(cuda_graph: bool) -> dict[str, str]:
    """Engines are built when a session opens, which takes from seconds to minutes: once a machine."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = str(Path(home) / "trocar" / "onnxruntime-tensorrt")
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
        **({"trt_cuda_graph_enable": "1"} if cuda_graph else {}),
    }


def _open(onnxruntime: Any, data: bytes, name: str, threads: int, providers: list[Any]) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = FATAL_ONLY
    # Threads that spin while they wait were no faster alone, slower on a busy machine, and take the cores
    # that the work after the network needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Sessions lend each other what they do not use; left alone each keeps the most that it ever needed.
    _share_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    # External weights would be looked for in the working directory. Nothing can lie below this one.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        return onnxruntime.InferenceSession(data, options, providers=providers)
    except Exception as error:  # its errors share no base class of their own
        raise InvalidInput(f"{name}: expected an ONNX model: {_first_line(error)}") from error


@functools.cache
def _share_memory() -> None:
    """Have all sessions of the process take the CPU's memory from one place, which grows as theirs would."""
    import onnxruntime

    as_always = {
        "max_mem": 0,
        "arena_extend_strategy": 0,
        "initial_chunk_size_bytes": -1,
        "max_dead_bytes_per_chunk": -1,
    }
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg(as_always))


def _runner(native: Any, binding: Any) -> Callable[[Any], None]:
    """Return what runs a binding, given a run's options.

    ONNX Runtime's method in Python looks first whether WebGPU captures the run, which takes as long as a
    small network where the caches are cold; where what it calls then is found, that is called.
    """
    run = getattr(getattr(native, "_sess", None), "run_with_iobinding", None)
    bound = getattr(binding, "_iobinding", None)
    if run is not None and bound is not None:
        return functools.partial(run, bound)
    return functools.partial(native.run_with_iobinding, binding)


def _run_options(graph_id: str) -> Any:
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry(GRAPH_ID, graph_id)
    return options


def _smallest(spec: TensorSpec) -> Array:
    shape = [size if isinstance(size, int) else 1 for size in spec.shape]
    return np.full(shape, "", object) if spec.dtype == "string" else np.zeros(shape, element_type(spec.dtype))


def _bits(value: Any) -> Array:
    """Return a copy of a bfloat16 tensor, on the CPU or where the session put its outputs for it."""
    shape = tuple(value.shape())
    place = (ctypes.c_uint16 * int(np.prod(shape, dtype=np.int64))).from_address(value.data_ptr())
    copy: Array = np.frombuffer(memoryview(place), np.uint16).reshape(shape).copy()
    return copy


def _options(own: Any, interrupt: Interrupt | None) -> Any:
    """Return a run's options: those of a CUDA graph are its own, and it is not ended from outside."""
    return own if own is not None or interrupt is None else interrupt.run_options()


def _failure(name: str, error: Exception, interrupt: Interrupt | None) -> TrocarError:
    if interrupt is not None and interrupt.why is not None:
        return interrupt.why
    return DeviceError(f"{name}: ONNX Runtime failed: {_first_line(error)}")


def _place(buffer: Buffer, dtype: str) -> tuple[str, int, Any, tuple[int, ...], int]:
    """Return a buffer as ONNX Runtime binds it: device, its number, element type, shape, address."""
    memory = memory_of(buffer, "buffer")
    kind = _BFLOAT16 if dtype == "bfloat16" else memory.dtype.type
    return "cuda" if memory.on_device else "cpu", 0, kind, memory.shape, memory.address


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
