"""Requests that never come whole: a bounded number may be on the way, and the oldest make room.

gRPC's threads wait for the first message of a call. A client that opens calls and sends no message would hold
them all. A request that is on its way in earnest is not among the oldest for long.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import grpc

from trocar.runtime.errors import Cancelled
from trocar.runtime.server.handlers import kind_of, with_behaviour

LOG = logging.getLogger("trocar.server")

# Calls whose request may be on its way at once; beyond, those that wait longer than this make room.
MOST, PATIENCE_S = 32, 0.25


class Cancellable(Protocol):
    """A call."""

    def cancel(self) -> Any:
        """End it."""


class Reading(grpc.ServerInterceptor):
    """Bounds the calls whose first message has not come.

    Parameters
    ----------
    unary : whether unary calls are read here too; else `Pollers` says which wait.
    """

    def __init__(self, *, unary: bool = True) -> None:
        self._unary = unary
        # Held by itself where nobody is told: a condition's own `with` takes several times as long.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # Method and time of each, oldest first.
        self._waiting: dict[Cancellable, tuple[str, float]] = {}
        self._closed = False
        threading.Thread(target=self._make_room, name="rpc-reading", daemon=True).start()

    def close(self) -> None:
        """Bound nothing any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the method's handler as one of a stream, whose first message is waited for here."""
        handler: Any = continuation(handler_call_details)
        if handler is None:
            return None
        if not (self._unary or handler.request_streaming or handler.response_streaming):
            return handler
        kind = kind_of(handler)
        bounded = self._all if handler.request_streaming else self._one
        return with_behaviour(
            handler,
            bounded(handler_call_details.method, getattr(handler, kind)),
            kind="stream_stream" if handler.response_streaming else "stream_unary",
        )

    def _one(self, method: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def call(messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
            try:
                request = self._first(method, messages, context)
            except StopIteration:
                context.abort(
                    grpc.StatusCode.UNIMPLEMENTED, f"expected one request of {method}, got a call without any"
                )
            return behaviour(request, context)

        return call

    def _all(self, method: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def read(messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                first = self._first(method, messages, context)
            except StopIteration:
                return
            except grpc.RpcError:
                raise Cancelled("the client went away") from None
            yield first
            yield from messages

        def call(messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
            return behaviour(read(messages, context), context)

        return call

    def _first(self, method: str, messages: Iterator[Any], context: grpc.ServicerContext) -> Any:
        self.wait(context, method)
        try:
            return next(messages)
        finally:
            self.came(context)

    def wait(self, call: Cancellable, method: str) -> None:
        """Count a call whose message has not come."""
        with self._lock:
            self._waiting[call] = method, time.monotonic()
            if len(self._waiting) > MOST:
                self._changed.notify()

    def came(self, call: Cancellable) -> None:
        """Stop counting it."""
        with self._lock:
            self._waiting.pop(call, None)

    def _make_room(self) -> None:
        """Cancel the oldest while there are too many, once they had a moment to come."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._waiting) > MOST)
                if self._closed:
                    return
                before = time.monotonic() - PATIENCE_S
                oldest = list(self._waiting.items())[: len(self._waiting) - MOST]
                late = {context: method for context, (method, since) in oldest if since < before}
                for context in late:
                    del self._waiting[context]
            for context, method in late.items():
                LOG.info("%s CANCELLED: its request did not come, and %d others wait", method, MOST)
                context.cancel()
            time.sleep(PATIENCE_S / 5)
