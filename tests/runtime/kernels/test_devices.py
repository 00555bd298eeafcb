from __future__ import annotations

import numpy as np
import pytest

from trocar.runtime.errors import DeviceError, InvalidInput
from trocar.runtime.kernels import devices


class OnDevice:
    """What is known of an array before anything reads it."""

    def __init__(self, kind, index=0):
        self.place = (kind, index)

    def __dlpack_device__(self):
        return self.place


CPU, CUDA, PINNED, MANAGED, METAL = 1, 2, 3, 13, 8


def test_arrays_on_the_cpu():
    found = devices.target(None, a=np.zeros(2), b=OnDevice(PINNED), c=OnDevice(CPU, 7))
    assert (found.device, found.index, found.stream) == ("cpu", 0, 0)
    assert found.native.__name__.endswith("_native")


def test_arrays_on_a_gpu(monkeypatch):
    monkeypatch.setattr(devices, "module", lambda kind: kind)
    assert devices.target(99, a=OnDevice(CUDA, 1), b=OnDevice(MANAGED, 1)) == devices.Target(
        "cuda", 99, "cuda", 1
    )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"src": [1, 2]}, "src: expected an array that DLPack can share, got list"),
        ({"src": OnDevice}, "src: expected an array that DLPack can share, got type"),
        ({"src": OnDevice(METAL)}, "src: expected an array on the CPU or a CUDA device, got DLPack device 8"),
        (
            {"src": np.zeros(1), "out": OnDevice(CUDA, 1)},
            "out: expected an array on the CPU, as src, got one on CUDA device 1",
        ),
        (
            {"src": OnDevice(CUDA, 0), "out": OnDevice(CUDA, 1)},
            "out: expected an array on CUDA device 0, as src, got one on CUDA device 1",
        ),
    ],
)
def test_arrays_apart_are_refused_by_name(arrays, message):
    with pytest.raises(InvalidInput, match=message):
        devices.target(None, **arrays)


@pytest.mark.parametrize("stream", [None, 0, 1, 2, -1, 1 << 64, "3", 3.0, True])
def test_a_gpu_takes_no_default_stream(stream):
    with pytest.raises(InvalidInput, match="stream: expected the handle of a CUDA stream of your own"):
        devices.target(stream, src=OnDevice(CUDA))


@pytest.mark.parametrize("stream", [0, 5])
def test_the_cpu_takes_no_stream(stream):
    with pytest.raises(InvalidInput, match=f"stream: expected none for arrays on the CPU, got {stream}"):
        devices.target(stream, src=np.zeros(1))


def test_a_module_that_was_not_built_is_said_so(monkeypatch):
    monkeypatch.setitem(devices._MODULES, "cuda", "trocar.runtime.kernels._no_such_module")
    with pytest.raises(DeviceError, match="built without nvcc"):
        devices.target(5, src=OnDevice(CUDA))
