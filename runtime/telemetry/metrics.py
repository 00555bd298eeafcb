"""Metrics for Prometheus, over HTTP. The only module that knows `prometheus_client`, but for `trocar top`."""

from __future__ import annotations

import logging
import socket
import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from http.server import ThreadingHTTPServer
from itertools import accumulate
from socketserver import TCPServer
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import MetricsHandler
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from trocar.runtime.errors import InvalidInput
from trocar.runtime.server.address import Address
from trocar.runtime.telemetry import Ended, Family, Read, Record, Request, Stage

LOG = logging.getLogger("trocar.server")
# From a small model's answer to the longest search, s.
BUCKETS_S = (
    *(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.033, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
)
# Of the endpoint: a client that sends nothing is let go, and more at once are turned away.
_TIMEOUT_S, _MAX_CLIENTS = 10.0, 8
_KINDS: dict[str, Any] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "summary": SummaryMetricFamily,
}


class Metrics:
    """Counts, and answers whoever asks; a `Listener`.

    Parameters
    ----------
    address : where to answer.

    Raises
    ------
    InvalidInput
        The address cannot be bound.
    """

    def __init__(self, address: Address) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._meters: dict[str, _Meter] = {}
        self._timed: dict[tuple[str, str], _Histogram] = {}
        self._reads = _Reads()
        self.registry.register(self._reads)
        self.registry.register(_Own(self._meters, self._timed))
        ProcessCollector(registry=self.registry)
        self._endpoint = _bind(address, self.registry)
        self.port: int = self._endpoint.server_port
        threading.Thread(target=self._endpoint.serve_forever, name="metrics", daemon=True).start()

    def stages(self, part: str, names: Sequence[str], *, timed: bool, alone: bool) -> Record | None:  # noqa: ARG002
        """Return what observes stages; each histogram is bound here and not when it is observed."""
        if not timed:
            return None
        observe = {name: self._timed.setdefault((part, name), _Histogram()).observe for name in names}

        def record(stages: Sequence[Stage]) -> None:
            for name, began_s, ended_s in stages:
                if name in observe:
                    observe[name](ended_s - began_s)

        return record

    def collect(self, read: Read) -> None:
        """Read with every scrape."""
        self._reads.all.append(read)

    def begin(self, method: str, kind: str, traceparent: str, request: Request) -> Ended:  # noqa: ARG002
        """Return what counts the request."""
        meter = self._meters.get(method)
        if meter is None:
            meter = self._meters.setdefault(method, _Meter())
        return meter.end

    def close(self) -> None:
        """Answer nobody any more."""
        self._endpoint.shutdown()
        self._endpoint.server_close()


class _Histogram:
    """Counts by bucket. A bisection and a lock: the library's own walks through the bounds, in 5 us."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = [0] * (len(BUCKETS_S) + 1)
        self._sum_s = 0.0

    def observe(self, took_s: float) -> None:
        at = bisect_left(BUCKETS_S, took_s)
        with self._lock:
            self._counts[at] += 1
            self._sum_s += took_s

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """Return bounds with how many were at or below each, and the sum."""
        with self._lock:
            counts, sum_s = tuple(self._counts), self._sum_s
        bounds = [*map(repr, BUCKETS_S), "+Inf"]
        return list(zip(bounds, map(float, accumulate(counts)), strict=True)), sum_s


class _Meter(_Histogram):
    """One method's requests."""

    def __init__(self) -> None:
        super().__init__()
        self.codes: dict[str, int] = {}

    def end(self, code: str, took_s: float) -> None:
        at = bisect_left(BUCKETS_S, took_s)
        with self._lock:
            self._counts[at] += 1
            self._sum_s += took_s
            self.codes[code] = self.codes.get(code, 0) + 1


class _Own(Collector):
    """What is counted here."""

    def __init__(self, meters: dict[str, _Meter], timed: dict[tuple[str, str], _Histogram]) -> None:
        self._meters, self._timed = meters, timed

    def collect(self) -> Iterator[Any]:
        labels = ("grpc_service", "grpc_method")
        handled = CounterMetricFamily(
            "grpc_server_handled", "Requests answered, by status.", labels=(*labels, "grpc_code")
        )
        took = HistogramMetricFamily(
            "grpc_server_handling_seconds",
            "From a request's arrival to its answer; of a stream, to its end.",
            labels=labels,
        )
        for method, meter in list(self._meters.items()):
            service, _, name = method.lstrip("/").partition("/")
            for code, count in list(meter.codes.items()):
                handled.add_metric((service, name, code), count)
            took.add_metric((service, name), *meter.read())
        stages = HistogramMetricFamily(
            "trocar_stage_seconds", "Time in one stage of a request, or of a frame.", labels=("part", "stage")
        )
        for (part, stage), histogram in list(self._timed.items()):
            stages.add_metric((part, stage), *histogram.read())
        yield from (handled, took, stages)


class _Reads(Collector):
    """What is read when somebody asks; rows of one name from several places are one family."""

    def __init__(self) -> None:
        self.all: list[Read] = []

    def collect(self) -> Iterator[Any]:
        found: dict[str, Any] = {}
        for read in tuple(self.all):
            try:
                families = list(read())
            except Exception:
                LOG.exception("a metric cannot be read")
                continue
            for family in families:
                _add(found, family)
        yield from found.values()


def _add(found: dict[str, Any], family: Family) -> None:
    if family.name not in found:
        found[family.name] = _KINDS[family.kind](family.name, family.help, labels=family.labels)
    for labels, value in family.rows:
        if isinstance(value, tuple):
            found[family.name].add_metric(labels, count_value=value[0], sum_value=value[1])
        else:
            found[family.name].add_metric(labels, value)


def _bind(address: Address, registry: CollectorRegistry) -> ThreadingHTTPServer:
    class Handler(MetricsHandler):
        timeout = _TIMEOUT_S

    Handler.registry = registry
    try:
        return _Endpoint(address, Handler)
    except OSError as error:
        raise InvalidInput(f"cannot show metrics on {address.target}: {error.strerror}") from error


class _Endpoint(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: Address, handler: Any) -> None:
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._free = threading.Semaphore(_MAX_CLIENTS)
        super().__init__((address.host, address.port), handler)

    def server_bind(self) -> None:
        """Bind, without asking the network for this machine's name as `HTTPServer` does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, of which there are a few."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Give the thread back at the end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""
