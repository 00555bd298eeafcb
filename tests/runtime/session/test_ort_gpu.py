"""What is asked of ONNX Runtime on a GPU, held against a stand-in: there was no GPU to run on."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from trocar.runtime.device import Device
from trocar.runtime.errors import DeviceError, InvalidInput
from trocar.runtime.session import ort

GPU = Device("cuda", "Imaginary 9000", "the driver has it")
NO_TENSORRT = "libnvinfer.so.10 is not there"


class Native:
    """A native session that says it runs on `provider`, fails where told to, and keeps what it was asked."""

    def __init__(self, provider: str, failure: str = "") -> None:
        self.provider = provider
        self.failure = failure
        self.bound: list[tuple[Any, ...]] = []
        self.graph_ids: list[str | None] = []
        self.synchronised = 0

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="x", type="tensor(float)", shape=["batch", 3])]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="y", type="tensor(float)", shape=["batch", 3])]

    def get_providers(self) -> list[str]:
        return [self.provider]

    def run(self, names: list[str], feeds: dict[str, Any], options: Any) -> list[Any]:
        self._ran(options)
        return [feeds["x"] for _ in names]

    def run_with_iobinding(self, _binding: Any, options: Any) -> None:
        self._ran(options)

    def io_binding(self) -> SimpleNamespace:
        def bind(kind: str) -> Callable[..., None]:
            return lambda name, *place: self.bound.append((kind, name, *place))

        def synchronise() -> None:
            self.synchronised += 1

        return SimpleNamespace(
            bind_input=bind("input"), bind_output=bind("output"), synchronize_outputs=synchronise
        )

    def _ran(self, options: Any) -> None:
        if self.failure:
            raise RuntimeError(self.failure)
        entry = None if options is None else options.get_run_config_entry("gpu_graph_id")
        self.graph_ids.append(entry)


class Opened:
    """What `onnxruntime.InferenceSession` was called with, and what it gives by its first provider."""

    def __init__(self, natives: dict[str, Native]) -> None:
        self.natives = {ort.CPU: Native(ort.CPU), **natives}
        self.providers: list[list[Any]] = []

    def __call__(self, _data: bytes, _options: Any, providers: list[Any]) -> Native:
        self.providers.append(providers)
        first = providers[0] if isinstance(providers[0], str) else providers[0][0]
        return self.natives[first]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Opened]:
    """A driver with a device: `gpu(cuda=..., tensorrt=...)` are the sessions that these providers give."""

    def use(**natives: Native) -> Opened:
        names = {"cuda": ort.CUDA, "tensorrt": ort.TENSORRT}
        opened = Opened({names[key]: native for key, native in natives.items()})
        monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
        monkeypatch.setattr(ort, "tensorrt_failure", lambda: None if "tensorrt" in natives else NO_TENSORRT)
        monkeypatch.setattr(
            ort, "choose_device", lambda wanted, _providers: GPU if wanted != "cpu" else ort.cpu("asked for")
        )
        return opened

    return use


def device_array(address: int, shape: tuple[int, ...] = (1, 3)) -> SimpleNamespace:
    facts = {"shape": shape, "typestr": "<f4", "data": (address, False), "version": 3}
    return SimpleNamespace(__cuda_array_interface__=facts)


def test_tensorrt_comes_before_cuda(gpu: Any) -> None:
    opened = gpu(tensorrt=Native(ort.TENSORRT), cuda=Native(ort.CUDA))
    session = ort.open_session(b"")
    assert session.provider == ort.TENSORRT
    assert str(session.device) == "cuda (Imaginary 9000): the driver has it, and TensorRT works"
    (first, options), (second, _), last = opened.providers[0]
    assert (first, second, last) == (ort.TENSORRT, ort.CUDA, ort.CPU)
    assert options["trt_engine_cache_enable"] == "1"
    assert options["trt_engine_cache_path"].endswith("/trocar/onnxruntime-tensorrt")


@pytest.mark.parametrize(
    ("tensorrt", "why"),
    [
        ({}, NO_TENSORRT),
        ({"tensorrt": Native(ort.CUDA)}, "ONNX Runtime gave CUDAExecutionProvider"),
        ({"tensorrt": Native(ort.TENSORRT, "no kernel")}, "model: ONNX Runtime failed: no kernel"),
    ],
)
def test_cuda_is_named_when_a_run_went_through(gpu: Any, tensorrt: dict[str, Native], why: str) -> None:
    gpu(cuda=Native(ort.CUDA), **tensorrt)
    session = ort.open_session(b"")
    assert session.provider == ort.CUDA
    assert str(session.device) == f"cuda (Imaginary 9000): the driver has it; no TensorRT: {why}"


@pytest.mark.parametrize(
    ("native", "why"),
    [
        (Native(ort.CPU), "ONNX Runtime gave CPUExecutionProvider"),
        (Native(ort.CUDA, "no libcudnn"), "ONNX Runtime failed: no libcudnn"),
    ],
)
def test_cuda_that_does_not_work_is_not_named(gpu: Any, native: Native, why: str) -> None:
    gpu(cuda=native)
    session = ort.open_session(b"")
    assert (session.provider, session.device.kind) == (ort.CPU, "cpu")
    assert "Imaginary 9000 does not work" in session.device.why
    assert why in session.device.why
    with pytest.raises(DeviceError, match=why):
        ort.open_session(b"", device="cuda")


def test_libraries_that_are_missing_are_not_printed(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the caller prints, such as `trocar serve --json`, is all that is on stdout."""
    gpu(cuda=Native(ort.CUDA))
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcublasLt.so.13"))
    ort.open_session(b"")
    assert capsys.readouterr().out == ""


