"""The CUDA driver, asked through ctypes: which GPU there is, memory on it, streams.

Only what a session needs; no toolkit and no package has to be installed for it, the driver is enough.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from trocar.runtime.errors import DeviceError

LIBRARY = "libcuda.so.1"
_NAME_BYTES = 256
# CUdevice_attribute COMPUTE_CAPABILITY_MAJOR and _MINOR; CU_STREAM_NON_BLOCKING: no waiting for the default
# stream, which is everybody's. CU_MEMHOSTALLOC_PORTABLE: pinned for every context.
_MAJOR, _MINOR, _NON_BLOCKING, _PORTABLE = 75, 76, 1, 1
# CU_IPC_HANDLE_SIZE; CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS, the one flag that there is for opening.
IPC_HANDLE_BYTES, _PEER_ACCESS = 64, 1
_int, _pointer, _size, _address = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64


class _IpcHandle(ctypes.Structure):
    """CUipcMemHandle, which is passed by value."""

    _fields_ = (("reserved", ctypes.c_ubyte * IPC_HANDLE_BYTES),)


# Addresses and handles have 64 bits, which ctypes would cut to 32 where it is not told.
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuDeviceGetCount": (_pointer,),
    "cuDeviceGet": (_pointer, _int),
    "cuDeviceGetName": (_pointer, _int, _int),
    "cuDeviceGetAttribute": (_pointer, _int, _int),
    "cuDevicePrimaryCtxGetState": (_int, _pointer, _pointer),
    "cuDevicePrimaryCtxRetain": (_pointer, _int),
    "cuCtxSetCurrent": (_pointer,),
    "cuCtxPushCurrent_v2": (_pointer,),
    "cuCtxPopCurrent_v2": (_pointer,),
    "cuCtxSynchronize": (),
    "cuMemGetInfo_v2": (_pointer, _pointer),
    "cuMemAlloc_v2": (_pointer, _size),
    "cuMemHostAlloc": (_pointer, _size, ctypes.c_uint),
    "cuMemFreeHost": (_pointer,),
    "cuMemFree_v2": (_address,),
    "cuMemGetAddressRange_v2": (_pointer, _pointer, _address),
    "cuIpcOpenMemHandle_v2": (_pointer, _IpcHandle, ctypes.c_uint),
    "cuIpcCloseMemHandle": (_address,),
    "cuMemcpyHtoDAsync_v2": (_address, _pointer, _size, _pointer),
    "cuMemcpyDtoHAsync_v2": (_pointer, _address, _size, _pointer),
    "cuStreamCreate": (_pointer, ctypes.c_uint),
    "cuStreamSynchronize": (_pointer,),
    "cuStreamDestroy_v2": (_pointer,),
    "cuGetErrorName": (_int, _pointer),
}


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU: its number, its name, and its generation, such as `sm89`."""

    number: int
    name: str
    capability: str


def find_gpu(number: int = 0) -> Gpu | str:
    """Ask the driver for a GPU; a reason where there is none."""
    try:
        return Driver().gpu(number)
    except DeviceError as error:
        return str(error)


