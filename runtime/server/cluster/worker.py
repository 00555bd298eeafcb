"""One node's services, called by name and bytes: the gRPC server's handlers without the gRPC server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, cast

import grpc

from trocar.runtime.config import Config
from trocar.runtime.repository.watch import Watch
from trocar.runtime.server.interceptors import Gate, Guard
from trocar.runtime.server.scheduler import Scheduler
from trocar.runtime.server.services import add_services, find_services, open_context
from trocar.runtime.telemetry import Telemetry


class Collector:
    """Takes services' handlers in place of a `grpc.Server`."""

    def __init__(self) -> None:
        self._handlers: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Keep them."""
        self._handlers += handlers

    def add_registered_method_handlers(self, name: str, handlers: Mapping[str, Any]) -> None:
        """Nothing: what a newer grpcio registers so, it adds as generic handlers too."""

    def find(self, details: Any) -> Any:
        """Return the handler of a method, None without one."""
        found = (handler.service(details) for handler in self._handlers)
        return next((handler for handler in found if handler is not None), None)


class Details:
    """What a handler is looked up by; see `grpc.HandlerCallDetails`."""

    def __init__(self, method: str) -> None:
        self.method, self.invocation_metadata = method, ()


class Ended(Exception):
    """A handler's `context.abort`."""


class Context:
    """A call's context for handlers that were written for `grpc.ServicerContext`; its caller may leave.

    Behind the proxy a deadline is not known beforehand: it shows as the caller's leaving.
    """

    def __init__(self) -> None:
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] | None = []

    def time_remaining(self) -> None:
        """No deadline is known."""

    def is_active(self) -> bool:
        """Whether the caller is there."""
        return self._callbacks is not None

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call it when the caller leaves; False where it has left."""
        with self._lock:
            if self._callbacks is None:
                return False
            self._callbacks.append(callback)
            return True

    def leave(self) -> None:
        """The caller left."""
        with self._lock:
            callbacks, self._callbacks = self._callbacks or [], None
        for callback in callbacks:
            callback()

    def invocation_metadata(self) -> tuple[()]:
        """None travels through the proxy."""
        return ()

    def peer(self) -> str:
        """The proxy hides it."""
        return "ray"

    def code(self) -> grpc.StatusCode | None:
        """The status set or aborted with."""
        return self._code

    def details(self) -> str:
        """The status's text."""
        return self._details

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Set the status's text."""
        self._details = details

    def send_initial_metadata(self, _metadata: Any) -> None:
        """None travels through the proxy."""

    def set_trailing_metadata(self, _metadata: Any) -> None:
        """None travels through the proxy."""

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call with a status."""
        self._code, self._details = code, details
        raise Ended(details)


class Worker:
    """Every service of one node, as the gRPC server would host them."""

    def __init__(self, config: Config) -> None:
        limits = config.server
        self._collector = Collector()
        scheduler = Scheduler(limits.max_running, max(limits.max_held, limits.max_running))
        services = find_services()
        server = cast(grpc.Server, self._collector)
        context = open_context(
            limits,
            scheduler=scheduler,
            telemetry=Telemetry(),
            watch=Watch(),
            on_drain=lambda _end: None,
            ready_while=lambda _name, _check: None,
        )
        self._names = add_services(server, services, config, context)
        self._guard = Guard(Gate())
        self._threads = ThreadPoolExecutor(limits.max_running + limits.max_queued, thread_name_prefix="rpc")

    def names(self) -> tuple[str, ...]:
        """Full names of the services hosted."""
        return tuple(self._names)

    async def call(self, method: str, request: bytes) -> tuple[str, str, bytes]:
        """Answer one call: name of the status code, its text, the reply's bytes."""
        details = Details(method)
        handler = self._guard.intercept_service(self._collector.find, details)  # type: ignore[arg-type]
        if handler is None or handler.unary_unary is None:
            return grpc.StatusCode.UNIMPLEMENTED.name, f"{method} is not served behind Ray", b""
        context = Context()
        answer = asyncio.get_running_loop().run_in_executor(
            self._threads, _answered, handler, request, context
        )
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            context.leave()
            raise


def _answered(handler: Any, request: bytes, context: Context) -> tuple[str, str, bytes]:
    try:
        reply = handler.unary_unary(handler.request_deserializer(request), context)
    except Ended:
        code = context.code() or grpc.StatusCode.INTERNAL
        return code.name, context.details(), b""
    code = context.code() or grpc.StatusCode.OK
    serialise = handler.response_serializer or bytes
    return code.name, context.details(), serialise(reply) if code is grpc.StatusCode.OK else b""
