"""A library with the classes of TensorRT that an engine's build uses; it records what it is asked.

A test copies this file as `tensorrt.py` to where Python finds it. What it does depends on words in the model.
"""

from __future__ import annotations

import json
import os
import signal
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__version__ = os.environ.get("STAND_IN_VERSION", "99.1")
CALLS: list[list[Any]] = []


def record(*call: Any) -> None:
    CALLS.append(list(call))
    if path := os.environ.get("STAND_IN_CALLS"):
        with Path(path).open("a") as file:
            file.write(json.dumps(call) + "\n")


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class LayerInformationFormat(IntEnum):
    JSON = 1


class ComputeCapability(IntEnum):
    NONE = 0
    SM86 = 86
    SM89 = 89


class ILogger:
    Severity = SimpleNamespace(ERROR=1)


class IProgressMonitor:
    pass


class Tensor:
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape, self.dtype = name, shape, SimpleNamespace(name="HALF")


class Network:
    def __init__(self) -> None:
        self.inputs = [Tensor("image", (-1, 3, 8, 8)), Tensor("threshold", (1,)), Tensor("scale", ())]
        self.num_inputs, self.num_layers = 3, 1
        self.model = b""

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]

    def get_layer(self, _index: int) -> Any:
        output = Tensor("logits", (-1, 5, 8, 8))
        kind = SimpleNamespace(name="CONVOLUTION")
        return SimpleNamespace(name="head", type=kind, num_outputs=1, get_output=lambda _index: output)


class OnnxParser:
    def __init__(self, network: Network, _log: Any) -> None:
        self.network = network
        self.num_errors = 1

    def parse(self, model: bytes) -> bool:
        record("parse", len(model))
        self.network.model = model
        if b"crash" in model:
            print("the compiler says something first", flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        if b"raise" in model:
            raise RuntimeError("out of\nmemory")
        if b"two dynamic axes" in model:
            self.network.inputs[0].shape = (-1, 3, -1, 8)
        return b"unreadable" not in model

    def get_error(self, _index: int) -> Any:
        return SimpleNamespace(
            node_name=lambda: "conv_7", node_operator=lambda: "Conv", desc=lambda: "no\nsuch padding"
        )


class Config:
    num_compute_capabilities = 0

    def __init__(self) -> None:
        self.timings = b""

    def set_compute_capability(self, capability: ComputeCapability, index: int) -> None:
        record("capability", index, self.num_compute_capabilities, capability.name)

    def add_optimization_profile(self, profile: Any) -> None:
        record("profile", profile.shapes)

    def create_timing_cache(self, known: bytes) -> Any:
        self.timings = known
        return SimpleNamespace(serialize=lambda: self.timings + b"timed;")

    def set_timing_cache(self, _timings: Any, ignore_mismatch: bool) -> None:
        record("timings", self.timings.decode(), ignore_mismatch)


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
        self.shapes[name] = [low, best, high]


class Builder:
    def __init__(self, log: Any) -> None:
        self.log = log

    def create_network(self, flags: int) -> Network:
        record("network", flags)
        return Network()

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        record("build")
        print("a library that talks on stdout", flush=True)
        if monitor := getattr(config, "progress_monitor", None):
            monitor.phase_start("Building", None, 2)
            assert monitor.step_complete("Building", 0)
            monitor.phase_finish("Building")
        if b"unbuildable" in network.model:
            self.log.log(2, "a warning is not why")
            self.log.log(1, "node 'conv_7' has no\n  implementation")
            return None
        return b"engine of " + network.model


class Runtime:
    def __init__(self, _log: Any) -> None:
        record("runtime")

    def deserialize_cuda_engine(self, engine: bytes) -> Any:
        if b"opaque" in engine:
            return None
        detailed = {"Name": "head+relu", "LayerType": "gemm", "Outputs": [{"Name": "logits"}]}
        text = json.dumps({"Layers": ["stem", detailed]})
        return SimpleNamespace(
            create_engine_inspector=lambda: SimpleNamespace(get_engine_information=lambda _format: text)
        )
