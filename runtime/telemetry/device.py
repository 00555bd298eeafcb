"""How much memory of the GPU is in use, as the driver says it."""

from __future__ import annotations

from collections.abc import Iterator

from trocar.runtime.errors import DeviceError
from trocar.runtime.session.cuda import Driver, Gpu
from trocar.runtime.telemetry import Family


class DeviceMemory:
    """Memory of the first GPU, of all processes together; nothing where this process does not use it.

    Asking needs a context, and to make one for the answer would itself take hundreds of megabytes.
    """

    def __init__(self) -> None:
        self._found: tuple[Driver, Gpu] | None = None
        self._asked = False
        self._context = 0

    def read(self) -> Iterator[Family]:
        """Ask the driver; see `trocar.runtime.telemetry.Telemetry.collect`."""
        if not self._asked:
            self._asked, self._found = True, _find()
        if self._found is None:
            return
        driver, gpu = self._found
        if not driver.in_use(gpu):
            return
        self._context = self._context or driver.retain(gpu)
        driver.use(self._context)
        free, whole = driver.memory()
        yield Family(
            "trocar_device_memory_bytes",
            "gauge",
            "Memory of the GPU, of all processes together.",
            ("device", "state"),
            [((str(gpu.number), "used"), float(whole - free)), ((str(gpu.number), "free"), float(free))],
        )


def _find() -> tuple[Driver, Gpu] | None:
    try:
        driver = Driver()
        return driver, driver.gpu()
    except DeviceError:
        return None
