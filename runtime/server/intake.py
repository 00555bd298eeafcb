"""Large messages come in a few at a time: while a message comes in, it is in memory three times.

gRPC keeps the pieces that came, copies each, and joins the copies. Four volumes of 9 MB that come at once
are a hundred megabytes of a small device, and are hardly here sooner than one after the other: the processor
that copies them is the same. A call whose message is not asked for waits at its client, but for what a
client may send unasked (`bounds.LOOKAHEAD_BYTES`).

How large a message is shows only once it came. A client that sends nothing but large ones to a method is
taken to go on so; the first of a client is taken to be like the largest that the method got. Nobody waits for
long: what is slow, or computes for long, does not count after a moment.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Protocol

LOG = logging.getLogger("trocar.server")

# What is less does not count; and what large messages may take: a volume that comes beside one that is
# computed, or two pictures of 1920 x 1080 that come.
LARGE_BYTES, MOST_BYTES = 1 << 20, 40 << 20
# How often a message is there until it came.
_COPIES = 3
# For how long a message is waited for, and counts.
PATIENCE_S = 0.05
# A client that sent a smaller one so lately may send another: many may share a connection, or a Unix socket.
_MIXED_S = 1.0
# Clients that are remembered.
_CLIENTS = 256


class Call(Protocol):
    """A call whose message is there to be asked for."""

    @property
    def client(self) -> str:
        """Who calls."""

    @property
    def method(self) -> str:
        """What is called."""

    def ask(self) -> None:
        """Ask for the message."""


class Intake:
    """Says when calls may ask for their messages."""

    def __init__(self, *, most_bytes: int = MOST_BYTES, patience_s: float = PATIENCE_S) -> None:
        self._most_bytes, self._patience_s = most_bytes, patience_s
        self._changed = threading.Condition()
        # By client and method, the size of the last large message, and when a smaller one came last.
        self._clients: dict[tuple[str, str], tuple[int, float]] = {}
        # By method, of any client.
        self._largest: dict[str, int] = {}
        # Of calls that asked, what their messages take; of others, how large they will be; and until when.
        self._inside: dict[Call, tuple[int, float]] = {}
        self._waiting: deque[tuple[Call, int, float]] = deque()
        self._closed = False
        threading.Thread(target=self._look, name="rpc-intake", daemon=True).start()

    def enter(self, call: Call) -> None:
        """Let a call ask, now or in a moment."""
        size = self._expected(call)
        if size < LARGE_BYTES:
            call.ask()
            return
        with self._changed:
            self._waiting.append((call, size, time.monotonic() + self._patience_s))
        self._let_in()

    def came(self, call: Call, size: int) -> None:
        """Take note of a message that came; `leave` follows when it is not needed any more."""
        if size < LARGE_BYTES and call.method not in self._largest:
            return  # as nearly always
        now, who = time.monotonic(), (call.client, call.method)
        known = self._clients.get(who)
        if size < LARGE_BYTES:
            if known is None or now - known[1] > _MIXED_S / 2:
                self._remember(who, (known[0] if known else 0, now))
            self.leave(call)
            return
        with self._changed:
            self._largest[call.method] = max(self._largest.get(call.method, 0), size)
            self._inside[call] = size, now + self._patience_s
        self._remember(who, (size, known[1] if known else -_MIXED_S))
        self._let_in()

    def leave(self, call: Call) -> None:
        """Count a call's message no more."""
        if call in self._inside:
            with self._changed:
                self._inside.pop(call, None)
            self._let_in()

    def close(self) -> None:
        """Let all in."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._let_in()

    def _expected(self, call: Call) -> int:
        largest = self._largest.get(call.method)
        if largest is None:
            return 0
        known = self._clients.get((call.client, call.method))
        if known is None:
            return largest
        size, smaller_s = known
        return size if time.monotonic() - smaller_s > _MIXED_S else 0

    def _remember(self, who: tuple[str, str], what: tuple[int, float]) -> None:
        with self._changed:
            self._clients[who] = what
            if len(self._clients) > _CLIENTS:
                del self._clients[next(iter(self._clients))]

    def _let_in(self) -> None:
        """Let those ask that may."""
        if not self._waiting:
            return
        allowed = []
        with self._changed:
            now = time.monotonic()
            for call in [call for call, (_, until) in self._inside.items() if until <= now]:
                del self._inside[call]
            taken = sum(bytes_ for bytes_, _ in self._inside.values())
            while self._waiting:
                call, size, until = self._waiting[0]
                takes = _COPIES * size
                if taken and taken + takes > self._most_bytes and until > now and not self._closed:
                    self._changed.notify()
                    break
                self._waiting.popleft()
                self._inside[call] = takes, now + self._patience_s
                taken += takes
                allowed.append(call)
        for call in allowed:
            try:
                call.ask()
            except Exception:  # of one call; others wait
                LOG.exception("a request could not be asked for")

    def _look(self) -> None:
        """Let in those that waited long enough, or for what is slow."""
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting)
                untils = [until for _, until in self._inside.values()]
                first = min([*untils, *(until for _, _, until in self._waiting)], default=0.0)
                self._changed.wait(max(0.0, first - time.monotonic()))
            self._let_in()
