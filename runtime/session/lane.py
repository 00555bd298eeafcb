"""An engine in a stream: one execution context of TensorRT with the addresses of its tensors."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trocar.runtime.errors import DeviceError, InvalidInput, ManifestMismatch
from trocar.runtime.session.cuda import Driver
from trocar.runtime.session.memory import Buffer, memory_of


@dataclass(frozen=True, slots=True)
class Loaded:
    """An engine in a GPU's context; the runtime that loaded it must live as long."""

    driver: Driver
    context: int
    log: Any
    runtime: Any
    engine: Any
    name: str


def load(trt: Any, data: bytes, driver: Driver, context: int, name: str) -> Loaded:
    """Load an engine.

    Raises
    ------
    ManifestMismatch
        The library refuses it.
    """
    driver.use(context)
    log = _make_log(trt)
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise ManifestMismatch(f"{name}: {trt.__name__} refuses the engine: {log.error}")
    return Loaded(driver, context, log, runtime, engine, name)


class Lane:
    """An execution context. One thread at a time, and one stream until that is done."""

    def __init__(self, loaded: Loaded) -> None:
        loaded.driver.use(loaded.context)
        self._loaded = loaded
        self._native = loaded.engine.create_execution_context()
        if self._native is None:
            raise DeviceError(f"{loaded.name}: no execution context: {loaded.log.error}")
        # Device memory by tensor: address and bytes.
        self._held: dict[str, tuple[int, int]] = {}
        self._uploads: list[tuple[int, int, int]] = []
        self._downloads: list[tuple[int, int, int]] = []
        self._kept: tuple[object, ...] = ()
        weakref.finalize(self, _free, loaded.driver, loaded.context, self._held)

    def set_shapes(
        self, shapes: Mapping[str, tuple[int, ...]], outputs: Sequence[str]
    ) -> dict[str, tuple[int, ...]]:
        """Set the inputs' shapes; return the outputs'.

        Raises
        ------
        InvalidInput
            The engine is not built for such a shape.
        """
        loaded = self._loaded
        loaded.driver.use(loaded.context)
        for name, shape in shapes.items():
            if -1 not in tuple(loaded.engine.get_tensor_shape(name)):
                continue
            least, _, most = (tuple(each) for each in loaded.engine.get_tensor_profile_shape(name, 0))
            if not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
                raise InvalidInput(
                    f"input {name}: expected {list(least)} to {list(most)}, for which the engine is built, "
                    f"got {list(shape)}"
                )
            if not self._native.set_input_shape(name, shape):
                raise DeviceError(f"{loaded.name}: {list(shape)} refused for {name}: {loaded.log.error}")
        return {name: tuple(self._native.get_tensor_shape(name)) for name in outputs}

    def attach(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        """Take buffers, which are kept alive: device memory as it is, memory of the host by copies."""
        self._loaded.driver.use(self._loaded.context)
        self._kept = (*feeds.values(), *outputs.values())
        self._uploads, self._downloads = [], []
        for buffers, copies in ((feeds, self._uploads), (outputs, self._downloads)):
            for name, buffer in buffers.items():
                memory = memory_of(buffer, name)
                address = memory.address
                if not memory.on_device:
                    address = self._hold(name, memory.size_bytes)
                    copies.append((address, memory.address, memory.size_bytes))
                if not self._native.set_tensor_address(name, address):
                    raise DeviceError(
                        f"{self._loaded.name}: {name}: address refused: {self._loaded.log.error}"
                    )

    def enqueue(self, stream: int) -> None:
        """Put the copies and the network into a stream, in order.

        Raises
        ------
        DeviceError
            The library or the driver refuses.
        """
        driver = self._loaded.driver
        driver.use(self._loaded.context)
        for address, host, size_bytes in self._uploads:
            driver.to_device(address, host, size_bytes, stream)
        if not self._native.execute_async_v3(stream):
            raise DeviceError(f"{self._loaded.name}: the engine failed: {self._loaded.log.error}")
        for address, host, size_bytes in self._downloads:
            driver.to_host(host, address, size_bytes, stream)

    def _hold(self, name: str, size_bytes: int) -> int:
        """Return device memory for a tensor that the caller holds on the host; it is kept, and grows."""
        address, size = self._held.get(name, (0, 0))
        if size < size_bytes:
            if size:
                self._loaded.driver.free(self._held.pop(name)[0])
            address = self._loaded.driver.allocate(size_bytes)
            self._held[name] = (address, size_bytes)
        return address


def _free(driver: Driver, context: int, held: Mapping[str, tuple[int, int]]) -> None:
    """Give device memory back, which waits for what still uses it."""
    with contextlib.suppress(DeviceError):  # nobody is left to hear of it
        driver.use(context)
        for address, _ in held.values():
            driver.free(address)


def _make_log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps the last error for the message."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.error = "it does not say why"

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                self.error = " ".join(message.split())

    return Log()
