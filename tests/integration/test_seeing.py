"""What can be seen of a real server: metrics, logs, traces, `trocar top`; and that no patient can."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from trocar.inference_v2 import open_inference_pb2 as oip
from trocar.v1 import planning_pb2, planning_pb2_grpc, video_pb2, video_pb2_grpc

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PATIENT = "MUELLER^HANS"
SEEN = '[server]\nmetrics = "127.0.0.1:0"\nlog_format = "json"\nlog_level = "debug"\n'


@pytest.fixture(scope="module")
def seen(start_server: Callable[..., Any]) -> Any:
    return start_server(config=SEEN)


def _metrics(server: Any) -> str:
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=20) as answer:
        return str(answer.read().decode())


def _lines(server: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def _wait_for(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def _case() -> planning_pb2.CaseInput:
    case = planning_pb2.CaseInput()
    ctv = case.contours.structures.add(name="CTV")
    for z in range(0, 45, 5):
        ctv.contours.add(z_mm=z, xy_mm=[-18, -15, 18, -15, 18, 15, -18, 15])
    return case


def _plan() -> planning_pb2.PlanRequest:
    return planning_pb2.PlanRequest(case=_case(), search=planning_pb2.SearchSettings(moves=500))


def test_a_plan_is_seen(seen: Any, trocar: Run) -> None:
    ours = "0123456789abcdef0123"
    with grpc.insecure_channel(seen.target) as channel:
        stub = planning_pb2_grpc.PlanningServiceStub(channel)
        _, call = stub.Plan.with_call(_plan(), timeout=60, metadata=(("x-request-id", ours),))
        assert dict(call.trailing_metadata())["x-request-id"] == ours
        with pytest.raises(grpc.RpcError) as raised:
            stub.Plan(planning_pb2.PlanRequest(), timeout=60)
        theirs = dict(raised.value.trailing_metadata())["x-request-id"]
    assert theirs != ours

    by_id = {line["request_id"]: line for line in _lines(seen) if "request_id" in line}
    line = by_id[ours]
    assert (line["method"], line["code"]) == ("/trocar.v1.PlanningService/Plan", "OK")
    assert (line["peer"], line["model"]) == ("ipv4", "tpgan/1")
    assert line["duration_ms"] > 0
    assert by_id[theirs]["code"] == "INVALID_ARGUMENT"

    text = _metrics(seen)
    for stage in ("read", "generate", "refine", "dose", "dvh", "validity"):
        assert f'trocar_stage_seconds_count{{part="planning",stage="{stage}"}} 1.0' in text
    plan = 'grpc_method="Plan",grpc_service="trocar.v1.PlanningService"'
    assert f'grpc_server_handled_total{{grpc_code="OK",{plan}}} 1.0' in text
    assert f'grpc_server_handled_total{{grpc_code="INVALID_ARGUMENT",{plan}}} 1.0' in text
    assert 'trocar_model_loaded{model="tpgan",service="planning",version="1"} 1.0' in text
    assert "process_resident_memory_bytes" in text

    done = trocar("top", seen.metrics, "--json", "--every", "0.2")
    document = json.loads(done.stdout)
    assert {"method": "trocar.v1.PlanningService/Plan", "requests": 2}.items() <= document["methods"][
        0
    ].items()
    done = trocar("top", seen.metrics, "--once", "--every", "0.2")
    assert done.returncode == 0
    assert "trocar.v1.PlanningService/Plan" in done.stdout
    assert "tpgan" in done.stdout


def test_every_metric_is_in_the_manual(seen: Any) -> None:
    manual = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    shown = {line.split()[2] for line in _metrics(seen).splitlines() if line.startswith("# TYPE")}
    assert len(shown) > 15
    assert [name for name in shown if not name.startswith("process_") and f"`{name}`" not in manual] == []


def test_a_stream_of_frames_is_seen(seen: Any) -> None:
    raw = video_pb2.RawPicture(
        width=64, height=48, format=video_pb2.PIXEL_FORMAT_BGR, data=bytes(64 * 48 * 3)
    )

    def requests() -> Iterator[video_pb2.AnnotateRequest]:
        yield video_pb2.AnnotateRequest(settings=video_pb2.StreamSettings())
        for number in range(40):
            yield video_pb2.AnnotateRequest(frame=video_pb2.VideoFrame(id=number, raw=raw))

    with grpc.insecure_channel(seen.target) as channel:
        replies = list(video_pb2_grpc.VideoServiceStub(channel).Annotate(requests(), timeout=100))
    text = _metrics(seen)
    samples = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    counts = {name: float(value) for name, _, value in samples}
    answered = sum(counts[f'trocar_video_frames_total{{outcome="{one}"}}'] for one in ("annotated", "ai_off"))
    drops = [value for name, value in counts.items() if name.startswith("trocar_video_frames_dropped_total")]
    assert sum(drops) == 40 - len(replies)
    assert answered >= len(replies)
    for stage in ("decode", "wait", "preprocess", "model", "postprocess", "total"):
        assert counts[f'trocar_stage_seconds_count{{part="video",stage="{stage}"}}'] >= 1
    assert counts['trocar_video_worker_ready{model="annotator"}'] == 1
    assert all('format="raw"' in name for name in counts if "frames_dropped_total{" in name)


def test_no_metrics_is_one_line(seen: Any, trocar: Run) -> None:
    done = trocar("top", "127.0.0.1:9", "--json")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(
        "trocar: error: no metrics at 127.0.0.1:9: Connection refused; `trocar serve`"
    )
    for arguments in ((seen.target,), ("nowhere",), (seen.metrics, "--every", "0")):
        done = trocar("top", *arguments, "--once")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def _walk(message: Any, depth: int = 0) -> None:
    """Put the patient's name into every text of a message, and of what is in it."""
    for field in message.DESCRIPTOR.fields:
        text = {field.TYPE_STRING: PATIENT, field.TYPE_BYTES: PATIENT.encode()}.get(field.type)
        if field.type == field.TYPE_MESSAGE and depth < 4:
            if field.message_type.GetOptions().map_entry:
                if field.message_type.fields_by_name["value"].type != field.TYPE_MESSAGE:
                    with suppress(TypeError):
                        getattr(message, field.name)[PATIENT] = PATIENT
                else:
                    with suppress(Exception):
                        _walk(getattr(message, field.name)[PATIENT], depth + 1)
            elif field.is_repeated:
                _walk(getattr(message, field.name).add(), depth + 1)
            elif field.containing_oneof is None:
                _walk(getattr(message, field.name), depth + 1)
        elif text is not None and field.containing_oneof is None:
            if field.is_repeated:
                getattr(message, field.name).append(text)
            else:
                setattr(message, field.name, text)


