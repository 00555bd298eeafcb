"""What an engine is built from and for, and what is known of it afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trocar.runtime.errors import InvalidInput

# By name: the module to import, and the extra that installs it.
FLAVOURS: Mapping[str, tuple[str, str]] = {
    "tensorrt": ("tensorrt", "tensorrt"),
    "tensorrt-rtx": ("tensorrt_rtx", "rtx"),
}
PRECISIONS = ("fp32", "fp16", "int8")
# SM75 has no 3D convolution in float32, and SM121 is one board: both can be asked for.
RTX_CAPABILITIES = ("sm80", "sm86", "sm89", "sm120")


@dataclass(frozen=True, slots=True)
class Profile:
    """Batch sizes that an engine takes; `opt` is the one it is tuned for. All alike: a static engine."""

    min: int = 1
    opt: int = 1
    max: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise InvalidInput(
                f"expected batches 1 <= min <= opt <= max, got {self.min}, {self.opt}, {self.max}"
            )


DEFAULT_PROFILE = Profile()


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its name, its kind, and its outputs as `name dtype [shape]` where they are known."""

    name: str
    kind: str
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """A built engine, and what it was built from and for.

    TensorRT-RTX gives the same bytes again for one batch size; for several, names of inner values may differ.

    Parameters
    ----------
    engine : the file's content. It is native code in effect: load none that nobody vouches for.
    flavour, precision, profile : as asked for.
    library : the module and its version; no other version is promised to load the engine.
    capabilities : GPU generations that it runs on, such as `sm89`.
    gpu : the GPU that TensorRT tuned it on; empty for TensorRT-RTX, which tunes where it runs.
    model_sha256 : of the ONNX file.
    layers : what the inspector of the engine says; the parsed network's layers where that needs a GPU.
    layers_from : `engine` or `network`.
    build_seconds : what the build took, when it was built.
    cached : whether it came from the cache.
    """

    engine: bytes
    flavour: str
    precision: str
    profile: Profile
    library: str
    capabilities: tuple[str, ...]
    gpu: str
    model_sha256: str
    layers: tuple[Layer, ...]
    layers_from: str
    build_seconds: float
    cached: bool

    @property
    def sha256(self) -> str:
        """SHA-256 of the engine."""
        return hashlib.sha256(self.engine).hexdigest()

    @property
    def variant(self) -> str:
        """A name for it, such as `tensorrt-rtx-fp16-sm80-sm89`."""
        return "-".join((self.flavour, self.precision, *self.capabilities))

    @property
    def file_name(self) -> str:
        """The file's name beside a manifest."""
        return f"model.{self.variant}.engine"

    def document(self) -> dict[str, Any]:
        """Return what a manifest says of it, as JSON; the same build gives the same document."""
        return {
            "flavour": self.flavour,
            "library": self.library,
            "precision": self.precision,
            "capabilities": list(self.capabilities),
            "gpu": self.gpu,
            "batch": [self.profile.min, self.profile.opt, self.profile.max],
            "model_sha256": self.model_sha256,
            "layers": len(self.layers),
        }
