"""Spans as a collector gets them: a real one's protocol, in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra telemetry is not installed")
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc

from trocar.runtime.telemetry import Request, Telemetry, enter
from trocar.runtime.telemetry.tracing import Tracing, wanted

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(rpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.requests: list[Any] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        self.requests.append(request)
        return pb.ExportTraceServiceResponse()

    def spans(self) -> dict[str, Any]:
        return {
            span.name: span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    one = Collector()
    rpc.add_TraceServiceServicer_to_server(one, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield one, f"http://127.0.0.1:{port}"
    server.stop(0).wait()


def _attributes(span: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_request_and_its_stages(collector: tuple[Collector, str]) -> None:
    kept, endpoint = collector
    telemetry = Telemetry([Tracing(endpoint)])
    record = telemetry.stages("planning", ("read", "dose"))
    request = Request("7")
    enter(request)
    end = telemetry.begin("/a.B/C", "unary_unary", f"00-{TRACE}-{SPAN}-01", request)
    now_s = time.monotonic()
    record([("read", now_s - 0.5, now_s - 0.25), ("MUELLER^HANS", now_s, now_s)])
    request.model = "tpgan/1"
    end("INTERNAL", 0.1)
    telemetry.close()

    spans = kept.spans()
    assert set(spans) == {"a.B/C", "planning.read"}
    whole, read = spans["a.B/C"], spans["planning.read"]
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == (TRACE, SPAN)
    assert (read.trace_id, read.parent_span_id) == (whole.trace_id, whole.span_id)
    assert read.end_time_unix_nano - read.start_time_unix_nano == pytest.approx(0.25e9, abs=2)
    assert abs(read.end_time_unix_nano - time.time_ns()) < 60e9
    assert _attributes(whole) == {
        "rpc.system": "grpc",
        "rpc.service": "a.B",
        "rpc.method": "C",
        "rpc.grpc.status_code": 13,
        "trocar.request_id": "7",
        "trocar.model": "tpgan/1",
    }
    assert whole.status.code == whole.status.STATUS_CODE_ERROR
    resource = _attributes(kept.requests[0].resource_spans[0].resource)
    assert resource["service.name"] == "trocar"


def test_a_frame_is_a_trace_of_its_own(collector: tuple[Collector, str]) -> None:
    kept, endpoint = collector
    telemetry = Telemetry([Tracing(endpoint)])
    record = telemetry.stages("video", ("decode", "model"), alone=True)
    request = Request("7")
    enter(request)
    end = telemetry.begin("/a.B/C", "stream_stream", "", request)
    record([("decode", 1.0, 1.1), ("model", 1.1, 1.5)])
    end("OK", 0.1)
    telemetry.close()
    spans = kept.spans()
    stream, frame, model = spans["a.B/C"], spans["video"], spans["video.model"]
    assert frame.trace_id == model.trace_id != stream.trace_id
    assert model.parent_span_id == frame.span_id
    assert [link.span_id for link in frame.links] == [stream.span_id]
    assert frame.end_time_unix_nano - frame.start_time_unix_nano == pytest.approx(0.5e9, abs=2)


@pytest.mark.parametrize("traceparent", ["MUELLER^HANS", "00-0-0-01", f"00-{'0' * 32}-{SPAN}-01"])
def test_a_parent_that_is_none(collector: tuple[Collector, str], traceparent: str) -> None:
    kept, endpoint = collector
    telemetry = Telemetry([Tracing(endpoint)])
    telemetry.begin("/a.B/C", "unary_unary", traceparent, Request("7"))("OK", 0.1)
    telemetry.close()
    span = kept.spans()["a.B/C"]
    assert span.parent_span_id == b""
    assert "MUELLER" not in str(span)


def test_stages_of_nobody_are_no_spans(collector: tuple[Collector, str]) -> None:
    kept, endpoint = collector
    telemetry = Telemetry([Tracing(endpoint)])
    enter(Request())
    telemetry.stages("planning", ("read",))([("read", 1.0, 2.0)])
    telemetry.close()
    assert kept.spans() == {}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_what_the_environment_asks_for(environment: dict[str, str], expected: bool) -> None:
    assert wanted(environment) is expected