def _variants(kind: Any) -> Iterator[Any]:
    """The message with the name all over it, once for each choice of each `oneof`, there and one below."""
    base = kind()
    _walk(base)
    yield base
    for field in kind.DESCRIPTOR.fields:
        if field.type == field.TYPE_MESSAGE and not field.is_repeated:
            for inner in field.message_type.fields:
                one = kind()
                _walk(one)
                below = getattr(one, field.name)
                below.SetInParent()
                if inner.type == inner.TYPE_MESSAGE and not inner.is_repeated:
                    getattr(below, inner.name).SetInParent()
                    _walk(getattr(below, inner.name))
                elif inner.type == inner.TYPE_STRING and not inner.is_repeated:
                    setattr(below, inner.name, PATIENT)
                elif inner.type == inner.TYPE_BYTES and not inner.is_repeated:
                    setattr(below, inner.name, PATIENT.encode())
                yield one


METADATA = (
    ("x-request-id", PATIENT),
    ("traceparent", PATIENT),
    ("tracestate", f"x={PATIENT}"),
    ("baggage", f"patient={PATIENT}"),
    ("patient", PATIENT),
    ("user-agent", PATIENT),
)


class _Collector:
    """Takes spans as an OpenTelemetry collector does, without reading them."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        take = grpc.unary_unary_rpc_method_handler(self._take)
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"Export": take}),)
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _take(self, request: bytes, _: Any) -> bytes:
        self.received.append(request)
        return b""

    def stop(self) -> None:
        self._server.stop(0).wait()


def test_a_patient_s_name_in_every_field_is_nowhere_to_be_seen(start_server: Callable[..., Any]) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="the extra telemetry is not installed")
    collector = _Collector()
    server = start_server(config=SEEN + f'traces = "http://127.0.0.1:{collector.port}"\n')
    calls: list[tuple[str, Any]] = [
        (f"/trocar.v1.PlanningService/{name}", request)
        for name, kind in (("Plan", planning_pb2.PlanRequest), ("Evaluate", planning_pb2.EvaluateRequest))
        for request in _variants(kind)
    ]
    inference = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    calls += [
        (f"/{inference.full_name}/{method.name}", request)
        for method in inference.methods
        if not method.client_streaming
        for request in _variants(getattr(oip, method.input_type.name))
    ]
    refused = 0
    with grpc.insecure_channel(server.target) as channel:
        for method, request in calls:
            try:
                channel.unary_unary(method)(request.SerializeToString(), timeout=60, metadata=METADATA)
            except grpc.RpcError:
                refused += 1
        for method in ("/trocar.v1.PlanningService/Plan", "/inference.GRPCInferenceService/ModelInfer"):
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(method)(PATIENT.encode(), timeout=60, metadata=METADATA)
        for request in _variants(video_pb2.AnnotateRequest):
            settings = video_pb2.AnnotateRequest(settings=video_pb2.StreamSettings(model=PATIENT))
            stub = video_pb2_grpc.VideoServiceStub(channel)
            for stream in ([request], [settings, request], [video_pb2.AnnotateRequest(settings={}), request]):
                with suppress(grpc.RpcError):
                    list(stub.Annotate(iter(stream), timeout=60, metadata=METADATA))
        planned = _plan()
        extra = planned.case.contours.structures.add(name=PATIENT)
        extra.contours.add(z_mm=20, xy_mm=[-1, -1, 1, -1, 1, 1])
        planning_pb2_grpc.PlanningServiceStub(channel).Plan(planned, timeout=60, metadata=METADATA)
    assert refused > 20
    text = _metrics(server)
    assert server.stop() == 0
    collector.stop()
    spans = b"".join(collector.received)
    assert b"trocar.v1.PlanningService/Plan" in spans
    assert b"planning.refine" in spans
    logs = server.log.read_text()
    assert logs.count('"method"') > len(calls)
    for where in (logs, text, spans.decode("latin1")):
        for part in ("MUELLER", "HANS"):
            assert part not in where.upper()


def test_metrics_stay_few_whatever_clients_send(seen: Any) -> None:
    """Method and model names that clients make up are no labels."""
    before = _metrics(seen).count("\n")
    with grpc.insecure_channel(seen.target) as channel:
        for number in range(30):
            request = oip.ModelInferRequest(model_name=f"model-{number}").SerializeToString()
            for method in (f"/made.up/{number}", f"/inference.GRPCInferenceService/M{number}"):
                with pytest.raises(grpc.RpcError):
                    channel.unary_unary(method)(request, timeout=20)
            with pytest.raises(grpc.RpcError):
                channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(request, timeout=20)
    # One method more, with its buckets and one code.
    assert _metrics(seen).count("\n") - before < 40


def test_waiting_is_seen(start_server: Callable[..., Any]) -> None:
    server = start_server(config=SEEN + "max_running = 1\nmax_queued = 4\n")
    with grpc.insecure_channel(server.target) as channel:
        stub = planning_pb2_grpc.PlanningServiceStub(channel)
        long = planning_pb2.PlanRequest(case=_case(), search=planning_pb2.SearchSettings(budget_ms=50_000))
        calls = [stub.Plan.future(long) for _ in range(3)]  # no deadline: all may wait
        _wait_for(lambda: 'trocar_queue_waiting{queue="planning"} 2.0' in _metrics(server))
        text = _metrics(server)
        assert 'trocar_queue_running{queue="planning"} 1.0' in text
        assert "trocar_requests_in_flight 3.0" in text
        for call in calls:
            call.cancel()
        _wait_for(lambda: "trocar_requests_in_flight 0.0" in _metrics(server))


def test_an_address_that_others_reach_is_refused(trocar: Run, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[server]\nlisten = "127.0.0.1:0"\nmetrics = "0.0.0.0:9001"\n')
    done = trocar("serve", "--config", tmp_path / "c.toml")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "metrics_public = true" in done.stderr
