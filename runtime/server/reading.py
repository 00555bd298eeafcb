"""Requests that never come whole: a bounded number may be on the way, and the oldest makes room.

gRPC's threads wait for the first message of a call. A client that opens calls and sends no message would hold
them all. A request that is on its way in earnest is not the oldest for long.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from trocar.runtime.errors import Cancelled

LOG = logging.getLogger("trocar.server")

# How gRPC marks a method that answers later, from another thread: health's Watch.
_LATER = ("experimental_non_blocking", "experimental_thread_pool")


class Reading(grpc.ServerInterceptor):
    """Bounds the calls whose first message has not come.

    Parameters
    ----------
    most : such calls at once. For one more the oldest is cancelled.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        # Oldest first.
        self._waiting: dict[grpc.ServicerContext, str] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the method's handler as one of a stream, whose first message is waited for here."""
        handler: Any = continuation(handler_call_details)
        if handler is None:
            return None
        sides = (handler.request_streaming, handler.response_streaming)
        behaviour = getattr(handler, "_".join("stream" if streaming else "unary" for streaming in sides))
        bounded = self._all if handler.request_streaming else self._one
        make = grpc.stream_stream_rpc_method_handler
        if not handler.response_streaming:
            make = grpc.stream_unary_rpc_method_handler
        return make(
            bounded(handler_call_details.method, behaviour),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _one(self, method: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def call(messages: Iterator[Any], context: grpc.ServicerContext, *later: Any) -> Any:
            try:
                request = self._first(method, messages, context)
            except StopIteration:
                context.abort(
                    grpc.StatusCode.UNIMPLEMENTED, f"expected one request of {method}, got a call without any"
                )
            return behaviour(request, context, *later)

        for name in _LATER:
            if hasattr(behaviour, name):
                setattr(call, name, getattr(behaviour, name))
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
        with self._lock:
            self._waiting[context] = method
            over = len(self._waiting) > self._most
            if over:
                oldest = next(iter(self._waiting))
                late = self._waiting.pop(oldest)
        if over:
            LOG.info("%s CANCELLED: its request did not come, and %d others wait", late, self._most)
            oldest.cancel()
        try:
            return next(messages)
        finally:
            with self._lock:
                self._waiting.pop(context, None)
