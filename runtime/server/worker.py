"""A process that computes for the server: `python -m trocar.runtime.server.worker`, from `Pool`.

The first message says what to run. Each later one is a request, of which one is answered at a time, or says
that nobody waits for it any more.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from trocar.runtime.errors import NO_MEMORY, Cancelled, OutOfMemory, TrocarError
from trocar.runtime.process import begin

# What a process claims of a core that others want: as much as they, a tenth of that, next to nothing.
CPU_CLAIMS = ("normal", "low", "idle")
_LOW_NICE = 10


@dataclass(frozen=True, slots=True)
class Patience:
    """How long somebody waits for the request in work.

    Parameters
    ----------
    until_s : `time.monotonic()` by which its search has to end; None where it may take its time.
    """

    until_s: float | None = None
    _gone: threading.Event = field(default_factory=threading.Event)

    def give_up(self) -> None:
        """Nobody waits any more."""
        self._gone.set()

    def stop(self) -> bool:
        """Whether a search has to end now."""
        return self._gone.is_set() or (self.until_s is not None and time.monotonic() >= self.until_s)

    def require_caller(self) -> None:
        """Raise `Cancelled` where nobody waits for the result."""
        if self._gone.is_set():
            raise Cancelled("the caller went away")

    def left_ms(self) -> float | None:
        """Time the search may take now; None without a deadline."""
        return None if self.until_s is None else 1000.0 * (self.until_s - time.monotonic())


class Handler(Protocol):
    """What a worker runs."""

    def __call__(self, method: str, request: bytes, patience: Patience) -> bytes:
        """Answer a request.

        Raises
        ------
        TrocarError
            As the caller of `Pool.run` is to see it.
        """


class _Link:
    """Requests as they come; the end of the other side ends this process, whatever it is at."""

    def __init__(self, link: Connection) -> None:
        self._link = link
        self._requests: queue.SimpleQueue[tuple[str, int, bytes, Patience]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._current: tuple[int, Patience] | None = None
        threading.Thread(target=self._read, name="requests", daemon=True).start()

    def next(self) -> tuple[str, bytes, Patience]:
        """Wait for a request."""
        method, _, body, patience = self._requests.get()
        return method, body, patience

    def answer(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Answer it."""
        self._link.send_bytes(json.dumps(header).encode())
        self._link.send_bytes(body)

    def _read(self) -> None:
        try:
            while True:
                header = json.loads(self._link.recv_bytes())
                if "cancel" in header:
                    with self._lock:
                        if self._current is not None and self._current[0] == header["cancel"]:
                            self._current[1].give_up()
                    continue
                patience = Patience(header["until_s"])
                with self._lock:
                    self._current = (header["number"], patience)
                self._requests.put((header["method"], header["number"], self._link.recv_bytes(), patience))
        except (EOFError, OSError):
            os._exit(0)


def main(arguments: list[str]) -> int:
    """Serve until the other side ends."""
    link = Connection(begin(arguments).detach())
    first = json.loads(link.recv_bytes())
    if not first["hurry"]:
        _claim(first["cpu"])
    # Where memory runs out, a request is to go and not the server.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    try:
        handler = _open(first)
    except TrocarError as error:
        link.send_bytes(json.dumps(_said(error)).encode())
        link.send_bytes(b"")
        return 0
    if first["hurry"]:
        _claim(first["cpu"])
    requests = _Link(link)
    requests.answer({})
    while True:
        method, body, patience = requests.next()
        try:
            requests.answer({}, handler(method, body, patience))
        except TrocarError as error:
            requests.answer(_said(error))
        except MemoryError:
            requests.answer(_said(OutOfMemory(NO_MEMORY)))
        except Exception:
            requests.answer({"error": "", "message": traceback.format_exc()})


def _claim(cpu: str) -> None:
    """Change all threads that there are; later ones inherit it."""
    for thread in map(int, os.listdir("/proc/self/task")):
        if cpu == "low":
            nice = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, min(19, nice + _LOW_NICE))
        elif cpu == "idle":
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def _open(first: dict[str, Any]) -> Handler:
    module, _, function = str(first["factory"]).partition(":")
    handler: Handler = getattr(importlib.import_module(module), function)(**first["arguments"])
    return handler


def _said(error: TrocarError) -> dict[str, str]:
    return {"error": type(error).__name__, "message": str(error)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
