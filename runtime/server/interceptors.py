"""The one interceptor: errors to status codes, what is seen of a request, and the gate that drains.

`grpc.*` services (health, reflection) pass untouched: they must answer while the server drains.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
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
    Unimplemented,
)
from trocar.runtime.server.handlers import kind_of, with_behaviour
from trocar.runtime.telemetry import Request, Telemetry, enter
from trocar.runtime.telemetry.requests import REQUEST_ID, read_metadata

LOG = logging.getLogger("trocar.server")

STATUS: dict[type[TrocarError], grpc.StatusCode] = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    ModelNotFound: grpc.StatusCode.NOT_FOUND,
    ManifestMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    Unimplemented: grpc.StatusCode.UNIMPLEMENTED,
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
        self._came = 0
        self._refused_s = 0.0
        # Held by itself where nobody is told: a condition's own `with` takes several times as long.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    @property
    def in_flight(self) -> int:
        """Requests that entered and did not leave."""
        return self._in_flight

    @property
    def requests(self) -> tuple[int, int]:
        """How many entered, and how many of them did not leave."""
        return self._came, self._in_flight

    def enter(self) -> None:
        """Count one request in; `Unavailable` once the gate is closed."""
        with self._lock:
            if not self._open:
                self._refused_s = time.monotonic()
                raise Unavailable("the server is shutting down and takes no new requests")
            self._in_flight += 1
            self._came += 1

    def leave(self) -> None:
        """Count it out."""
        with self._lock:
            self._in_flight -= 1
            if not self._open:
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
        self.gate = gate
        self.telemetry = telemetry or Telemetry()
        # By method, a handler and what guards it: most services answer with the same one each time.
        self._made: dict[str, tuple[Any, Any]] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the guarded handler of the method called, or None where there is no such method."""
        handler: Any = continuation(handler_call_details)
        method = handler_call_details.method
        made = self._made.get(method)
        if made is not None and made[0] is handler:
            return made[1]
        if handler is None or method.startswith("/grpc."):
            return handler
        if getattr(handler, "nameless", False):  # refused before it was known whether there is such a method
            return self._guarded(handler, UNKNOWN)
        guarded = self._guarded(handler, method)
        self._made[method] = handler, guarded
        return guarded

    def _guarded(self, handler: Any, method: str) -> Any:
        kind = kind_of(handler)
        wrap = self._stream if handler.response_streaming else self._unary
        return with_behaviour(
            handler,
            wrap(method, kind, getattr(handler, kind)),
            request_deserializer=_forgiving(handler.request_deserializer),
        )

    def _unary(self, method: str, kind: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            with _Watched(self, method, kind, context):
                return behaviour(_decoded(request, method), context)

        return call

    def _stream(self, method: str, kind: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with _Watched(self, method, kind, context):
                yield from behaviour(_decoded(request, method), context)

        return call


class _Watched:
    """Gate, error mapping, and what is seen, around one request."""

    __slots__ = (
        "_context",
        "_ended",
        "_guard",
        "_kind",
        "_logged",
        "_method",
        "_named",
        "_request",
        "_start_s",
    )

    def __init__(self, guard: Guard, method: str, kind: str, context: Any) -> None:
        self._guard, self._method, self._kind, self._context = guard, method, kind, context

    def __enter__(self) -> None:
        self._start_s = time.perf_counter()
        context = self._context
        request_id, self._named, trace = read_metadata(context.invocation_metadata() or ())
        self._request = request = Request(request_id)
        enter(request)
        self._ended = self._guard.telemetry.begin(self._method, self._kind, trace, request)
        self._logged = LOG.isEnabledFor(logging.INFO)
        # 10 us of a small request: told only where it can be looked up, and, below, with every failure.
        if self._logged or self._named:
            context.set_trailing_metadata(((REQUEST_ID, request_id),))
        try:
            self._guard.gate.enter()
        except Unavailable as error:
            self._end(*status_of(error))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._guard.gate.leave()
        if error is None:
            self._end(grpc.StatusCode.OK)
        elif isinstance(error, GeneratorExit):  # nobody takes the rest of a stream
            self._end(grpc.StatusCode.CANCELLED)
        elif isinstance(error, TrocarError):
            self._end(*status_of(error))
        elif isinstance(error, Exception) and self._context.code() is None:
            LOG.error("%s failed", self._method, exc_info=error, extra={"request_id": self._request.id})
            self._end(*status_of(error))
        else:  # the behaviour called context.abort itself
            self._end(self._context.code() or grpc.StatusCode.OK)

    def _end(self, code: grpc.StatusCode, details: str = "") -> None:
        took_s = time.perf_counter() - self._start_s
        self._ended(code.name, took_s)
        if self._logged:
            _log(self._method, self._request, code.name, took_s, self._context)
        if details:
            self._context.set_trailing_metadata(((REQUEST_ID, self._request.id),))
            self._context.abort(code, details)


def _log(method: str, request: Request, code: str, took_s: float, context: Any) -> None:
    """Log a request: nothing of it that a client worded, but for an id that has been looked at."""
    LOG.info(
        "%s %s %.1f ms %s",
        method,
        code,
        1000 * took_s,
        request.id,
        extra={
            "request_id": request.id,
            "method": method,
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
