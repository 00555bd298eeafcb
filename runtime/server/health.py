"""`grpc.health.v1.Health`, with a bounded number of watchers.

grpcio's own sends to a watcher while it holds a lock that the polling thread takes when a watcher leaves:
watchers that come and go stop the whole server.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVICE_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
OVERALL = ""
# Each holds a thread. How often it looks whether its client is still there.
MAX_WATCHERS, LOOK_S = 8, 0.5

_Response = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):
    """What each service says of itself; unknown ones are NOT_FOUND, or SERVICE_UNKNOWN to a watcher."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._statuses: dict[str, Any] = {OVERALL: _Response.SERVING}
        self._checks: dict[str, Callable[[], bool]] = {}
        self._watchers = 0
        self._ending = False

    def set(self, service: str, status: Any) -> None:
        """Set a service's status, unless the server is ending."""
        with self._changed:
            if not self._ending:
                self._statuses[service] = status
                self._changed.notify_all()

    def require(self, service: str, check: Callable[[], bool]) -> None:
        """Say NOT_SERVING of a service for as long as a check of its own, asked each time, says no."""
        self._checks[service] = check

    def enter_graceful_shutdown(self) -> None:
        """Say NOT_SERVING of everything from now on."""
        with self._changed:
            self._ending = True
            self._statuses = dict.fromkeys(self._statuses, _Response.NOT_SERVING)
            self._changed.notify_all()

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return a service's status."""
        status = self._status(request.service)
        if status is None:
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"expected a service of this server, got {request.service!r:.80}"
            )
        return _Response(status=status)

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        """Send a service's status, and again when it changes, until the client leaves."""
        with self._changed:
            full = self._watchers >= MAX_WATCHERS
            self._watchers += not full
        if full:
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"expected at most {MAX_WATCHERS} watchers, got one more; use Check",
            )
        try:
            said = None
            while context.is_active():
                status = self._status(request.service, _Response.SERVICE_UNKNOWN)
                if status != said:
                    yield _Response(status=status)
                    said = status
                with self._changed:
                    # Bound, for a client that leaves is not a change.
                    if self._status(request.service, _Response.SERVICE_UNKNOWN) == said:
                        self._changed.wait(LOOK_S)
        finally:
            with self._changed:
                self._watchers -= 1

    def _status(self, service: str, unknown: Any = None) -> Any:
        status, check = self._statuses.get(service, unknown), self._checks.get(service)
        works = status != _Response.SERVING or check is None or check()
        return status if works else _Response.NOT_SERVING
