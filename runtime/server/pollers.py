"""gRPC's threads, arranged for short methods: whoever takes a request off the wire answers it.

grpcio's own server has one thread that takes events and hands each call to a pool, whose thread asks for the
message, sleeps until the first thread has taken it, computes, and answers: four times a thread wakes another,
each time for tens of microseconds. Here the message of a unary call is asked for at once, a call takes a
thread only when its message is there, and a short method runs in the thread that took it, while another takes
the next event. Clients that open calls and send nothing hold no threads.

This reaches into `grpc._server`. Where that is not as it is known here, grpcio's own arrangement serves.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable, Collection
from concurrent import futures
from typing import Any

import grpc
from grpc import _server
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from trocar.runtime.server.reading import Reading

LOG = logging.getLogger("trocar.server")

_PARAMETERS = {
    "_unary_response_in_pool": (
        "rpc_event state behavior argument_thunk request_deserializer response_serializer"
    ),
    "_receive_message": "state call request_deserializer",
    "_is_rpc_state_active": "state",
    "_process_event_and_continue": "state event",
}
# How long a thread that waits for events goes without a look at whether the server stopped.
_LOOK_S = 1.0


def known() -> bool:
    """Whether this grpcio is inside as it is known here."""
    try:
        return all(
            " ".join(inspect.signature(getattr(_server, name)).parameters) == parameters
            for name, parameters in _PARAMETERS.items()
        ) and all((_server._RECEIVE_MESSAGE_TOKEN, _server._ServerStage.STOPPED, _server._CANCELLED))
    except (AttributeError, TypeError, ValueError):
        return False


class Pollers(futures.ThreadPoolExecutor):
    """The pool of a `grpc.server`, and more threads to take its events.

    Parameters
    ----------
    threads : of the pool, for all that is not answered where it was taken.
    in_place : requests answered at once by the threads that took them; there is one thread more.
    short : methods that are, by their full names.
    reading : told of unary calls whose message has not come.
    """

    def __init__(self, threads: int, *, in_place: int, short: Collection[str], reading: Reading) -> None:
        super().__init__(threads, thread_name_prefix="rpc")
        self._in_place = in_place
        self._short = frozenset(short)
        self.reading = reading
        self._lock = threading.Lock()
        self._running = 0
        self._known = known()
        if not self._known:
            LOG.warning("grpcio %s is not known inside: requests take the longer way", grpc.__version__)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Take a call from gRPC; `function` runs in the call's context."""
        if self._known and args and args[0] is _server._unary_response_in_pool:
            _, event, state, behaviour, thunk, deserialise, serialise = args
            if getattr(thunk, "__name__", "") == "unary_request":
                return _Call(self, function, event, state, behaviour, deserialise, serialise).begin()
        return super().submit(function, *args, **kwargs)

    def start(self, server: grpc.Server) -> None:
        """Let more threads take events of a server that has started."""
        if not self._known:
            return
        state = server._state  # type: ignore[attr-defined]
        for number in range(self._in_place):
            threading.Thread(target=_take_events, args=(state,), daemon=True, name=f"events-{number}").start()

    def run(self, call: _Call, method: str) -> None:
        """Run a call whose message is there: here, or in the pool where too many run so."""
        with self._lock:
            here = method in self._short and self._running < self._in_place
            self._running += here
        if not here:
            try:
                super().submit(call.run)
            except RuntimeError:  # the pool is shut down
                call.cancel()
            return
        try:
            call.run()
        finally:
            with self._lock:
                self._running -= 1


class _Call:
    """A unary call from its headers to its answer; also the future that gRPC waits for."""

    __slots__ = (
        "_behaviour",
        "_callbacks",
        "_deserialise",
        "_event",
        "_in_context",
        "_message",
        "_method",
        "_pollers",
        "_serialise",
        "_state",
    )

    def __init__(
        self,
        pollers: Pollers,
        in_context: Callable[..., Any],
        event: Any,
        state: Any,
        behaviour: Callable[..., Any],
        deserialise: Any,
        serialise: Any,
    ) -> None:
        self._pollers, self._in_context, self._event, self._state = pollers, in_context, event, state
        self._behaviour, self._deserialise, self._serialise = behaviour, deserialise, serialise
        self._message: Any = None
        self._method = event.call_details.method.decode("utf-8", "replace")
        self._callbacks: list[Callable[[Any], Any]] | None = []

    def begin(self) -> _Call:
        """Ask for the message."""
        self._pollers.reading.wait(self, self._method)
        state = self._state
        with state.condition:
            if _server._is_rpc_state_active(state):
                self._event.call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), self._arrived)
                state.due.add(_server._RECEIVE_MESSAGE_TOKEN)
                return self
        self._pollers.reading.came(self)
        self._end()
        return self

    def cancel(self) -> None:
        """End the call without an answer."""
        self._event.call.cancel()

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        """Call back once the call needs no more computing."""
        if self._callbacks is None:
            callback(self)
        else:
            self._callbacks.append(callback)

    def run(self) -> None:
        """Compute and send the answer."""
        message, self._message = self._message, None
        try:
            self._in_context(
                _server._unary_response_in_pool,
                self._event,
                self._state,
                self._behaviour,
                lambda: message,
                self._deserialise,
                self._serialise,
            )
        except BaseException:  # as a future would: the thread goes on
            LOG.exception("a request failed")
        finally:
            self._end()

    def _arrived(self, event: Any) -> Any:
        """Take the message, or the news that there is none."""
        self._pollers.reading.came(self)
        state = self._state
        done = _server._receive_message(state, self._event.call, self._deserialise)(event)
        self._message, state.request = state.request, None
        if self._message is not None and state.client is not _server._CANCELLED:
            self._pollers.run(self, self._method)
            return done
        with state.condition:
            if _server._is_rpc_state_active(state):
                details = f"expected one request of {self._method}, got a call without any".encode()
                _server._abort(state, self._event.call, cygrpc.StatusCode.unimplemented, details)
        self._end()
        return done

    def _end(self) -> None:
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback(self)


def _take_events(state: Any) -> None:
    """Do what the server's own thread does, beside it."""
    while state.stage is not _server._ServerStage.STOPPED:
        event = state.completion_queue.poll(time.time() + _LOOK_S)
        timed_out = event.completion_type == cygrpc.CompletionType.queue_timeout
        if not timed_out and not _server._process_event_and_continue(state, event):
            return
        # Before the next wait: it may be the last that holds its call.
        del event
