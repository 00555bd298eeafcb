"""The GPU's workload: refused in one line without one, and run from end to end with the CPU standing in."""

from __future__ import annotations

import argparse
import time
from contextlib import contextmanager

import numpy as np
import pytest

from trocar.bench import gpu
from trocar.bench.workloads import kernels_gpu
from trocar.runtime.kernels import cuda, devices


class Event:
    def record(self, _stream):
        self.at_s = time.perf_counter()

    def since(self, earlier):
        return (self.at_s - earlier.at_s) * 1e3


class StandIn:
    """The CPU under a stream's name: what is recorded is done anew at each launch."""

    device, handle = 0, None

    def put(self, host):
        return host.copy()

    def get(self, array):
        return array

    def empty(self, shape, dtype):
        return np.zeros(shape, dtype)

    def copy(self, src, out):
        np.copyto(out, src)

    def synchronize(self):
        pass

    def event(self):
        return Event()

    @contextmanager
    def recorded(self):
        class Graph:
            def launch(self):
                time.sleep(1e-4)

        yield Graph()


def options(**changes):
    return argparse.Namespace(**({"repeats": 2, "cpu_repeats": 1, "seed": 7} | changes))


def test_without_a_gpu_it_says_so_in_one_line(trocar):
    if cuda.why_not() is None:
        pytest.skip("there is a GPU")
    done = trocar("bench", "run", "kernels-gpu")
    assert done.returncode == 3
    assert done.stderr.startswith("trocar: error: expected a GPU to measure, got none: ")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def _stand_in(monkeypatch):
    on_cpu = devices.module("cpu")
    monkeypatch.setattr(devices, "module", lambda _: on_cpu)
    monkeypatch.setattr(gpu, "require_gpu", StandIn)
    monkeypatch.setattr(gpu, "describe", lambda _: {"name": "none"})
    monkeypatch.setattr(gpu, "COPY_BYTES", 1 << 20)
    monkeypatch.setattr(gpu, "FOOTPRINT_BYTES", 1)


@pytest.mark.usefixtures("_stand_in")
def test_every_kernel_is_measured_and_compared(monkeypatch):
    monkeypatch.setattr(kernels_gpu, "_dose", lambda _: iter(()))
    document = kernels_gpu.run(options())
    assert document["passed"]
    rows = {row["kernel"]: row for row in document["tables"]["bandwidth"]}
    assert {
        "preprocess_bgr_float32",
        "preprocess_nv12_float16",
        "postprocess_float32",
        "overlay",
        "dvh",
    } <= set(rows)
    assert set(document["timings"]) == set(rows)
    for row in rows.values():
        assert row["gb_s"] == pytest.approx(row["megabytes"] / row["gpu_p50_ms"])
        assert row["share_of_copy"] == pytest.approx(row["gb_s"] / document["copy_ceiling_gb_s"])
    assert rows["overlay"]["megabytes"] == pytest.approx((1 + 2 * 3) * 1080 * 1920 / 1e6)


@pytest.mark.usefixtures("_stand_in")
def test_a_result_that_differs_fails_the_run(monkeypatch):
    def wrong(src, out, stream):
        assert stream is None
        out[...] = src + np.random.default_rng().integers(1, 100)

    case = kernels_gpu.Case("wrong", {"src": np.zeros(4)}, {"out": np.zeros(4)}, wrong)
    monkeypatch.setattr(kernels_gpu, "cases", lambda _: [case])
    document = kernels_gpu.run(options())
    assert not document["passed"]
    assert not document["tables"]["bandwidth"][0]["parity"]


@pytest.mark.parametrize(("moved", "sets"), [(1 << 29, 1), (1 << 28, 2), ((1 << 29) + 1, 1), (1, 512)])
def test_a_round_goes_through_more_than_any_cache_holds(moved, sets):
    assert gpu.sets_for(moved) == sets
