"""Times of work on a GPU, by the GPU's own clock, and the bandwidth that its memory gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from trocar.bench.timing import Timing
from trocar.runtime.errors import DeviceError
from trocar.runtime.kernels import cuda

COPY_BYTES = 1 << 30
FOOTPRINT_BYTES = 1 << 29  # what one round reads and writes: several times any cache


def require_gpu() -> cuda.Stream:
    """A stream to measure in.

    Raises
    ------
    DeviceError : there is no GPU; the message says why.
    """
    if why := cuda.why_not():
        raise DeviceError(f"expected a GPU to measure, got none: {why}")
    return cuda.Stream()


def describe(stream: cuda.Stream) -> dict[str, Any]:
    """The device, and what the kernels were built with."""
    built = cuda.build()
    assert built is not None
    return {
        **cuda.properties(stream.device),
        "driver_cuda": built.driver,
        "nvcc": built.nvcc,
        "architectures": " ".join(built.architectures),
    }


def sets_for(bytes_moved: int) -> int:
    """How many sets of arrays a round must go through for none to be found in a cache."""
    return int(min(512, max(1, -(-FOOTPRINT_BYTES // bytes_moved))))


def time_calls(stream: cuda.Stream, calls: Sequence[Callable[[], object]], repeats: int) -> Timing:
    """Time of one call, ms: all of `calls` are recorded as one graph, so that no launch lies between them.

    Parameters
    ----------
    calls : each puts the same work on other arrays into the stream; called once before.
    repeats : how often the graph is timed.
    """
    for call in calls:
        call()
    stream.synchronize()
    with stream.recorded() as graph:
        for call in calls:
            call()
    before, after = stream.event(), stream.event()
    samples = []
    for turn in range(repeats + 3):
        before.record(stream.handle)
        graph.launch()
        after.record(stream.handle)
        elapsed_ms = float(after.since(before))
        if turn >= 3:
            samples.append(elapsed_ms / len(calls))
    return Timing(tuple(samples))


def copy_ceiling_gb_s(stream: cuda.Stream, repeats: int = 20) -> float:
    """Measured bandwidth of a large copy within the device, GB/s, bytes read and written both counted."""
    source, target = (stream.empty((COPY_BYTES,), np.uint8) for _ in range(2))
    times = time_calls(stream, [lambda: stream.copy(source, target)], repeats)
    return 2 * COPY_BYTES / (times.percentile_ms(50.0) * 1e6)
