"""The server: services from entry points, health, reflection, and an end that loses nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from trocar.runtime.config import Config, ServerConfig, TlsConfig
from trocar.runtime.errors import InvalidInput
from trocar.runtime.repository.watch import Watch
from trocar.runtime.server import health
from trocar.runtime.server.address import Address, parse_address, prepare, release
from trocar.runtime.server.allocator import Leftovers
from trocar.runtime.server.auth import Auth
from trocar.runtime.server.bounds import MAX_CALLS, channel_options
from trocar.runtime.server.describe import Pools
from trocar.runtime.server.intake import Intake
from trocar.runtime.server.interceptors import Gate, Guard
from trocar.runtime.server.pollers import Pollers, known
from trocar.runtime.server.rate import Buckets, Rate
from trocar.runtime.server.reading import MOST as READING
from trocar.runtime.server.reading import Reading
from trocar.runtime.server.scheduler import Scheduler
from trocar.runtime.server.services import AddToServer, add_services, open_context
from trocar.runtime.server.tokens import Tokens
from trocar.runtime.telemetry import Family
from trocar.runtime.telemetry.device import DeviceMemory
from trocar.runtime.telemetry.open import open_telemetry

# Threads beyond those that compute or wait: open streams hold some, and health and refusals have to answer
# under full load.
SPARE_THREADS = 16
# Answered by the thread that took the request: what may take no longer than a network's run.
SHORT = ("/inference.GRPCInferenceService/ModelInfer",)
# After the grace, how long cancelled requests get to notice.
CUT_GRACE_S = 2.0
# A request that comes while gRPC's core ends is CANCELLED without a word. Until none has come for so long,
# or for at most so much longer, each is told that the server is shutting down.
QUIET_S, MOST_QUIET_S = 0.1, 1.0


class Server:
    """One gRPC server on one address.

    Parameters
    ----------
    config : limits and address.
    services : what to host, by entry-point name; see `find_services`.

    Raises
    ------
    InvalidInput
        The address cannot be bound, or the configuration names an unknown service.
    """

    def __init__(self, config: Config, services: Mapping[str, AddToServer]) -> None:
        limits = config.server
        self._grace_s = limits.drain_grace_s
        self._gate = Gate()
        self.telemetry = open_telemetry(limits)
        waited = self.telemetry.stages("queue", ("wait",))
        scheduler = Scheduler(limits.max_running, max(limits.max_held, limits.max_running), waited=waited)
        self.telemetry.collect(lambda: _load(self._gate, scheduler))
        self.telemetry.collect(DeviceMemory().read)
        threads = scheduler.max_held + SPARE_THREADS + READING + health.MAX_WATCHERS
        self._reading = Reading(unary=not known())
        self._intake = Intake()
        self._pool = Pollers(threads, short=SHORT, reading=self._reading, intake=self._intake)
        auth = Auth(Tokens(Path(limits.auth.tokens), set(services))) if limits.auth.tokens else None
        guard = Guard(self._gate, self.telemetry)
        self._server = grpc.server(
            self._pool,
            interceptors=[self._reading, guard, *([auth] if auth else []), *_rate(limits)],
            options=channel_options(limits),
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        self._leftovers = Leftovers(lambda: self._gate.requests)
        self._on_drain: list[Callable[[], None]] = []
        self._watch = Watch(limits.watch_s)
        self.telemetry.collect(self._watch.families)
        self._health = health.Health()
        context = open_context(
            limits,
            scheduler=scheduler,
            telemetry=self.telemetry,
            watch=self._watch,
            on_drain=self._on_drain.append,
            ready_while=self._health.require,
        )
        self._names = add_services(self._server, services, config, context)
        if auth is not None:
            auth.services = self._names
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if limits.reflection:
            shown = (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(shown, self._server, pool=cast(Any, Pools()))
        self.address = _bind(self._server, parse_address(limits.listen), limits)

    def start(self) -> None:
        """Take requests, and say so to health checks."""
        self._server.start()
        self._pool.start(self._server)
        for name in (*self._names, health.OVERALL):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        self._watch.start()
        self._leftovers.start()

    def drain(self) -> int:
        """Refuse new requests, finish those in flight, stop.

        Health says NOT_SERVING throughout, over connections that exist as over new ones. Past the
        grace of the configuration, or once hurried, the rest is cancelled.

        Returns
        -------
        How many requests were cut short.
        """
        self._health.enter_graceful_shutdown()
        self._gate.close()
        self._watch.close()
        for end in self._on_drain:
            end()
        cut = self._gate.wait_empty(self._grace_s)
        self._gate.wait_quiet(QUIET_S, MOST_QUIET_S)
        # Replies already computed leave with this; only what was cut is cancelled by it.
        self._server.stop(0 if cut else CUT_GRACE_S).wait()
        self._gate.wait_empty(CUT_GRACE_S)
        self.telemetry.close()
        self._reading.close()
        self._intake.close()
        self._leftovers.close()
        release(self.address)
        return cut

    def responsive(self, timeout_s: float) -> bool:
        """Whether a thread that serves requests is free, or becomes so in time."""
        try:
            self._pool.submit(lambda: None).result(timeout_s)
        except (TimeoutError, RuntimeError):  # RuntimeError: the pool has ended
            return False
        return True

    def hurry(self) -> None:
        """End a drain's grace now."""
        self._gate.hurry()


def _load(gate: Gate, scheduler: Scheduler) -> Iterator[Family]:
    yield Family(
        "trocar_requests_in_flight",
        "gauge",
        "Requests that came and are not answered, streams among them.",
        rows=[((), float(gate.in_flight))],
    )
    counts = scheduler.counts()
    for name, kind, what, at in (
        ("trocar_queue_running", "gauge", "Requests that hold a slot.", 0),
        ("trocar_queue_waiting", "gauge", "Requests that wait for a slot.", 1),
        ("trocar_queue_refused", "counter", "Requests that got no slot.", 2),
    ):
        rows = [((queue,), float(values[at])) for queue, values in counts.items()]
        yield Family(name, kind, what, ("queue",), [*rows])


def _rate(config: ServerConfig) -> list[Rate]:
    clients = config.clients
    return [Rate(Buckets(clients.requests_per_s, clients.burst))] if clients.requests_per_s else []


def _bind(server: grpc.Server, address: Address, config: ServerConfig) -> Address:
    credentials = None
    if config.tls != TlsConfig():
        # Brings `cryptography`, which a server without TLS does not need.
        from trocar.runtime.server.tls import server_credentials

        credentials = server_credentials(config.tls)
    elif not (address.local or config.insecure):
        raise InvalidInput(
            f"cannot listen on {address.target} without TLS, where other machines can reach it: expected "
            "[server.tls] certificate and key (--tls-cert, --tls-key), a local address, or --insecure"
        )
    prepare(address)
    # The socket is the owner's alone; no moment exists in which it is anyone else's.
    mask = os.umask(0o177)
    try:
        if credentials is None:
            port = server.add_insecure_port(address.target)
        else:
            port = server.add_secure_port(address.target, credentials)
    except RuntimeError as error:
        raise InvalidInput(f"cannot listen on {address.target}: {error}") from error
    finally:
        os.umask(mask)
    return address if address.path is not None else replace(address, port=port)
