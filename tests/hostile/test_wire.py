"""Hostile bytes and messages on the wire; after each the server is healthy and plans."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from trocar.v1 import planning_pb2, planning_pb2_grpc

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
PHANTOM = planning_pb2.CaseInput(phantom_seed=7)
QUICK = planning_pb2.SearchSettings(moves=2_000)


@pytest.fixture(autouse=True)
def _alive_after(server: Any) -> Iterator[None]:
    yield
    assert server.process.poll() is None
    with grpc.insecure_channel(server.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        check = health_pb2.HealthCheckRequest(service="trocar.v1.PlanningService")
        assert health.Check(check, timeout=5).status == health_pb2.HealthCheckResponse.SERVING
        reply = planning_pb2_grpc.PlanningServiceStub(channel).Plan(
            planning_pb2.PlanRequest(case=PHANTOM, search=QUICK), timeout=60
        )
        assert reply.seeds > 0


def _refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    details = raised.value.details()
    assert "\n" not in details
    assert "Traceback" not in details
    return raised.value.code(), details


def _settings(**changes: Any) -> planning_pb2.PlanRequest:
    return planning_pb2.PlanRequest(case=PHANTOM, settings=planning_pb2.PlanSettings(**changes), search=QUICK)


def _contours(*polygons: list[float]) -> planning_pb2.PlanRequest:
    case = planning_pb2.CaseInput()
    ctv = case.contours.structures.add(name="CTV")
    for z_mm, xy_mm in enumerate(polygons):
        ctv.contours.add(z_mm=5.0 * z_mm, xy_mm=xy_mm)
    return planning_pb2.PlanRequest(case=case, search=QUICK)


MESSAGES = {
    "no case": (planning_pb2.PlanRequest(), INVALID, "expected a case"),
    "an empty file": (planning_pb2.PlanRequest(case=planning_pb2.CaseInput(nrrd=b"")), INVALID, "empty"),
    "noise": (
        planning_pb2.PlanRequest(case=planning_pb2.CaseInput(rtstruct=b"\0\1\2" * 99)),
        INVALID,
        "neither",
    ),
    "no contours": (_contours(), INVALID, "empty"),
    "half a point": (_contours([0, 0, 1]), INVALID, "pairs x, y"),
    "two points": (_contours([0, 0, 1, 1]), INVALID, "3 points"),
    "a point at NaN": (_contours([0, 0, 1, 1, float("nan"), 0]), INVALID, "finite"),
    "a patient of a kilometre": (_contours([0, 0, 1e6, 0, 1e6, 1e6]), INVALID, "CTV"),
    "a line": (_contours([0, 0, 1, 0, 2, 0], [0, 0, 1, 0, 2, 0]), INVALID, "CTV"),
    "no such protocol": (_settings(protocol="none"), NOT_FOUND, "got 'none'"),
    "no such source": (_settings(source="none"), NOT_FOUND, "unknown source"),
    "a file of the server's for a protocol": (_settings(protocol="/etc/x.toml"), NOT_FOUND, "/etc/x.toml"),
    "a file of the server's for a source": (_settings(source="/etc/x.json"), NOT_FOUND, "/etc/x.json"),
    "strength 100 U": (_settings(strength_u=100.0), INVALID, "got 100"),
    "strength NaN": (_settings(strength_u=float("nan")), INVALID, "got nan"),
    "prescription 0": (_settings(prescription_gy=0.0), INVALID, "prescription"),
    "an empty template": (_settings(template=planning_pb2.Template()), INVALID, "origin of 2 values"),
    "empty planes": (_settings(planes=planning_pb2.Planes()), INVALID, "planes pitch"),
    "unknown artifact": (
        planning_pb2.PlanRequest(case=PHANTOM, search=QUICK, artifacts=["../../etc/passwd"]),
        INVALID,
        "expected artifacts",
    ),
    "endless moves": (
        planning_pb2.PlanRequest(case=PHANTOM, search=planning_pb2.SearchSettings(moves=2**60)),
        INVALID,
        "moves",
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_hostile_message(stub: Any, name: str) -> None:
    request, code, says = MESSAGES[name]
    found, details = _refused(lambda: stub.Plan(request, timeout=30))
    assert (found, says in details) == (code, True), details


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (planning_pb2.EvaluateRequest(case=PHANTOM), "expected a plan, got none"),
        (planning_pb2.EvaluateRequest(case=PHANTOM, plan=planning_pb2.Plan()), "schema"),
        (planning_pb2.EvaluateRequest(case=PHANTOM, plan_file=b"{}", dose_grid_mm=1e-3), "dose grid"),
        (planning_pb2.EvaluateRequest(case=PHANTOM, plan_file=b"{}", dose_grid_mm=float("nan")), "dose grid"),
    ],
)
def test_a_hostile_evaluation(stub: Any, request_: planning_pb2.EvaluateRequest, says: str) -> None:
    code, details = _refused(lambda: stub.Evaluate(request_, timeout=30))
    assert code is INVALID
    assert says in details


def test_bytes_that_are_no_message(server: Any) -> None:
    with grpc.insecure_channel(server.target) as channel:
        plan = channel.unary_unary("/trocar.v1.PlanningService/Plan")
        code, details = _refused(lambda: plan(b"\xff" * 100, timeout=10))
    assert code is INVALID
    assert "do not parse" in details


def test_methods_and_services_that_are_not_there(server: Any) -> None:
    with grpc.insecure_channel(server.target) as channel:
        for method in ("/trocar.v1.PlanningService/Cure", "/trocar.v1.Nothing/Plan"):
            code, _ = _refused(lambda method=method: channel.unary_unary(method)(b"", timeout=10))
            assert code is grpc.StatusCode.UNIMPLEMENTED


GIGABYTE = """
import sys, grpc
from trocar.v1 import planning_pb2, planning_pb2_grpc
options = [("grpc.max_send_message_length", -1)]
request = planning_pb2.PlanRequest(case=planning_pb2.CaseInput(nrrd=bytes(1 << 30)))
with grpc.insecure_channel(sys.argv[1], options=options) as channel:
    try:
        planning_pb2_grpc.PlanningServiceStub(channel).Plan(request, timeout=100)
    except grpc.RpcError as error:
        print(error.code().name)
