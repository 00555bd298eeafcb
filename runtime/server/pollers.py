"""gRPC's threads, arranged for short methods: whoever takes a request off the wire answers it.

grpcio's own server has one thread that takes events and hands each call to a pool, whose thread asks for the
message, sleeps until the first thread has taken it, computes, and answers: four times a thread wakes another,
each time for tens of microseconds. Here the message of a unary call is asked for at once, a call takes a
thread only when its message is there, and a short method runs in the thread that took it. Should that take
longer than a moment, a second thread stands in for it and takes events until it is done: two that took them
all the time would wake each other with each one. Clients that open calls and send nothing hold no threads.

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

from trocar.runtime.server import alarm
from trocar.runtime.server.intake import LARGE_BYTES, Intake
from trocar.runtime.server.reading import Reading

LOG = logging.getLogger("trocar.server")

_PARAMETERS = {
    "_unary_response_in_pool": (
        "rpc_event state behavior argument_thunk request_deserializer response_serializer"
    ),
    "_receive_message": "state call request_deserializer",
    "_Context": "rpc_event state request_deserializer",
    "_call_behavior": "rpc_event state behavior argument request_deserializer send_response_callback",
    "_serialize_response": "rpc_event state response response_serializer",
    "_status": "rpc_event state serialized_response",
    "_is_rpc_state_active": "state",
    "_process_event_and_continue": "state event",
}
# How long events wait while the thread that takes them runs a method; and how long its stand-in waits for one
# before it looks whether it is still needed.
PATIENCE_S, _TURN_S = 0.001, 0.005
# How long the stand-in goes without a look at whether the server stopped.
_LOOK_S = 1.0


def known() -> bool:
    """Whether this grpcio is inside as it is known here, and this system has what it takes."""
    try:
        return all(
            " ".join(inspect.signature(getattr(_server, name)).parameters) == parameters
            for name, parameters in _PARAMETERS.items()
        ) and all(
            (alarm.exist(), _server._RECEIVE_MESSAGE_TOKEN, _server._ServerStage.STOPPED, _server._CANCELLED)
        )
    except (AttributeError, TypeError, ValueError):
        return False


class Pollers(futures.ThreadPoolExecutor):
    """The pool of a `grpc.server`, and a stand-in for the thread that takes its events.

    Parameters
    ----------
    threads : of the pool, for all that is not answered where it was taken.
    short : methods that are, one request at a time, by their full names.
    reading : told of unary calls whose message has not come.
    intake : says when they may ask for it.
    """

    def __init__(self, threads: int, *, short: Collection[str], reading: Reading, intake: Intake) -> None:
        super().__init__(threads, thread_name_prefix="rpc")
        self._short = frozenset(short)
        self.reading, self.intake = reading, intake
        # Held by the thread that runs a method where it took the request.
        self._place = threading.Lock()
        self._alarm = alarm.Alarm(PATIENCE_S) if known() else None
        if self._alarm is None:
            LOG.warning("grpcio %s is not known inside: requests take the longer way", grpc.__version__)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Take a call from gRPC; `function` runs in the call's context."""
        if self._alarm is not None and args and args[0] is _server._unary_response_in_pool:
            _, event, state, behaviour, thunk, deserialise, serialise = args
            if getattr(thunk, "__name__", "") == "unary_request":
                return _Call(self, function, event, state, behaviour, deserialise, serialise).begin()
        return super().submit(function, *args, **kwargs)

    def start(self, server: grpc.Server) -> None:
        """Let a server that has started have its stand-in."""
        if self._alarm is not None:
            state = server._state  # type: ignore[attr-defined]
            threading.Thread(target=self._stand_in, args=(state,), daemon=True, name="stand-in").start()

    def run(self, call: _Call, size: int) -> None:
        """Run a call whose message is there: here, or in the pool where it is large or another runs so.

        What gRPC says of a message that came holds it until its event is dealt with, which would be after the
        answer.
        """
        assert self._alarm is not None
        if call.method in self._short and size < LARGE_BYTES and self._place.acquire(blocking=False):
            self._alarm.set()
            try:
                call.run()
            finally:
                self._alarm.clear()
                self._place.release()
            return
        try:
            super().submit(call.run)
        except RuntimeError:  # the pool is shut down
            call.cancel()

    def _stand_in(self, state: Any) -> None:
        """Do what the server's own thread does, while that runs a method for too long."""
        assert self._alarm is not None
        while state.stage is not _server._ServerStage.STOPPED:
            if self._alarm.wait(_LOOK_S):
                while self._place.locked():
                    if not _take_event(state):
                        return


