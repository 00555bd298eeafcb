"""A timer that one thread sets and another waits for, which costs the one a system call and no wake-up."""

from __future__ import annotations

import ctypes
import os
import select
import weakref

_MONOTONIC = 1
_CLOSE_ON_EXEC, _NEVER_BLOCKS = 0o2000000, 0o4000


class _Setting(ctypes.Structure):
    """The `struct itimerspec` of timerfd_create(2): again after, first after; seconds and nanoseconds."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("again_s", "again_ns", "first_s", "first_ns"))


def exist() -> bool:
    """Whether this system has such timers: Linux does."""
    return hasattr(ctypes.PyDLL(None), "timerfd_create")


class Alarm:
    """Goes off a fixed time after it was set, unless it was cleared by then.

    Parameters
    ----------
    after_s : the time.

    Raises
    ------
    OSError
        The system gives no timer.
    """

    def __init__(self, after_s: float) -> None:
        # PyDLL keeps the interpreter's lock: to hand it over takes longer than the call.
        library = ctypes.PyDLL(None, use_errno=True)
        self._descriptor = library.timerfd_create(_MONOTONIC, _CLOSE_ON_EXEC | _NEVER_BLOCKS)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._settime = library.timerfd_settime
        self._set = ctypes.byref(_Setting(first_ns=int(1e9 * after_s)))
        self._clear = ctypes.byref(_Setting())
        weakref.finalize(self, os.close, self._descriptor)
        self._waiter = select.poll()
        self._waiter.register(self._descriptor, select.POLLIN)

    def set(self) -> None:
        """Let it go off; set again, the time begins anew."""
        self._settime(self._descriptor, 0, self._set, None)

    def clear(self) -> None:
        """Let it not go off; if it has, and nobody took notice, it has not."""
        self._settime(self._descriptor, 0, self._clear, None)

    def wait(self, most_s: float) -> bool:
        """Wait until it has gone off, for one thread at a time.

        Returns
        -------
        Whether it has.
        """
        if not self._waiter.poll(1000 * most_s):
            return False
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:  # cleared meanwhile
            return False
        return True
