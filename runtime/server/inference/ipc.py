"""Memory of a GPU that clients registered by a handle of CUDA's: opened once, and let go after its last user.

A network on that GPU reads and writes it in place; for any other it is copied through memory of the host.
None of this has been run on a GPU: the tests hold the calls against a stand-in for the driver.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from trocar.runtime.device import Device
from trocar.runtime.errors import DeviceError, InvalidInput
from trocar.runtime.server.inference.span import Span
from trocar.runtime.session.base import Array, element_type
from trocar.runtime.session.cuda import IPC_HANDLE_BYTES, Driver
from trocar.runtime.session.memory import memory_of

# Sessions run on this GPU. They get addresses at multiples of so much, which cudaMalloc gives and TensorRT
# asks for: a kernel that takes one for granted and has another ends the context of the whole process.
_SESSIONS_GPU, _ALIGNMENT = 0, 256
# A tensor larger than this is not copied to the host, whose memory is the server's and not the client's.
MAX_COPY_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """A GPU in its primary context, and a stream for copies. It stays as long as the process."""

    driver: Driver
    number: int
    context: int
    stream: int

    def to_host(self, array: Array, address: int) -> None:
        """Fill an array, and return when that is done."""
        with self.driver.within(self.context):
            self.driver.to_host(array.ctypes.data, address, array.nbytes, self.stream)
            self.driver.synchronise(self.stream)

    def to_device(self, address: int, array: Array) -> None:
        """Copy an array's bytes, and return when they are there."""
        with self.driver.within(self.context):
            self.driver.to_device(address, array.ctypes.data, array.nbytes, self.stream)
            self.driver.synchronise(self.stream)


class CudaRegion:
    """Another process' memory on a GPU. It is closed when nobody uses it any more, registered or not."""

    kind = "a GPU's memory"

    def __init__(self, name: str, place: Place, address: int, size_bytes: int) -> None:
        self.name, self.device_id, self.size_bytes = name, place.number, size_bytes
        self.place, self.address = place, address
        weakref.finalize(self, _close, place, address)

    def view(self, span: Span, dtype: str, shape: tuple[int, ...], what: str) -> DeviceView:
        """Return the elements of a span, in place.

        Raises
        ------
        InvalidInput
            The span does not lie in the region.
        """
        span.require_within(self.size_bytes, what)
        return DeviceView(self, self.address + span.offset, element_type(dtype), shape, what)

    def require_whole(self) -> None:
        """Nothing shows that its owner gave it back: CUDA says no more than that nobody may."""


def _close(place: Place, address: int) -> None:
    # When the process ends the driver may be gone already; else nobody is left to hear of it.
    with contextlib.suppress(DeviceError), place.driver.within(place.context):
        place.driver.synchronise_all()  # a run that was ended may have left work behind
        place.driver.close_ipc(address)


class DeviceView:
    """An array in a region, which it keeps open."""

    def __init__(
        self, region: CudaRegion, address: int, dtype: np.dtype[Any], shape: tuple[int, ...], what: str
    ) -> None:
        self._region, self._address, self._what = region, address, what
        self.dtype, self.shape = dtype, shape

    @property
    def size_bytes(self) -> int:
        """Bytes of all elements."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Where it lies; version 3 of Numba's convention, without a stream."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._address, False),
            "strides": None,
            "version": 3,
        }

    def direct(self, device: Device) -> bool:
        """Whether a session on a device can be bound to it; else it is copied."""
        here = device.kind == "cuda" and self._region.device_id == _SESSIONS_GPU
        return here and self._address % _ALIGNMENT == 0

    def overlaps(self, other: DeviceView) -> bool:
        """Whether both share a byte."""
        return memory_of(self, self._what).overlaps(memory_of(other, other._what))

    def download(self) -> Array:
        """Return a copy on the host.

        Raises
        ------
        InvalidInput
            It is larger than `MAX_COPY_BYTES`.
        DeviceError
            The driver fails.
        """
        if self.size_bytes > MAX_COPY_BYTES:
            raise InvalidInput(
                f"{self._what}: expected at most {MAX_COPY_BYTES} bytes to copy from a GPU's memory, "
                f"got {self.size_bytes}"
            )
        array = np.empty(self.shape, self.dtype)
        self.read_into(array)
        return array

    def read_into(self, array: Array) -> None:
        """Copy into a contiguous array of this shape and dtype."""
        self._region.place.to_host(array, self._address)

    def upload(self, values: Array) -> None:
        """Copy an array of this shape from the host."""
        array = np.ascontiguousarray(values, self.dtype)
        if array.nbytes != self.size_bytes:
            raise DeviceError(f"{self._what}: expected {list(self.shape)}, got {list(values.shape)}")
        if array.nbytes:
            self._region.place.to_device(self._address, array)


class Gpus:
    """The GPUs whose memory clients register: the driver is asked for one when the first client is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[int, Place] = {}

    def open_region(self, name: str, handle: bytes, device_id: int, size_bytes: int) -> CudaRegion:
        """Open another process' memory.

        Parameters
        ----------
        name : the region's.
        handle : the bytes of a cudaIpcMemHandle_t.
        device_id : the GPU it lies on.
        size_bytes : how much of it the region has.

        Raises
        ------
        InvalidInput
            There is no such GPU, the driver does not open the handle, or the memory is smaller.
        DeviceError
            The driver fails.
        """
        if len(handle) != IPC_HANDLE_BYTES:
            raise InvalidInput(
                f"region {name!r}: expected the {IPC_HANDLE_BYTES} bytes of a cudaIpcMemHandle_t in "
                f"raw_handle, got {len(handle)}"
            )
        place = self._place(name, device_id)
        with place.driver.within(place.context):
            try:
                address = place.driver.open_ipc(handle)
            except DeviceError as error:
                raise InvalidInput(f"region {name!r}: raw_handle cannot be opened: {error}") from error
            try:
                base, there = place.driver.allocation(address)
                if address + size_bytes > base + there:
                    raise InvalidInput(
                        f"region {name!r}: expected {size_bytes} bytes behind raw_handle, "
                        f"got {base + there - address}"
                    )
                return CudaRegion(name, place, address, size_bytes)
            except BaseException:
                place.driver.close_ipc(address)
                raise

    def _place(self, name: str, device_id: int) -> Place:
        with self._lock:
            if device_id not in self._places:
                driver = Driver()
                count = driver.count()
                if not 0 <= device_id < count:
                    raise InvalidInput(
                        f"region {name!r}: expected device_id of a GPU, 0 to {count - 1}, got {device_id}"
                    )
                context = driver.retain(driver.gpu(device_id))
                with driver.within(context):
                    self._places[device_id] = Place(driver, device_id, context, driver.create_stream())
            return self._places[device_id]
