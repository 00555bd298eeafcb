"""A process that works for this one, at the other end of a socket; it ends when this one does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from trocar.runtime.kernels import _native


def start(
    module: str, kind: socket.SocketKind, *arguments: str
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start `python -m MODULE DESCRIPTOR PARENT ARGUMENTS`.

    Parameters
    ----------
    module : what runs; it begins with `begin`.
    kind : of the socket pair.

    Returns
    -------
    The process, and this side's end of the pair.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    try:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno()), str(os.getpid()), *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
    except OSError:
        ours.close()
        raise
    return process, ours


def begin(arguments: list[str]) -> socket.socket:
    """Return the worker's end, from its command line's arguments.

    Signals to the group, such as a terminal's Ctrl-C or a service manager's SIGTERM, are the other side's to
    act on: it may want this process to finish its work first. One of its threads for which there is no memory
    ends it.
    """
    sys.unraisablehook = _native.end_without_memory
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return socket.socket(fileno=int(arguments[0]))
