"""Clients that saturate a server's planning."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import grpc

from trocar.v1 import planning_pb2, planning_pb2_grpc

_END_S = 60.0
_SETTLE_S = 2.0


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
