"""The CUDA module where it was built: no driver is needed to load it, and every error is CUDA's own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from trocar.runtime.errors import DeviceError, InvalidInput
from trocar.runtime.kernels import cuda, devices

BUILT = importlib.util.find_spec("trocar.runtime.kernels._cuda") is not None
needs_module = pytest.mark.skipif(not BUILT, reason="built without nvcc")


@needs_module
def test_the_module_loads_where_no_driver_can_be_found():
    code = "import trocar.runtime.kernels._cuda as m; print(m.build()['driver'], m.build()['nvcc'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr


@needs_module
def test_it_says_what_it_was_built_with():
    found = cuda.build()
    assert found is not None
    assert found.architectures
    assert all(architecture.isdigit() for architecture in found.architectures)
    assert found.nvcc.count(".") == 2


@needs_module
def test_without_a_gpu_every_use_says_why():
    why = cuda.why_not()
    if why is None:
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match="CUDA"):
        cuda.properties()
    with pytest.raises(DeviceError, match="cudaError"):
        cuda.Stream()


@pytest.mark.skipif(BUILT, reason="built with nvcc")
def test_a_build_without_nvcc_says_so():
    assert cuda.build() is None
    assert "built without nvcc" in cuda.why_not()


@needs_module
@pytest.mark.parametrize(
    ("src", "out", "message"),
    [
        (np.zeros(3), np.zeros(4), r"out: expected shape \(3,\), got \(4,\)"),
        (np.zeros(3), np.zeros(3, np.float32), "out: expected float64, got float32"),
        (np.zeros((4, 4))[:, ::2], np.zeros((4, 2)), "src: expected dense axes"),
        ([0.0], np.zeros(1), "src: expected an array that DLPack can share, got list"),
    ],
)
def test_a_copy_of_arrays_that_differ_is_refused(src, out, message):
    with pytest.raises(InvalidInput, match=message):
        devices.module("cuda").copy(src, out, 5)


def test_what_is_copied_to_a_gpu_comes_back(backend):
    if backend.name != "cuda":
        pytest.skip("a GPU's memory")
    host = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(backend.get(backend.put(host)), host)
    assert backend.put(host).__dlpack_device__() == (2, 0)
    with pytest.raises(InvalidInput, match="dtype: expected uint8, int32"):
        backend.queue.empty((1,), np.complex64)