"""


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_a_request_of_a_gigabyte(server: Any) -> None:
    """In a process of its own: the hostile client needs gigabytes, the server must not."""
    before = _resident_mib(server.process.pid)
    done = subprocess.run(
        [sys.executable, "-c", GIGABYTE, server.target],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "RESOURCE_EXHAUSTED\n", done.stderr
    assert _resident_mib(server.process.pid) - before < 200


def test_a_gigabyte_that_came_compressed(server: Any) -> None:
    """One megabyte on the wire: the limit holds for what it inflates to."""
    before = _resident_mib(server.process.pid)
    script = GIGABYTE.replace("options=options", "options=options, compression=grpc.Compression.Gzip")
    done = subprocess.run(
        [sys.executable, "-c", script, server.target],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "RESOURCE_EXHAUSTED\n", done.stderr
    assert _resident_mib(server.process.pid) - before < 400


def test_just_over_the_limit(stub: Any) -> None:
    request = planning_pb2.PlanRequest(case=planning_pb2.CaseInput(nrrd=bytes(64 << 20)))
    code, details = _refused(lambda: stub.Plan(request, timeout=60))
    assert code is EXHAUSTED
    assert "67108864" in details


GARBAGE = {
    "noise": os.urandom(65536),
    "zeros": bytes(65536),
    "http 1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": bytes.fromhex("160301020001000001fc0303") + bytes(500),
    "preface then noise": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 4096,
    "a frame of 16 MB claimed": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    "half a preface": b"PRI * HT",
    "nothing": b"",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_on_the_port(server: Any, name: str) -> None:
    host, port = server.target.rsplit(":", 1)
    for _ in range(5):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.settimeout(0.2)
            try:
                connection.sendall(GARBAGE[name])
                connection.recv(65536)
            except OSError:
                pass  # closed on us, or silent: both are fine


def test_connections_left_open(server: Any) -> None:
    host, port = server.target.rsplit(":", 1)
    held = [socket.create_connection((host, int(port)), timeout=5) for _ in range(50)]
    with grpc.insecure_channel(server.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=5)
    for connection in held:
        connection.close()


def test_a_call_that_is_cut_at_every_moment(server: Any) -> None:
    """Cancelled at once, or a little later: nothing stays behind that refuses the next."""
    with grpc.insecure_channel(server.target) as channel:
        stub = planning_pb2_grpc.PlanningServiceStub(channel)
        for delay_s in (0.0, 0.005, 0.02, 0.05, 0.1, 0.2):
            call = stub.Plan.future(
                planning_pb2.PlanRequest(case=PHANTOM, search=planning_pb2.SearchSettings(budget_ms=5_000)),
                timeout=60,
            )
            time.sleep(delay_s)
            call.cancel()


def test_nothing_of_all_this_was_an_internal_error(server: Any) -> None:
    log = server.log.read_text()
    assert "Traceback" not in log
    assert " INTERNAL " not in log
