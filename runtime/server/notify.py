"""What a service manager is told: ready, alive, stopping (sd_notify of systemd, and whoever speaks it)."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable


def notify(state: str) -> bool:
    """Send a state such as `READY=1` to the socket named in NOTIFY_SOCKET.

    Returns
    -------
    Whether somebody listens. A manager that went away is no error: the server outlives it.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            # A leading @ stands for the zero byte of Linux's abstract names.
            sender.connect("\0" + address[1:] if address[0] == "@" else address)
            sender.sendall(state.encode())
    except OSError:
        return False
    return True


def watchdog_period_s() -> float | None:
    """Half of what the manager waits before it restarts this process; None where it does not watch."""
    try:
        period_us = int(os.environ.get("WATCHDOG_USEC", "0"))
        watched = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    return period_us / 2e6 if period_us > 0 and watched == os.getpid() else None


def keep_alive(responsive: Callable[[float], bool]) -> None:
    """Tell the manager at each period that the server answers, from a thread of its own; else be silent.

    Parameters
    ----------
    responsive : whether the server did something within the seconds given.
    """
    period_s = watchdog_period_s()
    if period_s is None:
        return

    def beat() -> None:
        pause = threading.Event()
        while True:
            if responsive(period_s):
                notify("WATCHDOG=1")
            pause.wait(period_s)

    threading.Thread(target=beat, name="watchdog", daemon=True).start()
