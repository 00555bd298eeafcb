"""What the emulation of CUDA finds, shown on small kernels that are right or wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from trocar.runtime.errors import DeviceError

THREADS = 96
SCHEDULES = [0, 1, 2, 3, 4]


def run(emulated, name, size=THREADS, flag=0, schedule=0):
    out = np.zeros(size, dtype=np.int32)
    emulated.set_schedule(schedule)
    emulated.probe(name, out.ctypes.data, flag)
    return out.tolist()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_with_its_barrier_a_kernel_gives_one_result(emulated, schedule):
    assert run(emulated, "reverse", flag=1, schedule=schedule) == list(range(THREADS))[::-1]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_missing_barrier_shows(emulated, schedule):
    assert run(emulated, "reverse", flag=0, schedule=schedule) != list(range(THREADS))[::-1]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_atomics_count_and_plain_writes_lose(emulated, schedule):
    assert run(emulated, "count", size=1, flag=1, schedule=schedule) == [2 * THREADS]
    assert run(emulated, "count", size=1, flag=0, schedule=schedule)[0] < 2 * THREADS


@pytest.mark.parametrize("name", ["half barrier", "half exchange"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_meeting_that_some_threads_miss_is_an_error(emulated, name, schedule):
    with pytest.raises(DeviceError, match="that others never reach"):
        run(emulated, name, schedule=schedule)
    assert run(emulated, "reverse", flag=1) == list(range(THREADS))[::-1], "the next launch is not harmed"


def test_a_lane_outside_its_own_mask_is_an_error(emulated):
    with pytest.raises(DeviceError, match="whose mask leaves it out"):
        run(emulated, "foreign lane")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_exchanges_by_hand(emulated, schedule):
    rows = np.array(run(emulated, "exchanges", size=10 * THREADS, schedule=schedule)).reshape(10, THREADS)
    lane = np.arange(THREADS) % 32
    expected = [
        np.full(THREADS, 5),
        np.maximum(lane - 1, 0),
        np.where(lane < 2, lane + 30, lane),
        lane ^ 16,
        np.where(lane % 8 == 7, lane, lane + 1),
        np.full(THREADS, 0b111),
        np.full(THREADS, 31 * 32 // 2),
        np.full(THREADS, 40),
        np.ones(THREADS),
        np.zeros(THREADS),
    ]
    np.testing.assert_array_equal(rows, expected)


def test_shared_memory_begins_as_garbage_in_every_block(emulated):
    assert run(emulated, "garbage", size=4) == [np.int32(np.uint32(0xCDCDCDCD)), 0xCD] * 2


@pytest.mark.parametrize("threads", [0, 1025])
def test_a_block_that_no_gpu_takes_is_refused_in_cudas_words(emulated, threads):
    with pytest.raises(DeviceError, match="CUDA kernel launch: invalid configuration argument"):
        run(emulated, "threads", flag=threads)


@pytest.mark.skipif(
    "address" not in os.environ.get("TROCAR_EMULATION_FLAGS", ""), reason="without a sanitizer: make sanitize"
)
def test_the_sanitizer_sees_what_a_kernel_writes_beyond_an_array(emulated):
    code = f"""
import importlib.util, numpy
spec = importlib.util.spec_from_file_location("_cuda", {emulated.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.probe("reverse", numpy.zeros({THREADS - 1}, numpy.int32).ctypes.data, 1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
