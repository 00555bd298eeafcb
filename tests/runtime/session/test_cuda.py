"""The driver's calls, held against a stand-in that answers through pointers as the real one does."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from trocar.runtime.errors import DeviceError
from trocar.runtime.session import cuda
from trocar.runtime.session.cuda import Driver, Gpu, find_gpu

NO_DEVICE = 100
HIGH = 0x7F12_3456_7890_ABC0


class StandIn:
    """A driver with one GPU of generation 12.0; `fails` names the call that answers with an error."""

    def __init__(self, fails: str = "", count: int = 1) -> None:
        self.fails, self.count = fails, count
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            if name == self.fails:
                return NO_DEVICE
            given = [each for each in arguments if isinstance(each, int)]
            self.calls.append((name, given))
            return self._answer(name, arguments)

        return call

    def _answer(self, name: str, arguments: tuple[Any, ...]) -> int:
        if name == "cuDeviceGetCount":
            arguments[0]._obj.value = self.count
        elif name == "cuDeviceGetName":
            arguments[0].value = b"Imaginary 9000"
        elif name == "cuDeviceGetAttribute":
            arguments[0]._obj.value = {75: 12, 76: 0}[arguments[1]]
        elif name in ("cuMemAlloc_v2", "cuStreamCreate", "cuDevicePrimaryCtxRetain"):
            arguments[0]._obj.value = HIGH
        elif name == "cuGetErrorName":
            if arguments[0] != NO_DEVICE:
                return 1
            arguments[1]._obj.value = b"CUDA_ERROR_NO_DEVICE"
        return 0


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(stand_in: StandIn) -> StandIn:
        monkeypatch.setattr(ctypes, "CDLL", lambda name: stand_in if name == cuda.LIBRARY else None)
        return stand_in

    return put


def test_a_gpu_and_its_generation(use: Any) -> None:
    use(StandIn())
    assert find_gpu() == Gpu(0, "Imaginary 9000", "sm120")


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LIBRARY", "libnot-there.so.1")
    assert find_gpu() == "libnot-there.so.1 is not there"


@pytest.mark.parametrize(
    ("stand_in", "why"),
    [
        (StandIn(count=0), "expected GPU 0, the driver knows no device"),
        (StandIn(fails="cuInit"), "the driver's cuInit answers 100 (CUDA_ERROR_NO_DEVICE)"),
        (StandIn(fails="cuDeviceGetName"), "the driver's cuDeviceGetName answers 100 (CUDA_ERROR_NO_DEVICE)"),
    ],
)
def test_why_there_is_no_gpu(use: Any, stand_in: StandIn, why: str) -> None:
    use(stand_in)
    assert find_gpu() == why


def test_handles_keep_their_64_bits(use: Any) -> None:
    stand_in = use(StandIn())
    driver = Driver()
    context, address, stream = driver.retain(driver.gpu()), driver.allocate(1 << 33), driver.create_stream()
    assert (context, address, stream) == (HIGH, HIGH, HIGH)
    driver.use(context)
    driver.to_device(address, HIGH + 1, 12, stream)
    driver.to_host(HIGH + 1, address, 12, stream)
    driver.synchronise(stream)
    driver.free(address)
    driver.destroy_stream(stream)
    assert stand_in.calls[-6:] == [
        ("cuCtxSetCurrent", [HIGH]),
        ("cuMemcpyHtoDAsync_v2", [HIGH, HIGH + 1, 12, HIGH]),
        ("cuMemcpyDtoHAsync_v2", [HIGH + 1, HIGH, 12, HIGH]),
        ("cuStreamSynchronize", [HIGH]),
        ("cuMemFree_v2", [HIGH]),
        ("cuStreamDestroy_v2", [HIGH]),
    ]
    assert ("cuMemAlloc_v2", [1 << 33]) in stand_in.calls
    assert ("cuStreamCreate", [1]) in stand_in.calls, "a stream that does not wait for the default one"


def test_every_signature_takes_64_bit_handles() -> None:
    """What ctypes would do with the real library: nothing is cut to 32 bits."""
    for function in ("cuMemFree_v2", "cuCtxSetCurrent", "cuStreamSynchronize", "cuStreamDestroy_v2"):
        (kind,) = cuda._SIGNATURES[function]
        assert ctypes.sizeof(kind) == 8
    assert [ctypes.sizeof(kind) for kind in cuda._SIGNATURES["cuMemcpyDtoHAsync_v2"]] == [8] * 4
    assert [ctypes.sizeof(kind) for kind in cuda._SIGNATURES["cuIpcOpenMemHandle_v2"]] == [8, 64, 4]


def test_memory_of_another_process(
    stand_in_driver: Path, start_exporter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a driver in C, which takes the handle's 64 bytes by value."""
    exporter = start_exporter({"LD_LIBRARY_PATH": str(stand_in_driver.parent)})
    address, handle = exporter.allocate(8192)
    exporter.write(address, bytes(range(256)) * 32)
    monkeypatch.setattr(cuda, "LIBRARY", str(stand_in_driver))
    driver = Driver()
    driver.use(0)  # whatever this thread had
    with driver.within(driver.retain(driver.gpu())):
        here = driver.open_ipc(handle)
        assert driver.open_ipc(handle) == here
        assert driver.allocation(here + 5000) == (here, 8192)
        found, stream = ctypes.create_string_buffer(256), driver.create_stream()
        driver.to_host(ctypes.addressof(found), here + 256, 256, stream)
        driver.synchronise(stream)
        assert found.raw == bytes(range(256))
        driver.destroy_stream(stream)
        driver.synchronise_all()
        driver.close_ipc(here)
        driver.close_ipc(here)
        for call in (lambda: driver.close_ipc(here), lambda: driver.allocation(here)):
            with pytest.raises(DeviceError, match="CUDA_ERROR_INVALID_VALUE"):
                call()
    with pytest.raises(
        DeviceError, match=r"cuIpcOpenMemHandle_v2 answers 201 \(CUDA_ERROR_INVALID_CONTEXT\)"
    ):
        driver.open_ipc(handle)


def test_a_context_is_left_as_it_was(stand_in_driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LIBRARY", str(stand_in_driver))
    driver = Driver()
    current = ctypes.CDLL(str(stand_in_driver)).standin_context
    current.restype = ctypes.c_uint64
    context = driver.retain(driver.gpu())
    for before in (0, HIGH):
        driver.use(before)
        with driver.within(context):
            assert current() == context
        assert current() == before
        with pytest.raises(DeviceError), driver.within(context):
            driver.free(1)
        assert current() == before


def test_the_error_that_has_no_name(use: Any) -> None:
    use(StandIn())
    driver = Driver()
    driver._library.fails = "cuMemAlloc_v2"
    with pytest.raises(DeviceError, match=r"cuMemAlloc_v2 answers 100 \(CUDA_ERROR_NO_DEVICE\)"):
        driver.allocate(8)
