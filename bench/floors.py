"""What the machine allows: bandwidth of its memory, one thread."""

from __future__ import annotations

import numpy as np

from trocar.bench.timing import interleave

_SIZE_BYTES = 128_000_000


def copy_bandwidth_gb_s(size_bytes: int = 256_000_000, repeats: int = 7) -> float:
    """Best measured copy bandwidth of memory, GB/s, bytes read and written both counted; one thread."""
    source = np.ones(size_bytes // 8)
    target = np.zeros_like(source)
    timing = interleave({"copy": lambda: np.copyto(target, source)}, repeats, label="memory")["copy"]
    return 2 * source.nbytes / (min(timing.samples_ms) * 1e6)


def triad_bandwidth_gb_s(size_bytes: int = 256_000_000, repeats: int = 7) -> float:
    """Best measured bandwidth of a = b + s c, GB/s; one thread.

    STREAM's triad (McCalpin 1995) in two passes, as NumPy has no fused one: a = s c, then a = a + b; the
    five arrays that these read and write are counted.
    """
    b, c = np.ones(size_bytes // 8), np.ones(size_bytes // 8)
    a = np.zeros_like(b)

    def triad() -> None:
        np.multiply(c, 3.0, out=a)
        np.add(a, b, out=a)

    timing = interleave({"triad": triad}, repeats, label="memory")["triad"]
    return 5 * a.nbytes / (min(timing.samples_ms) * 1e6)


def memory() -> dict[str, float]:
    """Both bandwidths, quickly."""
    return {
        "memory_copy_gb_s": round(copy_bandwidth_gb_s(_SIZE_BYTES, 5), 2),
        "memory_triad_gb_s": round(triad_bandwidth_gb_s(_SIZE_BYTES, 5), 2),
    }