class _Call:
    """A unary call from its headers to its answer; also the future that gRPC waits for."""

    __slots__ = (
        "_behaviour",
        "_callbacks",
        "_client",
        "_deserialise",
        "_event",
        "_in_context",
        "_message",
        "_pollers",
        "_serialise",
        "_state",
        "method",
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
        self._client = ""
        self.method = event.call_details.method.decode("utf-8", "replace")
        self._callbacks: list[Callable[[Any], Any]] | None = []

    @property
    def client(self) -> str:
        """Who calls: an address and a port, or only that it was by a Unix socket."""
        if not self._client:
            self._client = self._event.call.peer().decode("utf-8", "replace")
        return self._client

    def begin(self) -> _Call:
        """Have the message asked for."""
        self._pollers.reading.wait(self, self.method)
        self._pollers.intake.enter(self)
        return self

    def ask(self) -> None:
        """Ask for the message."""
        state = self._state
        with state.condition:
            if _server._is_rpc_state_active(state):
                self._event.call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), self._arrived)
                state.due.add(_server._RECEIVE_MESSAGE_TOKEN)
                return
        self._pollers.reading.came(self)
        self._end()

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
        try:
            self._in_context(self._answer)
        except BaseException:  # as a future would: the thread goes on
            LOG.exception("a request failed")
        finally:
            self._end()

    def _answer(self) -> None:
        """Do what gRPC's `_unary_response_in_pool` does, but for its way to the method and back.

        That is a generator and an import or two for each of what may look on: as long as all of a small
        request, where the caches are cold.
        """
        event, state = self._event, self._state
        context = _server._Context(event, state, self._deserialise)
        try:
            response = self._compute(context)
        except Exception as error:
            _server._call_behavior(event, state, _raiser(error), None, self._deserialise)
            return
        serialised = _server._serialize_response(event, state, response, self._serialise)
        if serialised is not None:
            _server._status(event, state, serialised)

    def _compute(self, context: Any) -> Any:
        """Return the answer; the message is gone by then: with the answer the client's next may come."""
        try:
            return self._behaviour(self._taken(), context)
        finally:
            self._pollers.intake.leave(self)

    def _taken(self) -> Any:
        message, self._message = self._message, None
        return message

    def _arrived(self, event: Any) -> Any:
        """Take the message, or the news that there is none."""
        self._pollers.reading.came(self)
        state = self._state
        done = _server._receive_message(state, self._event.call, self._deserialise)(event)
        self._message, state.request = state.request, None
        if self._message is not None and state.client is not _server._CANCELLED:
            size = len(self._message) if isinstance(self._message, bytes) else 0
            self._pollers.intake.came(self, size)
            self._pollers.run(self, size)
            return done
        with state.condition:
            if _server._is_rpc_state_active(state):
                details = f"expected one request of {self.method}, got a call without any".encode()
                _server._abort(state, self._event.call, cygrpc.StatusCode.unimplemented, details)
        self._end()
        return done

    def _end(self) -> None:
        self._pollers.intake.leave(self)
        callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            callback(self)


def _raiser(error: Exception) -> Callable[[Any, Any], Any]:
    """Return a method that fails once, as another did: gRPC says so to its client."""
    # Not kept: an error knows the frames that it came through, and so all that the request held.
    left = [error]

    def fail(_: Any, __: Any) -> Any:
        raise left.pop()

    return fail


def _take_event(state: Any) -> bool:
    """Take an event, if one comes; False once there will be none."""
    event = state.completion_queue.poll(time.time() + _TURN_S)
    timed_out = event.completion_type == cygrpc.CompletionType.queue_timeout
    return timed_out or _server._process_event_and_continue(state, event)
