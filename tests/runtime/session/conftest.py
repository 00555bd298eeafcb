"""Stand-ins for TensorRT and for the CUDA driver, by which an engine's session is tested without a GPU.

Device memory is ordinary memory, and a stream is a queue that runs when it is waited for: what the session
forgets to copy, to wait for, or to give back shows. Nothing here shows that TensorRT itself would agree.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trocar.runtime.errors import DeviceError
from trocar.runtime.session import tensorrt
from trocar.runtime.session.base import TensorSpec
from trocar.runtime.session.cuda import Gpu

GPU = Gpu(0, "Imaginary 9000", "sm89")
AXES = ("batch", 2, 3)
INPUTS = tuple(TensorSpec(name, "float32", AXES, "batch row column") for name in ("left", "right"))
OUTPUTS = tuple(TensorSpec(name, "float32", AXES, "batch row column") for name in ("total", "difference"))
FACTS = {"flavour": "tensorrt", "library": "tensorrt 99.1", "capabilities": ["sm89"], "gpu": GPU.name}
ENGINE = {"left": [-1, 2, 3], "right": [-1, 2, 3], "total": [-1, 2, 3], "difference": [-1, 2, 3]}


class StandInDriver:
    """The calls of `trocar.runtime.session.cuda.Driver`, on ordinary memory."""

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.made = 0
        self.fails = ""

    def gpu(self, number: int = 0) -> Gpu:
        if self.fails == "gpu":
            raise DeviceError(f"expected GPU {number}, the driver knows no device")
        return GPU

    def retain(self, _gpu: Gpu) -> int:
        return 7

    def use(self, context: int) -> None:
        assert context == 7

    def allocate(self, size_bytes: int) -> int:
        self.made += 1
        block = (ctypes.c_uint8 * size_bytes)(*[0xAB] * size_bytes)
        self.memory[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def free(self, address: int) -> None:
        del self.memory[address]

    def to_device(self, address: int, host: int, size_bytes: int, stream: int) -> None:
        assert address in self.memory
        self.streams[stream].append(lambda: ctypes.memmove(address, host, size_bytes))

    def to_host(self, host: int, address: int, size_bytes: int, stream: int) -> None:
        assert address in self.memory
        self.streams[stream].append(lambda: ctypes.memmove(host, address, size_bytes))

    def create_stream(self) -> int:
        stream = 1000 + len(self.streams)
        self.streams[stream] = []
        return stream

    def destroy_stream(self, stream: int) -> None:
        del self.streams[stream]

    def synchronise(self, stream: int) -> None:
        while self.streams[stream]:
            self.streams[stream].pop(0)()


class Context:
    """An execution context of an engine that gives the sum and the difference of two inputs."""

    def __init__(self, engine: Any, driver: StandInDriver) -> None:
        self.engine, self.driver = engine, driver
        # A fixed shape need not be set, as in TensorRT.
        self.shapes = {name: tuple(shape) for name, shape in engine.tensors.items()}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return not self.engine.fails

    def get_tensor_shape(self, _name: str) -> tuple[int, ...]:
        return self.shapes["left"]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        shape, addresses = self.shapes["left"], dict(self.addresses)

        def work() -> None:
            size = int(np.prod(shape)) * 4
            arrays = {
                name: np.frombuffer((ctypes.c_uint8 * size).from_address(at), np.float32).reshape(shape)
                for name, at in addresses.items()
            }
            arrays["total"][...] = arrays["left"] + arrays["right"]
            arrays["difference"][...] = arrays["left"] - arrays["right"]

        self.driver.streams[stream].append(work)
        return not self.engine.fails


class Engine:
    """What a stand-in runtime loads: tensors by name from JSON."""

    def __init__(self, document: dict[str, Any], log: Any, driver: StandInDriver) -> None:
        self.tensors = document["tensors"]
        self.dtype = document.get("dtype", "FLOAT")
        self.fails = document.get("fails", "")
        self.num_io_tensors = len(self.tensors)
        self.log, self.driver = log, driver

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return SimpleNamespace(name="INPUT" if name in ("left", "right") else "OUTPUT")

    def get_tensor_dtype(self, _name: str) -> Any:
        return SimpleNamespace(name=self.dtype)

    def get_tensor_shape(self, name: str) -> list[int]:
        return self.tensors[name]

    def get_tensor_profile_shape(self, _name: str, profile: int) -> list[tuple[int, ...]]:
        assert profile == 0
        return [(1, 2, 3), (1, 2, 3), (8, 2, 3)]

    def create_execution_context(self) -> Context | None:
        if self.fails:
            self.log.log(1, f"{self.fails}\n  in two lines")
        return None if self.fails == "no memory" else Context(self, self.driver)


def stand_in_module(driver: StandInDriver, version: str) -> ModuleType:
    """The part of `tensorrt` that a session uses."""
    module = ModuleType("tensorrt")
    module.__version__ = version

    class ILogger:
        Severity = SimpleNamespace(ERROR=1)

    class Runtime:
        def __init__(self, log: Any) -> None:
            self.log = log

        def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
            try:
                return Engine(json.loads(data), self.log, driver)
            except ValueError:
                self.log.log(2, "a warning is not why")
                self.log.log(1, "Serialization assertion\nmagicTag == rt::kMAGIC_TAG failed")
                return None

    module.ILogger, module.Runtime = ILogger, Runtime
    return module


@pytest.fixture
def driver() -> StandInDriver:
    return StandInDriver()


@pytest.fixture
def open_pair_engine(monkeypatch: pytest.MonkeyPatch, driver: StandInDriver) -> Callable[..., Any]:
    """Open an engine by stand-ins: `open_pair_engine(library version, bytes of the engine, facts=...)`."""

    def use(version: str = "99.1", data: bytes | None = None, **changes: Any) -> Any:
        monkeypatch.setattr(tensorrt, "Driver", lambda: driver)
        monkeypatch.setitem(__import__("sys").modules, "tensorrt", stand_in_module(driver, version))
        content = json.dumps({"tensors": ENGINE}).encode() if data is None else data
        asked = {"facts": FACTS, "inputs": INPUTS, "outputs": OUTPUTS, "name": "m.engine", **changes}
        return tensorrt.open_engine(content, **asked)

    return use
