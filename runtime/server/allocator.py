"""The C library's allocator, told to keep large buffers.

Left alone it asks the kernel for every buffer of a few megabytes anew and gives it back: each volume that
comes or goes is then paid for in page faults, longer than the network takes.
"""

from __future__ import annotations

import ctypes

# mallopt's parameters and values, from malloc.h: buffers up to 32 MiB, the most that it takes, come from a
# heap, of which 128 MiB may stay free, and all threads share that heap.
SETTINGS = (
    (-3, 32 << 20),  # M_MMAP_THRESHOLD
    (-1, 128 << 20),  # M_TRIM_THRESHOLD
    (-2, 16 << 20),  # M_TOP_PAD
    (-8, 1),  # M_ARENA_MAX
)


def keep_large_buffers() -> bool:
    """Tell glibc; before any thread starts. False where the C library has no such thing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    taken = [mallopt(parameter, value) == 1 for parameter, value in SETTINGS]
    return all(taken)
