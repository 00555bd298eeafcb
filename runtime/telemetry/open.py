"""From the `[server]` table to who looks: nothing is imported that is not asked for."""

from __future__ import annotations

import logging
import os

from trocar.runtime.config import ServerConfig
from trocar.runtime.errors import InvalidInput
from trocar.runtime.server.address import parse_address
from trocar.runtime.telemetry import Listener, Telemetry

LOG = logging.getLogger("trocar.server")
_EXTRA = "pip install 'trocar[telemetry]'"


def open_telemetry(config: ServerConfig) -> Telemetry:
    """Open what a configuration asks for.

    Raises
    ------
    InvalidInput
        The metrics' address is none, or others could reach it and nobody said that they may; traces are
        asked for and their packages are not installed.
    """
    listeners: list[Listener] = []
    shown = ""
    if tracing := _tracing(config.traces):
        listeners.append(tracing)
    if config.metrics:
        address = parse_address(config.metrics)
        if address.path is not None:
            raise InvalidInput(f"[server] metrics: expected host:port, got {config.metrics!r}")
        if not address.local and not config.metrics_public:
            raise InvalidInput(
                f"[server] metrics: expected an address of this machine alone, such as 127.0.0.1:9001, got "
                f"{config.metrics!r}; metrics_public = true lets other machines read them"
            )
        from trocar.runtime.telemetry.metrics import Metrics

        metrics = Metrics(address)
        listeners.append(metrics)
        shown = f"{address.target.rpartition(':')[0]}:{metrics.port}"
    return Telemetry(listeners, address=shown)


def _tracing(endpoint: str) -> Listener | None:
    if not endpoint and not any(name.startswith("OTEL_EXPORTER_OTLP") for name in os.environ):
        return None
    try:
        from trocar.runtime.telemetry.tracing import Tracing, wanted
    except ImportError as error:
        missing = f"traces need OpenTelemetry, of which {error.name} is missing: {_EXTRA}"
        if endpoint:
            raise InvalidInput(f"[server] traces: {missing}") from error
        LOG.warning("OTEL_* variables are set, and %s", missing)
        return None
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise InvalidInput(f"[server] traces: expected http://HOST:PORT or https://, got {endpoint!r:.80}")
    return Tracing(endpoint) if endpoint or wanted() else None
