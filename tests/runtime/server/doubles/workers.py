"""Handlers of the tests' own, which worker processes import by name."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from trocar.runtime.errors import InvalidInput, ModelNotFound
from trocar.runtime.server.worker import Handler, Patience


def open_echo(prefix: str) -> Handler:
    def handle(method: str, request: bytes, patience: Patience) -> bytes:
        if method == "search":  # says that it began, and goes on until it is stopped
            Path(request.decode()).touch()
            while not patience.stop():
                time.sleep(0.001)
            patience.require_caller()
            return b"stopped in time"
        if method == "stuck":
            Path(request.decode()).touch()
            threading.Event().wait()
        if method == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if method == "exit":
            os._exit(7)
        if method == "refuse":
            raise InvalidInput("expected something else, got this")
        if method == "fail":
            raise ZeroDivisionError("a bug")
        if method == "nice":
            return str(os.getpriority(os.PRIO_PROCESS, 0)).encode()
        if method == "pid":
            return str(os.getpid()).encode()
        return prefix.encode() + request

    return handle


def open_nothing() -> Handler:
    raise ModelNotFound("expected a model, got none")


def open_dying() -> Handler:
    os._exit(3)
