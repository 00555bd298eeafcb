"""The one interceptor: errors to status codes, what is seen of a request, and the gate that drains.

`grpc.*` services (health, reflection) pass untouched: they must answer while the server drains.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from trocar.runtime.errors import (
    NO_MEMORY,
    Cancelled,
    DeadlineExceeded,
    DeviceError,
    InvalidInput,
    ManifestMismatch,
    ModelNotFound,
    OutOfMemory,
    PermissionDenied,
    QueueFull,
    TrocarError,
    Unauthenticated,
    Unavailable,
)
from trocar.runtime.telemetry import Request, Telemetry, enter
from trocar.runtime.telemetry.requests import REQUEST_ID, read_metadata

LOG = logging.getLogger("trocar.server")

STATUS: dict[type[TrocarError], grpc.StatusCode] = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    ModelNotFound: grpc.StatusCode.NOT_FOUND,
    ManifestMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    OutOfMemory: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    Cancelled: grpc.StatusCode.CANCELLED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    DeviceError: grpc.StatusCode.INTERNAL,
    TrocarError: grpc.StatusCode.INTERNAL,
}

# Stands for methods that the server does not have.
UNKNOWN = "/unknown/unknown"
# Status details travel in an HTTP/2 header, and peers refuse headers beyond 8 KiB.
MAX_DETAILS = 1000


def status_of(error: BaseException) -> tuple[grpc.StatusCode, str]:
    """Status code and one line for an exception; nothing of the inside shows for an unknown one."""
    if isinstance(error, MemoryError):
        error = OutOfMemory(NO_MEMORY)
    if not isinstance(error, TrocarError):
        return grpc.StatusCode.INTERNAL, "internal error; the server's log has it"
    code = next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)
    line = " ".join(str(error).split()) or type(error).__name__
    return code, line[:MAX_DETAILS]


def error_of(code: grpc.StatusCode, details: str) -> TrocarError:
    """Return the exception that a status stands for, on the client's side; the table read backwards."""
    cls = next((cls for cls, status in STATUS.items() if status is code), TrocarError)
    return cls(details or code.name.lower())


class Gate:
    """Counts requests in flight; once closed it lets no new one in."""

    def __init__(self) -> None:
        self._open = True
        self._hurried = False
        self._in_flight = 0
        self._refused_s = 0.0
        self._changed = threading.Condition()

    @property
    def in_flight(self) -> int:
        """Requests that entered and did not leave."""
        return self._in_flight

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Count one request for the body of a `with`; `Unavailable` once the gate is closed."""
        with self._changed:
            if not self._open:
                self._refused_s = time.monotonic()
                raise Unavailable("the server is shutting down and takes no new requests")
            self._in_flight += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """Refuse what comes from now on."""
        with self._changed:
            self._open = False

    def hurry(self) -> None:
        """Let `wait_empty` return at once."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def wait_quiet(self, quiet_s: float, most_s: float) -> None:
        """Wait until none was refused for a while, which is when clients have taken notice."""
        begin_s = time.monotonic()
        with self._changed:
            while not self._hurried:
                now_s = time.monotonic()
                left_s = min(max(begin_s, self._refused_s) + quiet_s, begin_s + most_s) - now_s
                if left_s <= 0:
                    return
                self._changed.wait(left_s)

    def wait_empty(self, timeout_s: float) -> int:
        """Wait until nothing is in flight, or until hurried; returns how many requests still are."""
        with self._changed:
            self._changed.wait_for(lambda: self._in_flight == 0 or self._hurried, timeout_s)
            return self._in_flight


class _Undecodable:
    """Stands in for a request whose bytes are not the message they should be."""


class Guard(grpc.ServerInterceptor):
    """Wraps every handler that is not gRPC's own.

    Parameters
    ----------
    gate : which requests have to pass.
    telemetry : told of each.
    """

    def __init__(self, gate: Gate, telemetry: Telemetry | None = None) -> None:
        self._gate = gate
        self._telemetry = telemetry or Telemetry()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the guarded handler of the method called, or None where there is no such method."""
        handler: Any = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith("/grpc."):
            return handler
        sides = (handler.request_streaming, handler.response_streaming)
        kind = "_".join("stream" if streaming else "unary" for streaming in sides)
        behaviour = getattr(handler, kind)
        guarded = self._stream if handler.response_streaming else self._unary
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        if getattr(handler, "nameless", False):  # refused before it was known whether there is such a method
            method = UNKNOWN
        seen = _Seen(method, kind, *read_metadata(handler_call_details.invocation_metadata or ()))
        return make(
            guarded(seen, behaviour),
            request_deserializer=_forgiving(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _unary(self, seen: _Seen, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            with self._watched(seen, context):
                return behaviour(_decoded(request, seen.method), context)

        return call

    def _stream(self, seen: _Seen, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self._watched(seen, context):
                yield from behaviour(_decoded(request, seen.method), context)

        return call

    @contextmanager
    def _watched(self, seen: _Seen, context: Any) -> Iterator[None]:
        """Gate, error mapping, and what is seen, around one request."""
        start = time.perf_counter()
        code, details = grpc.StatusCode.OK, ""
        request = Request(seen.request_id)
        enter(request)
        ended = self._telemetry.begin(seen.method, seen.kind, seen.trace, request)
        logged = LOG.isEnabledFor(logging.INFO)
        # 10 us of a small request: told only where it can be looked up, and, below, with every failure.
        if logged or seen.named:
            context.set_trailing_metadata(((REQUEST_ID, seen.request_id),))
        try:
            with self._gate.entered():
                yield
        except TrocarError as error:
            code, details = status_of(error)
        except GeneratorExit:  # nobody takes the rest of a stream
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception as error:
            if context.code() is not None:  # the behaviour called context.abort itself
                code = context.code()
                raise
            code, details = status_of(error)
            LOG.exception("%s failed", seen.method, extra={"request_id": seen.request_id})
        finally:
            took_s = time.perf_counter() - start
            ended(code.name, took_s)
            if logged:
                _log(seen, request, code.name, took_s, context)
        if details:
            context.set_trailing_metadata(((REQUEST_ID, seen.request_id),))
            context.abort(code, details)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is known of a request before it is read; `named` where its id is the caller's."""

    method: str
    kind: str
    request_id: str
    named: bool
    trace: str


def _log(seen: _Seen, request: Request, code: str, took_s: float, context: Any) -> None:
    """Log a request: nothing of it that a client worded, but for an id that has been looked at."""
    LOG.info(
        "%s %s %.1f ms %s",
        seen.method,
        code,
        1000 * took_s,
        seen.request_id,
        extra={
            "request_id": seen.request_id,
            "method": seen.method,
            "code": code,
            "duration_ms": round(1000 * took_s, 3),
            "peer": context.peer().partition(":")[0],
            "model": request.model,
        },
    )


def _forgiving(deserialise: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Read a request leniently: gRPC answers INTERNAL where the mistake is the caller's."""

    def read(data: bytes) -> Any:
        try:
            return data if deserialise is None else deserialise(data)
        except Exception:
            return _Undecodable()

    return read


def _decoded(request: Any, method: str) -> Any:
    if isinstance(request, _Undecodable):
        raise InvalidInput(f"expected the protobuf request of {method}, got bytes that do not parse as it")
    return request
