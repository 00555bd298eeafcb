from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from trocar.runtime import device
from trocar.runtime.errors import DeviceError, InvalidInput

BUILT = ("CUDAExecutionProvider", "CPUExecutionProvider")


def fake_driver(count: int = 1, fails: str = "") -> Callable[[str], SimpleNamespace]:
    """What `ctypes.CDLL` gives: a CUDA driver with so many devices, one of whose calls may fail."""

    def call(name: str, effect: Callable[..., None]) -> Callable[..., int]:
        def function(*arguments: object) -> int:
            effect(*arguments)
            return 100 if name == fails else 0

        return function

    def set_count(pointer: object) -> None:
        pointer._obj.value = count  # type: ignore[attr-defined]

    def set_name(buffer: ctypes.Array[ctypes.c_char], _size: int, _handle: object) -> None:
        buffer.value = b"Imaginary 9000"

    effects = {
        "cuInit": lambda _flags: None,
        "cuDeviceGetCount": set_count,
        "cuDeviceGet": lambda _handle, _ordinal: None,
        "cuDeviceGetName": set_name,
        "cuDeviceGetAttribute": lambda _value, _attribute, _handle: None,
        "cuGetErrorName": lambda _code, _text: None,
    }
    return lambda _name: SimpleNamespace(**{name: call(name, effect) for name, effect in effects.items()})


def no_driver(_name: str) -> None:
    raise OSError("cannot open shared object file")


def test_the_driver_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", fake_driver())
    chosen = device.choose_device("auto", BUILT)
    assert str(chosen) == "cuda (Imaginary 9000): the driver has it"


@pytest.mark.parametrize(
    ("library", "providers", "why"),
    [
        (no_driver, BUILT, "libcuda.so.1 is not there"),
        (fake_driver(count=0), BUILT, "expected GPU 0, the driver knows no device"),
        (fake_driver(fails="cuInit"), BUILT, "the driver's cuInit answers 100"),
        (fake_driver(fails="cuDeviceGetName"), BUILT, "the driver's cuDeviceGetName answers 100"),
        (fake_driver(), ("CPUExecutionProvider",), "ONNX Runtime was built without CUDA"),
    ],
)
def test_without_cuda_the_reason_is_said(
    monkeypatch: pytest.MonkeyPatch, library: object, providers: tuple[str, ...], why: str
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", library)
    chosen = device.choose_device("auto", providers)
    assert (chosen.kind, chosen.why) == ("cpu", f"no CUDA: {why}")
    assert chosen.name
    with pytest.raises(DeviceError, match=f"expected a CUDA device, got none: {why}"):
        device.choose_device("cuda", providers)


def test_the_cpu_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", fake_driver())
    assert device.choose_device("cpu", BUILT).why == "asked for"


def test_an_unknown_device() -> None:
    with pytest.raises(InvalidInput, match="expected a device of auto, cpu, cuda, got 'tpu'"):
        device.choose_device("tpu", BUILT)
