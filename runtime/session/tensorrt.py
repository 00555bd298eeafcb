"""Engines of TensorRT and TensorRT-RTX: a session on buffers of the caller's, in a stream of the caller's.

No engine was run where this was written, for want of a GPU: the tests hold it against a stand-in for the
library and for the driver.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trocar.runtime.device import Device
from trocar.runtime.errors import DeviceError, InvalidInput, ManifestMismatch
from trocar.runtime.session.base import Array, Buffer, TensorSpec, check_bound, check_feeds
from trocar.runtime.session.cuda import Driver, Gpu
from trocar.runtime.session.lane import Lane, Loaded, load
from trocar.runtime.session.memory import memory_of

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
EXTRAS = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
DTYPES = {
    "BOOL": "bool",
    "FLOAT": "float32",
    "HALF": "float16",
    "INT32": "int32",
    "INT64": "int64",
    "INT8": "int8",
    "UINT8": "uint8",
}
# CUDA's names of the default stream: the null one, the legacy one, and a thread's.
DEFAULT_STREAMS = (0, 1, 2)


def open_engine(
    data: bytes,
    *,
    facts: Mapping[str, Any],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    name: str = "engine",
) -> TensorRTSession:
    """Open an engine on the first GPU.

    Parameters
    ----------
    data : the file's content, checked against a manifest: an engine is native code, and nothing else
        vouches for it.
    facts : what the manifest says of it; `flavour`, `library`, `capabilities` and `gpu` are needed. They are
        held against what is here before the library sees a byte.
    inputs, outputs : the manifest's tensors; an engine does not keep the names of axes.
    name : begins every message.

    Raises
    ------
    DeviceError
        The library is missing or of another version, there is no GPU, or it is not one that the engine was
        built for.
    ManifestMismatch
        The library refuses the engine, or the engine's tensors are not the manifest's.
    """
    trt = _library(facts, name)
    # Without a GPU a TensorRT may crash as its runtime is made: the driver is asked first.
    driver = Driver()
    gpu = driver.gpu()
    _require_gpu(facts, gpu, name)
    loaded = load(trt, data, driver, driver.retain(gpu), name)
    _require_tensors(loaded.engine, inputs, outputs, name)
    return TensorRTSession(trt, loaded, gpu, inputs, outputs)


class TensorRTSession:
    """An engine that is ready to run. `open_engine` makes it.

    `run` and `run_into` share one execution context under a lock: threads run one after the other. Each
    binding has one of its own, since a context must not be in two streams at once.
    """

    def __init__(
        self,
        trt: Any,
        loaded: Loaded,
        gpu: Gpu,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.provider: str = trt.__name__
        self.device = Device("cuda", gpu.name, f"the engine is built for {gpu.capability}")
        self._loaded = loaded
        self._lane = Lane(loaded)
        self._stream = loaded.driver.create_stream()
        weakref.finalize(self, _give_back, loaded, self._stream)
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once, in the session's own stream; see `Session.run`."""
        check_feeds(self.inputs, feeds)
        arrays: dict[str, Buffer] = {
            spec.name: np.ascontiguousarray(feeds[spec.name]).reshape(feeds[spec.name].shape)
            for spec in self.inputs
        }
        with self._lock:
            shapes = self._shapes(self._lane, arrays)
            answer = {spec.name: np.empty(shapes[spec.name], spec.dtype) for spec in self.outputs}
            self._lane.attach(arrays, answer)
            self._finish(self._lane)
        return answer

    def bind(
        self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer], *, stream: int | None = None
    ) -> TensorRTBinding:
        """Take the caller's buffers for any number of runs; see `Session.bind`.

        Parameters
        ----------
        feeds, outputs : device arrays are read and written where they lie; NumPy's are copied.
        stream : a CUDA stream's handle, never the default one. `Binding.run` then only puts its work into
            that stream, in order, and the caller waits for it. None is the session's own, and is waited for.
        """
        if stream is not None and stream in DEFAULT_STREAMS:
            raise InvalidInput(f"expected a stream of the caller's, got the default stream ({stream})")
        check_bound(self.inputs, self.outputs, feeds, outputs, device=self.device)
        lane = Lane(self._loaded)
        self._attach(lane, feeds, outputs)
        return TensorRTBinding(self, lane, stream)

    def run_into(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        """Run once into the caller's buffers; see `Session.run_into`."""
        check_bound(self.inputs, self.outputs, feeds, outputs, device=self.device)
        with self._lock:
            self._attach(self._lane, feeds, outputs)
            self._finish(self._lane)

    def _attach(self, lane: Lane, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        for name, shape in self._shapes(lane, feeds).items():
            if (given := memory_of(outputs[name], name).shape) != shape:
                raise InvalidInput(f"output {name}: expected shape {list(shape)}, got {list(given)}")
        lane.attach(feeds, outputs)

    def _shapes(self, lane: Lane, feeds: Mapping[str, Buffer]) -> dict[str, tuple[int, ...]]:
        shapes = {name: memory_of(buffer, name).shape for name, buffer in feeds.items()}
        return lane.set_shapes(shapes, [spec.name for spec in self.outputs])

    def _finish(self, lane: Lane) -> None:
        """Run in the session's own stream, and wait."""
        lane.enqueue(self._stream)
        self._loaded.driver.synchronise(self._stream)


class TensorRTBinding:
    """An engine on buffers of the caller's, which it keeps alive. `TensorRTSession.bind` makes it."""

    def __init__(self, session: TensorRTSession, lane: Lane, stream: int | None) -> None:
        self._session = session
        self._lane = lane
        self._stream = stream

    def run(self) -> None:
        """Run once; see `Binding.run` and `TensorRTSession.bind`."""
        if self._stream is None:
            self._session._finish(self._lane)
        else:
            self._lane.enqueue(self._stream)


def _give_back(loaded: Loaded, stream: int) -> None:
    with contextlib.suppress(DeviceError):  # nobody is left to hear of it
        loaded.driver.use(loaded.context)
        loaded.driver.destroy_stream(stream)


def _library(facts: Mapping[str, Any], name: str) -> Any:
    """Import the library the engine is for, of the version that built it."""
    flavour, wanted = facts["flavour"], facts["library"]
    if flavour not in MODULES:
        raise ManifestMismatch(f"{name}: expected an engine of {', '.join(MODULES)}, got {flavour!r:.80}")
    try:
        trt = importlib.import_module(MODULES[flavour])
    except Exception as error:  # its libraries are loaded as it is imported
        raise DeviceError(
            f"{name}: needs {wanted}, which does not load ({' '.join(str(error).split())}): "
            f"pip install 'trocar[{EXTRAS[flavour]}]'"
        ) from error
    found = f"{trt.__name__} {trt.__version__}"
    if found != wanted:
        raise DeviceError(f"{name}: expected {wanted}, which built the engine, got {found}; build it again")
    return trt


def _require_gpu(facts: Mapping[str, Any], gpu: Gpu, name: str) -> None:
    if gpu.capability not in facts["capabilities"]:
        raise DeviceError(
            f"{name}: expected a GPU of {', '.join(facts['capabilities'])}, for which the engine is built, "
            f"got {gpu.name} ({gpu.capability})"
        )
    if facts["gpu"] not in ("", gpu.name):
        raise DeviceError(f"{name}: expected {facts['gpu']}, on which the engine was tuned, got {gpu.name}")


def _require_tensors(
    engine: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], name: str
) -> None:
    """Hold the engine's tensors against the manifest's, axis names apart."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    for specs, mode in ((inputs, "INPUT"), (outputs, "OUTPUT")):
        found = sorted(each for each in names if engine.get_tensor_mode(each).name == mode)
        wanted = sorted(spec.name for spec in specs)
        if found != wanted:
            raise ManifestMismatch(
                f"{name}: expected {mode.lower()}s {', '.join(wanted)}, got {', '.join(found)}"
            )
        for spec in specs:
            dtype = DTYPES.get(engine.get_tensor_dtype(spec.name).name, "?")
            shape = [None if size < 0 else size for size in engine.get_tensor_shape(spec.name)]
            if (dtype, shape) != (
                spec.dtype,
                [size if isinstance(size, int) else None for size in spec.shape],
            ):
                got = TensorSpec(spec.name, dtype, tuple(shape))
                raise ManifestMismatch(f"{name}: {spec.name}: expected {spec}, got {got}")