def test_what_is_no_model_is_no_fault_of_the_gpu(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(cuda=Native(ort.CUDA))

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("protobuf parsing failed")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    for device in ("auto", "cuda"):
        with pytest.raises(InvalidInput, match="model: expected an ONNX model: protobuf parsing failed"):
            ort.open_session(b"", device=device)


def test_device_arrays_are_bound_once_and_host_arrays_each_run(gpu: Any) -> None:
    native = Native(ort.CUDA)
    gpu(cuda=native)
    session = ort.open_session(b"")
    x, y = np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32)
    binding = session.bind({"x": x}, {"y": device_array(4096)})
    binding.run()
    binding.run()
    host = ("input", "x", "cpu", 0, np.float32, (1, 3), x.ctypes.data)
    on_gpu = ("output", "y", "cuda", 0, np.float32, (1, 3), 4096)
    assert native.bound == [host, on_gpu, host, host]
    native.bound.clear()
    binding = session.bind({"x": device_array(8192)}, {"y": y})
    binding.run()
    on_gpu = ("input", "x", "cuda", 0, np.float32, (1, 3), 8192)
    assert native.bound == [on_gpu, ("output", "y", "cpu", 0, np.float32, (1, 3), y.ctypes.data)]
    assert native.synchronised == 3


def test_without_cuda_graphs_nothing_is_captured(gpu: Any) -> None:
    native = Native(ort.CUDA)
    opened = gpu(cuda=native)
    session = ort.open_session(b"")
    session.run({"x": np.zeros((1, 3), np.float32)})
    session.bind({"x": device_array(4096)}, {"y": device_array(8192)}).run()
    assert native.graph_ids == [None] * 3
    assert opened.providers[-1][0] == (ort.CUDA, {})


def test_a_binding_captures_a_cuda_graph_of_its_own(gpu: Any) -> None:
    native = Native(ort.CUDA)
    opened = gpu(cuda=native)
    session = ort.open_session(b"", cuda_graph=True)
    assert opened.providers[-1][0] == (ort.CUDA, {"enable_cuda_graph": "1"})
    first, second = (
        session.bind({"x": device_array(4096, (size, 3))}, {"y": device_array(8192, (size, 3))})
        for size in (1, 2)
    )
    for binding in (first, first, second):
        binding.run()
    session.run({"x": np.zeros((1, 3), np.float32)})
    session.run_into({"x": device_array(4096)}, {"y": device_array(8192)})
    assert native.graph_ids == ["-1", "1", "1", "2", "-1", "-1"]
    with pytest.raises(InvalidInput, match="y: expected a device array, since a CUDA graph copies none"):
        session.bind({"x": device_array(4096)}, {"y": np.zeros((1, 3), np.float32)})


def test_strided_and_overlapping_device_arrays_are_refused(gpu: Any) -> None:
    gpu(cuda=Native(ort.CUDA))
    session = ort.open_session(b"")
    strided = device_array(4096, (2, 3))
    strided.__cuda_array_interface__["strides"] = (16, 4)
    with pytest.raises(InvalidInput, match="input x: expected a C-contiguous array"):
        session.bind({"x": strided}, {"y": device_array(8192, (2, 3))})
    strided.__cuda_array_interface__["strides"] = (12, 4)
    with pytest.raises(InvalidInput, match="output y: expected memory of its own, got some of input x"):
        session.bind({"x": strided}, {"y": device_array(4096 + 20, (2, 3))})
    session.bind({"x": strided}, {"y": device_array(4096 + 24, (2, 3))})
