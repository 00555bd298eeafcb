"""How often one client may call: a bucket of requests for each, filled at the configured rate."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import grpc

from trocar.runtime.errors import QueueFull
from trocar.runtime.server.auth import OWN, caller
from trocar.runtime.server.handlers import kind_of, with_behaviour

# Clients remembered; the one that was silent longest is forgotten, and begins with a full bucket.
MAX_CLIENTS = 10_000


class Buckets:
    """A bucket for each client.

    Parameters
    ----------
    per_s : requests that run into a bucket each second.
    burst : what a bucket holds.
    clock : seconds.
    """

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._lock = threading.Lock()
        # What was left when it was last used, and when that was; least recently used first.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Take one request out of a client's bucket.

        Raises
        ------
        QueueFull
            It is empty; the message says when it will not be.
        """
        now = self._clock()
        with self._lock:
            left, then = self._left.pop(client, (float(self._burst), now))
            left = min(float(self._burst), left + (now - then) * self._per_s)
            enough = left >= 1
            self._left[client] = (left - 1 if enough else left, now)
            if len(self._left) > MAX_CLIENTS:
                self._left.popitem(last=False)
        if not enough:
            raise QueueFull(
                f"expected at most {self._per_s:g} requests a second, {self._burst} at once, of one client; "
                f"try again in {(1 - left) / self._per_s:.2g} s"
            )


def client_of(context: grpc.ServicerContext) -> str:
    """Return whose bucket it is: the token's, or the address's whatever the port."""
    token = caller()
    if token is not None:
        return f"token {token.name}"
    kind, _, rest = context.peer().partition(":")
    return rest.rpartition(":")[0] if kind in ("ipv4", "ipv6") else kind


class Rate(grpc.ServerInterceptor):
    """Takes every request but gRPC's own from its client's bucket."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the method's handler behind the bucket."""
        handler: Any = continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(OWN):
            return handler
        behaviour = getattr(handler, kind_of(handler))

        def call(request: Any, context: grpc.ServicerContext) -> Any:
            self._buckets.take(client_of(context))
            return behaviour(request, context)

        return with_behaviour(handler, call)
