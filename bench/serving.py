"""A `trocar serve` of one's own, in a process of its own, and a client that saturates its planning."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import grpc

from trocar.runtime.errors import DeviceError
from trocar.v1 import planning_pb2, planning_pb2_grpc

_END_S = 60.0
_SETTLE_S = 2.0


@contextmanager
def served(config: str | None = None) -> Iterator[str]:
    """Run a server for the body of a `with`; gives its address.

    Raises
    ------
    DeviceError
        It does not start; why is on its stderr.
    """
    command = [sys.executable, "-m", "trocar.runtime.cli", "serve", "--json", "--listen", "127.0.0.1:0"]
    if config is not None:
        command += ["--config", config]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines: list[str] = []
        # Read all along: a full pipe would stop the server.
        drain = threading.Thread(target=_keep_last, args=(process.stderr, lines), daemon=True)
        drain.start()
        line = process.stdout.readline()
        try:
            if not line:
                process.wait(_END_S)
                drain.join(_END_S)
                raise DeviceError(f"the server did not start: {lines[-1] if lines else 'it says nothing'}")
            yield str(json.loads(line)["listening"])
        finally:
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _keep_last(stream: Iterator[str], lines: list[str]) -> None:
    for line in stream:
        lines[:] = [line.strip()]


class Planning:
    """Clients that ask for one plan after another, for the body of a `with`.

    Parameters
    ----------
    target : the server's address.
    in_flight : plans at once; each is of the default search, of one of as many phantoms.
    """

    def __init__(self, target: str, in_flight: int) -> None:
        self._channel = grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)])
        self._stub = planning_pb2_grpc.PlanningServiceStub(self._channel)
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self.counts: dict[str, int] = {}
        self._calls: set[grpc.Future[planning_pb2.PlanReply]] = set()
        self._threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(in_flight)]

    def __enter__(self) -> Planning:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel what is in flight and wait until the server has let go of it."""
        self._ending.set()
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.cancel()
        for thread in self._threads:
            thread.join(_END_S)
        self._channel.close()
        # A search notices within milliseconds; what builds its problem, or a dose, is finished first.
        time.sleep(_SETTLE_S)

    def wait_saturated(self) -> None:
        """Wait until searches are under way and others wait."""
        time.sleep(_SETTLE_S)

    def _ask(self, seed: int) -> None:
        while True:
            request = planning_pb2.PlanRequest(case=planning_pb2.CaseInput(phantom_seed=seed))
            with self._lock:
                if self._ending.is_set():  # whoever ends this has the calls that there are
                    return
                call = self._stub.Plan.future(request, timeout=120)
                self._calls.add(call)
            try:
                error = call.exception()
                code = "OK" if error is None else error.code().name  # type: ignore[attr-defined]
            except grpc.FutureCancelledError:
                code = "CANCELLED"
            with self._lock:
                self._calls.discard(call)
                self.counts[code] = self.counts.get(code, 0) + 1
            if code == "RESOURCE_EXHAUSTED":
                self._ending.wait(0.2)