class Driver:
    """The driver's functions, each of which raises `DeviceError` with what the driver answers."""

    def __init__(self) -> None:
        try:
            self._library: Any = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise DeviceError(f"{LIBRARY} is not there") from error
        self._call("cuInit", 0)

    def count(self) -> int:
        """Return how many GPUs there are."""
        count = _int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        return int(count.value)

    def gpu(self, number: int = 0) -> Gpu:
        """Return a GPU.

        Raises
        ------
        DeviceError
            There are not so many.
        """
        handle, major, minor = _int(), _int(), _int()
        name = ctypes.create_string_buffer(_NAME_BYTES)
        count = self.count()
        if not 0 <= number < count:
            raise DeviceError(f"expected GPU {number}, the driver knows {count or 'no device'}")
        self._call("cuDeviceGet", ctypes.byref(handle), number)
        self._call("cuDeviceGetName", name, _NAME_BYTES, handle)
        self._call("cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, handle)
        self._call("cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, handle)
        return Gpu(number, name.value.decode(errors="replace"), f"sm{major.value}{minor.value}")

    def retain(self, gpu: Gpu) -> int:
        """Return the GPU's primary context, which other libraries of the process share."""
        handle, context = _int(), _pointer()
        self._call("cuDeviceGet", ctypes.byref(handle), gpu.number)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), handle)
        return int(context.value or 0)

    def in_use(self, gpu: Gpu) -> bool:
        """Whether something in this process has the GPU's primary context."""
        handle, flags, active = _int(), ctypes.c_uint(), _int()
        self._call("cuDeviceGet", ctypes.byref(handle), gpu.number)
        self._call("cuDevicePrimaryCtxGetState", handle.value, ctypes.byref(flags), ctypes.byref(active))
        return bool(active.value)

    def memory(self) -> tuple[int, int]:
        """Return free and all bytes of the GPU whose context is this thread's."""
        free, whole = _size(), _size()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(whole))
        return int(free.value), int(whole.value)

    def use(self, context: int) -> None:
        """Make a context this thread's."""
        self._call("cuCtxSetCurrent", context)

    @contextmanager
    def within(self, context: int) -> Iterator[None]:
        """Make a context this thread's for the body of a `with`; then it has again what it had."""
        self._call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(_pointer()))

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new device memory."""
        address = _address()
        self._call("cuMemAlloc_v2", ctypes.byref(address), size_bytes)
        return int(address.value)

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._call("cuMemFree_v2", address)

    def allocate_host(self, size_bytes: int) -> int:
        """Return the address of new host memory that the GPU copies from and to directly: pinned."""
        address = _pointer()
        self._call("cuMemHostAlloc", ctypes.byref(address), size_bytes, _PORTABLE)
        return int(address.value or 0)

    def free_host(self, address: int) -> None:
        """Give pinned memory back."""
        self._call("cuMemFreeHost", address)

    def to_device(self, address: int, host: int, size_bytes: int, stream: int) -> None:
        """Copy from host memory, in a stream's order."""
        self._call("cuMemcpyHtoDAsync_v2", address, host, size_bytes, stream)

    def to_host(self, host: int, address: int, size_bytes: int, stream: int) -> None:
        """Copy to host memory, in a stream's order."""
        self._call("cuMemcpyDtoHAsync_v2", host, address, size_bytes, stream)

    def open_ipc(self, handle: bytes) -> int:
        """Return the address, in this thread's context, of memory that another process exported."""
        address = _address()
        self._call(
            "cuIpcOpenMemHandle_v2", ctypes.byref(address), _IpcHandle.from_buffer_copy(handle), _PEER_ACCESS
        )
        return int(address.value)

    def close_ipc(self, address: int) -> None:
        """Give back what `open_ipc` returned; as often as that opened it."""
        self._call("cuIpcCloseMemHandle", address)

    def allocation(self, address: int) -> tuple[int, int]:
        """Return where the device memory that an address lies in begins, and its bytes."""
        base, size = _address(), _size()
        self._call("cuMemGetAddressRange_v2", ctypes.byref(base), ctypes.byref(size), address)
        return int(base.value), int(size.value)

    def create_stream(self) -> int:
        """Return a new stream that does not wait for the default one."""
        stream = _pointer()
        self._call("cuStreamCreate", ctypes.byref(stream), _NON_BLOCKING)
        return int(stream.value or 0)

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call("cuStreamDestroy_v2", stream)

    def synchronise(self, stream: int) -> None:
        """Wait until all that was given to a stream is done."""
        self._call("cuStreamSynchronize", stream)

    def synchronise_all(self) -> None:
        """Wait until all that was given to this thread's context is done."""
        self._call("cuCtxSynchronize")

    def _call(self, function: str, *arguments: Any) -> None:
        native = getattr(self._library, function)
        native.argtypes = _SIGNATURES[function]
        native.restype = _int
        if code := native(*arguments):
            raise DeviceError(f"the driver's {function} answers {code}{self._named(code)}")

    def _named(self, code: int) -> str:
        text = ctypes.c_char_p()
        native = self._library.cuGetErrorName
        native.argtypes, native.restype = _SIGNATURES["cuGetErrorName"], _int
        failed = native(code, ctypes.byref(text))
        return "" if failed or not text.value else f" ({text.value.decode(errors='replace')})"
