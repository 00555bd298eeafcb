"""Spans for OpenTelemetry, over OTLP. The only module that knows `opentelemetry`, of the extra `telemetry`.

Parents are kept in the request and not in OpenTelemetry's context: stages are told after they ended, and some
of them by other threads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from trocar.runtime.telemetry import Ended, Read, Record, Request, Stage, current
from trocar.runtime.versions import installed

_NAME = "service.name"
# Spans that wait for the collector when the server ends get this long.
_FLUSH_MS = 3000
# Of gRPC's codes as OpenTelemetry counts them; those that are the server's own fault.
_FAULTS = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether OpenTelemetry's own variables ask for traces."""
    asked = any(environment.get(f"OTEL_EXPORTER_OTLP_{name}ENDPOINT") for name in ("", "TRACES_"))
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return asked and not off and environment.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"


class Tracing:
    """Makes spans; a `Listener`.

    Parameters
    ----------
    endpoint : of the collector, such as `http://127.0.0.1:4317`; empty as the `OTEL_*` variables say.
    """

    def __init__(self, endpoint: str = "") -> None:
        facts = {"service.version": installed("trocar")}
        resource = Resource.create(facts)
        if str(resource.attributes.get(_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({_NAME: "trocar"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint or None)))
        self._tracer = self._provider.get_tracer("trocar", facts["service.version"])
        self._propagator = TraceContextTextMapPropagator()

    def stages(
        self,
        part: str,
        names: Sequence[str],
        *,
        timed: bool,  # noqa: ARG002
        alone: bool,
    ) -> Record | None:
        """Return what makes a span of each stage, below the request's or below one of their own."""
        spans = {name: f"{part}.{name}" for name in names}

        def record(stages: Sequence[Stage]) -> None:
            parent = current().trace
            if not stages or (parent is None and not alone):
                return
            since_ns = _epoch_ns()
            whole: Any = None
            if alone:
                links = [Link(_span_of(parent))] if parent is not None else []
                began = min(began_s for _, began_s, _ in stages)
                whole = self._tracer.start_span(part, None, links=links, start_time=_ns(began, since_ns))
                parent = set_span_in_context(whole, parent)
            for name, began_s, ended_s in stages:
                if name in spans:
                    span = self._tracer.start_span(spans[name], parent, start_time=_ns(began_s, since_ns))
                    span.end(_ns(ended_s, since_ns))
            if whole is not None:
                whole.end(_ns(max(ended_s for _, _, ended_s in stages), since_ns))

        return record

    def collect(self, read: Read) -> None:
        """Traces hold no values."""

    def begin(self, method: str, kind: str, traceparent: str, request: Request) -> Ended:  # noqa: ARG002
        """Begin a request's span, under the caller's where it names one."""
        name = method.lstrip("/")
        # Of the caller's context the trace alone: tracestate and baggage are free text.
        carrier = {"traceparent": traceparent} if traceparent else {}
        service, _, short = name.partition("/")
        span = self._tracer.start_span(
            name,
            self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": short,
                "trocar.request_id": request.id,
            },
        )
        request.trace = set_span_in_context(span)

        def end(code: str, _: float) -> None:
            span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[code].value[0])
            if request.model:
                span.set_attribute("trocar.model", request.model)
            if code in _FAULTS:
                span.set_status(Status(StatusCode.ERROR))
            span.end()

        return end

    def close(self) -> None:
        """Send what waits, for a few seconds at most."""
        self._provider.force_flush(_FLUSH_MS)
        self._provider.shutdown()


def _span_of(context: Any) -> Any:
    from opentelemetry.trace import get_current_span

    return get_current_span(context).get_span_context()


def _epoch_ns() -> int:
    """What lies between the monotonic clock and the epoch's; asked anew each time, since that one jumps."""
    return time.time_ns() - time.monotonic_ns()


def _ns(seconds: float, since_ns: int) -> int:
    return since_ns + int(seconds * 1e9)
