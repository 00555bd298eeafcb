"""Worker processes for one service: a request each, so that what ends a process costs one request."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from trocar.runtime import errors, process
from trocar.runtime.errors import (
    Cancelled,
    DeadlineExceeded,
    DeviceError,
    OutOfMemory,
    TrocarError,
    Unavailable,
)

LOG = logging.getLogger("trocar.server")
# How long a worker may take to notice that its request is of no more use; then it is ended.
NOTICE_S = 10.0
START_S = 60.0
_TICK_S = 0.5


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What the processes run.

    Parameters
    ----------
    factory : `module:function`, which returns a `trocar.runtime.server.worker.Handler` for `arguments`.
    arguments : plain JSON values.
    cpu : their claim on cores that others want: one of `trocar.runtime.server.worker.CPU_CLAIMS`.
    """

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    cpu: str = "normal"


class Job:
    """One request to a worker, which may be cancelled from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        """Tell whoever works on it that nobody waits for it."""
        self.cancelled.set()
        with self._lock:
            if self._worker is not None:
                self._worker.tell_cancelled()

    def _given_to(self, worker: _Worker | None) -> None:
        with self._lock:
            self._worker = worker
            if worker is not None and self.cancelled.is_set():
                worker.tell_cancelled()


class Pool:
    """The processes of one service. Each is started when it is first needed, and kept.

    How many work at once is the caller's to bound: see `trocar.runtime.server.scheduler`.
    """

    def __init__(self, spec: PoolSpec) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._closed = False

    def start(self) -> None:
        """Have one process ready, with all the cores that it can get until it is.

        Raises
        ------
        TrocarError
            What it says why it cannot work.
        """
        self._put(_Worker(self._spec, hurry=True))

    def renew(self, spec: PoolSpec) -> None:
        """Have other processes answer from now on; those that work on something end with it.

        Raises
        ------
        TrocarError
            Why the first of them cannot work; the others go on.
        """
        worker = _Worker(spec, hurry=True)
        with self._lock:
            self._spec = spec
            idle, self._idle = self._idle, []
        for old in idle:
            old.end()
        self._put(worker)

    def run(
        self,
        method: str,
        request: bytes,
        job: Job,
        *,
        until_s: float | None = None,
        end_s: float | None = None,
    ) -> bytes:
        """Have a process answer a request.

        Parameters
        ----------
        method : as the service's handler knows it.
        job : to cancel it by.
        until_s : `time.monotonic()` by which its search has to end.
        end_s : the same for its answer, which nobody takes later.

        Raises
        ------
        TrocarError
            As the handler raised it.
        Unavailable
            The process ended over it. Nothing came of the request; it may be sent again.
        """
        worker = self._take()
        try:
            job._given_to(worker)
            return worker.run(method, request, job, until_s, end_s)
        finally:
            job._given_to(None)
            if worker.sound:
                self._put(worker)
            else:
                worker.end()

    def close(self) -> None:
        """End the processes that are idle now, and the others as they become so."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()

    def _take(self) -> _Worker:
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None:
                return _Worker(self._spec)
            if worker.alive():
                return worker
            LOG.warning("a process of %s had ended, and is started again", self._spec.factory)
            worker.end()

    def _put(self, worker: _Worker) -> None:
        with self._lock:
            if not self._closed and worker.spec is self._spec:
                self._idle.append(worker)
                return
        worker.end()


class _Worker:
    """A process and this side of its link."""

    def __init__(self, spec: PoolSpec, *, hurry: bool = False) -> None:
        self.spec = spec
        self._name = spec.factory
        # Whether it waits for a request: one that did not finish the last one is of no more use.
        self.sound = True
        self._process, ours = process.start("trocar.runtime.server.worker", socket.SOCK_STREAM)
        self._link = Connection(ours.detach())
        self._sending = threading.Lock()
        self._number = 0
        try:
            first = {"factory": spec.factory, "arguments": dict(spec.arguments)}
            self._send({**first, "cpu": spec.cpu, "hurry": hurry})
            if not self._link.poll(START_S):
                raise DeviceError(f"{self._name}: expected its process to be ready in {START_S:g} s")
            header, _ = self._receive()
        except BaseException:
            self.end()
            raise
        if "error" in header:
            self.end()
            raise _error(header)

    def alive(self) -> bool:
        """Whether it can be given a request."""
        return self._process.poll() is None and not self._link.poll()

    def run(self, method: str, request: bytes, job: Job, until_s: float | None, end_s: float | None) -> bytes:
        """Have it answer; see `Pool.run`."""
        self._number += 1
        self.sound = False
        self._send({"method": method, "number": self._number, "until_s": until_s}, request)
        if job.cancelled.is_set():
            self.tell_cancelled()
        self._await_answer(job, end_s)
        header, answer = self._receive()
        # What ran out of memory may have little left; a new process has all that there is.
        self.sound = header.get("error") != OutOfMemory.__name__
        if "error" in header:
            raise _error(header)
        return answer

    def tell_cancelled(self) -> None:
        """Say that nobody waits for the request in work."""
        try:
            self._send({"cancel": self._number})
        except Unavailable:  # whoever waits for its answer learns the same
            return

    def end(self) -> None:
        """End it, whatever it does."""
        self._link.close()
        self._process.kill()
        self._process.wait()

    def _await_answer(self, job: Job, end_s: float | None) -> None:
        """Wait; a process that notices neither a deadline nor a cancellation is given up."""
        noticed_s: float | None = None
        while not self._link.poll(_TICK_S):
            now_s = time.monotonic()
            if job.cancelled.is_set() or (end_s is not None and now_s > end_s):
                noticed_s = noticed_s or now_s
                if now_s - noticed_s > NOTICE_S:
                    LOG.error("%s: its process did not stop within %g s and was ended", self._name, NOTICE_S)
                    if job.cancelled.is_set():
                        raise Cancelled("the caller went away")
                    raise DeadlineExceeded("the deadline passed, and the work on it did not stop")

    def _send(self, header: Mapping[str, Any], body: bytes = b"") -> None:
        try:
            with self._sending:
                self._link.send_bytes(json.dumps(header).encode())
                if "method" in header:
                    self._link.send_bytes(body)
        except OSError as error:
            raise self._lost() from error

    def _receive(self) -> tuple[dict[str, Any], bytes]:
        try:
            header: dict[str, Any] = json.loads(self._link.recv_bytes())
            return header, self._link.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._lost() from error

    def _lost(self) -> Unavailable:
        self._process.kill()  # one that ended by itself keeps its own code
        code = self._process.wait()
        why = f"by signal {-code}" if code < 0 else f"with code {code}"
        LOG.error("%s: its process ended %s", self._name, why)
        return Unavailable("the process that worked on the request ended; it may be sent again")


class WorkerFailure(Exception):
    """Something that is no `TrocarError` was raised in a worker; the message is its traceback."""


def _error(header: Mapping[str, Any]) -> Exception:
    cls = getattr(errors, str(header["error"]), None)
    if isinstance(cls, type) and issubclass(cls, TrocarError):
        return cls(str(header["message"]))
    return WorkerFailure(str(header["message"]))
