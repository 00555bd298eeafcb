"""The server: services from entry points, health, reflection, and an end that loses nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from trocar.runtime.config import Config, ServerConfig, TlsConfig
from trocar.runtime.errors import InvalidInput
from trocar.runtime.server.address import Address, parse_address, prepare, release
from trocar.runtime.server.admission import Admission
from trocar.runtime.server.auth import Auth
from trocar.runtime.server.bounds import MAX_CALLS, channel_options
from trocar.runtime.server.describe import Pools
from trocar.runtime.server.interceptors import Gate, Guard
from trocar.runtime.server.rate import Buckets, Rate
from trocar.runtime.server.reading import MOST as READING
from trocar.runtime.server.reading import Reading
from trocar.runtime.server.services import AddToServer, add_services
from trocar.runtime.server.tokens import Tokens

# Threads beyond those that compute or wait, so that health and refusals answer under full load.
SPARE_THREADS = 8
# After the grace, how long cancelled requests get to notice.
CUT_GRACE_S = 2.0


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
        admission = Admission(limits.max_running, limits.max_queued)
        threads = limits.max_running + limits.max_queued + SPARE_THREADS
        self._pool = futures.ThreadPoolExecutor(threads + READING, thread_name_prefix="rpc")
        self._reading = Reading()
        auth = Auth(Tokens(Path(limits.auth.tokens), set(services))) if limits.auth.tokens else None
        self._server = grpc.server(
            self._pool,
            interceptors=[self._reading, Guard(self._gate), *([auth] if auth else []), *_rate(limits)],
            options=channel_options(limits),
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        self._on_drain: list[Callable[[], None]] = []
        self._names = add_services(self._server, services, config, admission, self._on_drain.append)
        if auth is not None:
            auth.services = self._names
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if limits.reflection:
            shown = (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(shown, self._server, pool=cast(Any, Pools()))
        self.address = _bind(self._server, parse_address(limits.listen), limits)

    def start(self) -> None:
        """Take requests, and say so to health checks."""
        self._server.start()
        for name in (*self._names, health.OVERALL_HEALTH):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

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
        for end in self._on_drain:
            end()
        cut = self._gate.wait_empty(self._grace_s)
        # Replies already computed leave with this; only what was cut is cancelled by it.
        self._server.stop(0 if cut else CUT_GRACE_S).wait()
        self._gate.wait_empty(CUT_GRACE_S)
        self._reading.close()
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
