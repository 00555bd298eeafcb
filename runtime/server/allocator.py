"""The C library's allocator, told to keep large buffers, and to give back what a crowd has left.

Left alone it asks the kernel for every buffer of a few megabytes anew and gives it back: each volume that
comes or goes is then paid for in page faults, longer than the network takes.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Callable

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


# What the volumes of one client leave is kept for the next. More was left by many at once, and is given back
# once nothing came for so long.
_MUCH_BYTES, QUIET_S = 36 << 20, 0.25


class _Mallinfo(ctypes.Structure):
    """The `struct mallinfo2` of mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


class Leftovers:
    """Gives memory back to the system while a server is quiet.

    Parameters
    ----------
    requests : how many came so far, and how many of them are not answered.
    quiet_s : for how long none may have come.
    """

    def __init__(self, requests: Callable[[], tuple[int, int]], *, quiet_s: float = QUIET_S) -> None:
        self._requests, self._quiet_s = requests, quiet_s
        self._closed = threading.Event()

    def start(self) -> None:
        """Begin to look."""
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim") and hasattr(library, "mallinfo2"):  # glibc of 2021 or later
            library.malloc_trim.argtypes = (ctypes.c_size_t,)
            library.mallinfo2.restype = _Mallinfo
            threading.Thread(target=self._look, args=(library,), name="leftovers", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def _look(self, library: ctypes.CDLL) -> None:
        # Some of what is resident and unused is not the heap's, and some cannot be given back.
        before, least_bytes = -1, _unused_bytes(library)
        while not self._closed.wait(self._quiet_s):
            came, in_flight = self._requests()
            if came == before and not in_flight and _unused_bytes(library) - least_bytes > _MUCH_BYTES:
                library.malloc_trim(0)
                least_bytes = _unused_bytes(library)
            before = came


def _unused_bytes(library: ctypes.CDLL) -> int:
    """Memory of this process alone that is resident, less what the heap has handed out."""
    info = library.mallinfo2()
    with open("/proc/self/statm", encoding="ascii") as file:
        _, resident, shared, *_ = map(int, file.read().split())
    handed_out: int = info.uordblks + info.hblkhd
    return (resident - shared) * mmap.PAGESIZE - handed_out
