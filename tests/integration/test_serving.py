"""A real `trocar serve` in one process, real clients in others."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from trocar.planners.requests import OUTPUTS
from trocar.runtime.repository.store import Repository, shipped
from trocar.v1 import planning_pb2, planning_pb2_grpc

SERVICE = "trocar.v1.PlanningService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
REPEATABLE = ("--moves", "20000", "--seed", "3")
# As few moves as show the path; the quality of plans is not at issue here.
QUICK = planning_pb2.SearchSettings(moves=2_000)
LONG = planning_pb2.SearchSettings(budget_ms=50_000)
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def stub(server: Any) -> Iterator[planning_pb2_grpc.PlanningServiceStub]:
    with grpc.insecure_channel(server.target, options=[("grpc.max_receive_message_length", -1)]) as channel:
        yield planning_pb2_grpc.PlanningServiceStub(channel)


def _request(
    search: planning_pb2.SearchSettings = QUICK, seed: int = 7, **more: Any
) -> planning_pb2.PlanRequest:
    return planning_pb2.PlanRequest(case=planning_pb2.CaseInput(phantom_seed=seed), search=search, **more)


def _wait_for(condition: Callable[[], bool], timeout_s: float = 40.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def _health(target: str, name: str = SERVICE) -> Any:
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=20).status


def _document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode in (0, 1), done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _comparable(document: dict[str, Any]) -> dict[str, Any]:
    """Drop what may differ from run to run: how long it took, and when."""
    document = json.loads(json.dumps(document))
    del document["timing_ms"]
    plans = [document["plan"], *(other["plan"] for other in document["alternatives"])]
    for provenance in (document["provenance"], *(plan["provenance"] for plan in plans)):
        for name in ("created", "plan_sha256"):  # the digest is of the creation too
            provenance.pop(name, None)
    return document


@pytest.fixture(scope="module")
def in_process(trocar: Run) -> dict[str, Any]:
    return _document(trocar("plan", "phantom:7", *REPEATABLE, "--json"))


def test_a_server_gives_the_plan_that_the_process_gives(
    trocar: Run, server: Any, in_process: dict[str, Any]
) -> None:
    served = _document(trocar("plan", "phantom:7", *REPEATABLE, "--json", "--server", server.target))
    assert served["plan"]["needles"] == in_process["plan"]["needles"]
    assert _comparable(served) == _comparable(in_process)
    assert in_process["seeds"] > 20


def test_a_server_gives_the_alternatives_that_the_process_gives(trocar: Run, server: Any) -> None:
    asked = ("plan", "phantom:7", *REPEATABLE, "--alternatives", "1", "--json")
    served, in_process = (_document(trocar(*asked, *where)) for where in (("--server", server.target), ()))
    assert _comparable(served) == _comparable(in_process)
    assert len(served["alternatives"]) == 1
    assert served["alternatives"][0]["plan"]["needles"] != served["plan"]["needles"]


def test_the_same_over_a_unix_socket(
    trocar: Run, start_server: Any, tmp_path: Path, in_process: dict[str, Any]
) -> None:
    path = tmp_path / "t.sock"
    server = start_server(f"unix:{path}")
    served = _document(trocar("plan", "phantom:7", *REPEATABLE, "--json", "--server", f"unix:{path}"))
    assert _comparable(served) == _comparable(in_process)
    assert server.stop() == 0
    assert not path.exists()


def test_a_file_gives_the_plan_that_its_phantom_gives_it(trocar: Run, server: Any, tmp_path: Path) -> None:
    """The segmentation goes to the server as bytes, and comes out as in process."""
    file = tmp_path / "phantom7.seg.nrrd"
    assert trocar("phantom", "7", "-o", file).returncode == 0
    here = _document(trocar("plan", file, *REPEATABLE, "--json"))
    there = _document(trocar("plan", file, *REPEATABLE, "--json", "--server", server.target))
    assert _comparable(there) == _comparable(here)
    assert len(here["provenance"]["input_sha256"]) == 64


def test_another_seed_gives_another_plan(trocar: Run, server: Any, in_process: dict[str, Any]) -> None:
    other = ("--moves", "20000", "--seed", "4")
    served = _document(trocar("plan", "phantom:7", *other, "--json", "--server", server.target))
    assert served["plan"]["needles"] != in_process["plan"]["needles"]


def test_files_come_from_the_server(trocar: Run, server: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = trocar("plan", "phantom:7", *REPEATABLE, "--server", server.target, "-o", out)
    assert done.returncode in (0, 1), done.stderr
    assert sorted(path.name for path in out.iterdir()) == sorted(OUTPUTS)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    plan = json.loads((out / "plan.json").read_text())
    assert plan["schema"] == "trocar.plan/1"
    assert (out / "dvh.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "dose.nrrd").read_bytes().startswith(b"NRRD")
    assert "<html" in (out / "report.html").read_text()
    assert "wrote" in done.stdout


def test_a_plan_file_is_proved_as_it_was_planned(trocar: Run, server: Any, tmp_path: Path) -> None:
    planned = _document(trocar("plan", "phantom:7", *REPEATABLE, "--json", "-o", tmp_path / "out"))
    plan = tmp_path / "out" / "plan.json"
    here = _document(trocar("evaluate", "phantom:7", plan, "--json"))
    there = _document(trocar("evaluate", "phantom:7", plan, "--json", "--server", server.target))
    assert _comparable(there) == _comparable(here)
    assert here["plan"]["needles"] == planned["plan"]["needles"]
    assert here["metrics"]["ctv"] == pytest.approx(planned["metrics"]["ctv"], rel=1e-6)


def test_a_plan_message_is_evaluated_as_its_file(stub: Any) -> None:
    planned = stub.Plan(_request(), timeout=60)
    case = planning_pb2.CaseInput(phantom_seed=7)
    proved = stub.Evaluate(planning_pb2.EvaluateRequest(case=case, plan=planned.plan), timeout=60)
    assert proved.metrics["ptv"].d90_gy == pytest.approx(planned.metrics["ptv"].d90_gy, rel=1e-6)
    assert [needle.label for needle in proved.plan.needles] == [
        needle.label for needle in planned.plan.needles
    ]


def test_a_poor_plan_is_no_error(stub: Any, trocar: Run, server: Any) -> None:
    """One move from seeds in random order: a plan, but not one that covers."""
    reply = stub.Plan(_request(planning_pb2.SearchSettings(moves=1, start="random")), timeout=60)
    assert not reply.validity.acceptable
    assert any(finding.severity == "fail" for finding in reply.validity.findings)
    done = trocar(
        "plan", "phantom:7", "--moves", "1", "--start", "random", "--json", "--server", server.target
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["validity"]["acceptable"] is False


def test_contours_in_the_request(stub: Any) -> None:
    case = planning_pb2.CaseInput()
    ctv = case.contours.structures.add(name="CTV")
    for z in range(0, 45, 5):
        ctv.contours.add(z_mm=z, xy_mm=[-18, -15, 18, -15, 18, 15, -18, 15])
    reply = stub.Plan(planning_pb2.PlanRequest(case=case, search=QUICK), timeout=60)
    assert reply.metrics["ctv"].volume_cc == pytest.approx(36 * 30 * 45 / 1000, rel=0.05)
    assert {"urethra", "ptv"} <= set(reply.metrics)


def test_the_deadline_bounds_the_search(stub: Any) -> None:
    start = time.monotonic()
    reply = stub.Plan(_request(LONG), timeout=5.0)
    assert time.monotonic() - start < 5.0
    assert reply.seeds > 0
    assert reply.timing_ms["refine"] > 1_000


def test_an_exact_number_of_moves_is_cut_by_the_deadline(stub: Any) -> None:
    reply = stub.Plan(_request(planning_pb2.SearchSettings(moves=25_000_000, chains=2)), timeout=4.0)
    assert reply.provenance["stopped_early"] is True


def test_a_deadline_too_short_is_refused_at_once(stub: Any) -> None:
    start = time.monotonic()
    with pytest.raises(grpc.RpcError) as raised:
        stub.Plan(_request(), timeout=0.3)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "expected a deadline of more than 400 ms" in raised.value.details()
    assert time.monotonic() - start < 0.25


def test_a_full_queue_refuses_and_a_cancelled_call_makes_room(start_server: Any) -> None:
    server = start_server(config="[server]\nmax_running = 1\nmax_queued = 0\n")
    with grpc.insecure_channel(server.target) as channel:
        stub = planning_pb2_grpc.PlanningServiceStub(channel)
        long = stub.Plan.future(_request(LONG), timeout=60)

        def refused() -> bool:
            error = stub.Plan.future(_request(), timeout=30).exception()
            return (
                error is not None
                and error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                and "try again later" in error.details()
            )

        time.sleep(1.0)  # a probe that came first would take the slot itself
        assert not long.done()
        assert refused()
        assert _health(server.target) == SERVING  # full is not ill
        long.cancel()
        _wait_for(lambda: not refused())
    _wait_for(lambda: "/trocar.v1.PlanningService/Plan CANCELLED" in server.log.read_text())


def test_a_client_that_dies_frees_its_place(start_server: Any) -> None:
    server = start_server(config="[server]\nmax_running = 1\nmax_queued = 1\n")
    command = [sys.executable, "-m", "trocar.runtime.cli", "plan", "phantom:7", "--budget-ms", "50000"]
    client = subprocess.Popen([*command, "--server", server.target], stderr=subprocess.DEVNULL)
    with grpc.insecure_channel(server.target) as channel:
        stub = planning_pb2_grpc.PlanningServiceStub(channel)

        def planned() -> bool:
            try:
                return bool(stub.Plan(_request(), timeout=8).seeds)
            except grpc.RpcError:
                return False

        _wait_for(lambda: not planned())
        client.kill()
        client.wait()
        _wait_for(planned)


def test_health_per_service_and_reflection(start_server: Any) -> None:
    server = start_server(config='[server]\nreflection = true\nservices = "planning"\n')
    assert _health(server.target, "") == SERVING
    assert _health(server.target, SERVICE) == SERVING
    with grpc.insecure_channel(server.target) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asks = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
        ]
        listed, described = stub.ServerReflectionInfo(iter(asks), timeout=20)
    assert SERVICE in {service.name for service in listed.list_services_response.service}
    assert described.file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_is_in_flight(start_server: Any, signal_number: int) -> None:
    server = start_server()
    with grpc.insecure_channel(server.target) as channel, ThreadPoolExecutor(1) as pool:
        stub = planning_pb2_grpc.PlanningServiceStub(channel)
        search = planning_pb2.SearchSettings(budget_ms=6_000)
        flying = pool.submit(stub.Plan, _request(search), timeout=60)
        time.sleep(1.0)
        server.process.send_signal(signal_number)
        _wait_for(lambda: "draining" in server.log.read_text())
        _wait_for(lambda: _health(server.target) == NOT_SERVING)
        with pytest.raises(grpc.RpcError) as raised:
            stub.Plan(_request(), timeout=30)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert flying.result(timeout=30).seeds > 0
    assert server.process.wait(60) == 0
    assert "Traceback" not in server.log.read_text()


def test_a_second_signal_does_not_wait(start_server: Any) -> None:
    server = start_server(config="[server]\ndrain_grace_s = 120\n")
    with grpc.insecure_channel(server.target) as channel:
        long = planning_pb2_grpc.PlanningServiceStub(channel).Plan.future(_request(LONG), timeout=100)
        time.sleep(1.0)
        server.process.send_signal(signal.SIGTERM)
        _wait_for(lambda: "draining" in server.log.read_text())
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 3
        assert isinstance(long.exception(), grpc.RpcError)
    assert "trocar: error: the drain ended with 1 request(s) cut short\n" in server.log.read_text()


def test_a_killed_server_leaves_a_socket_that_the_next_one_takes(start_server: Any, tmp_path: Path) -> None:
    path = tmp_path / "t.sock"
    server = start_server(f"unix:{path}")
    server.stop(signal.SIGKILL)
    assert path.exists()
    again = start_server(f"unix:{path}")
    assert _health(f"unix:{path}") == SERVING
    assert again.stop() == 0


def test_an_interrupted_search_ends_at_once_and_writes_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trocar.runtime.cli", "plan", "phantom:7", "--budget-ms", "60000"]
    with subprocess.Popen([*command, "-o", tmp_path / "out"], stderr=subprocess.PIPE, text=True) as client:
        time.sleep(3.0)
        client.send_signal(signal.SIGINT)
        _, error = client.communicate(timeout=40)
    assert (client.returncode, error) == (130, "trocar: error: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_an_address_in_use_is_one_line(trocar: Run, server: Any, tmp_path: Path) -> None:
    done = trocar("serve", "--listen", server.target)
    assert done.returncode == 2
    assert done.stderr == f"trocar: error: cannot listen on {server.target}: Address already in use\n"
    (tmp_path / "c.toml").write_text("[services.planning]\nmax_move = 3\n")
    done = trocar("serve", "--listen", "127.0.0.1:0", "--config", tmp_path / "c.toml")
    assert done.returncode == 2
    assert "[services.planning]: unknown key 'max_move'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_server_is_one_line(trocar: Run) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = f"127.0.0.1:{probe.getsockname()[1]}"
    done = trocar("plan", "phantom:7", "--server", free)
    assert done.returncode == 3
    assert done.stderr.startswith(f"trocar: error: no server at {free}: ")
    assert done.stderr.count("\n") == 1


def test_limits_of_the_configuration_hold(start_server: Any) -> None:
    server = start_server(config="[services.planning]\nmax_moves = 1000\nmax_budget_ms = 500\n")
    with grpc.insecure_channel(server.target) as channel:
        stub = planning_pb2_grpc.PlanningServiceStub(channel)
        for search in (QUICK, LONG, planning_pb2.SearchSettings(moves=600, chains=2)):
            with pytest.raises(grpc.RpcError) as raised:
                stub.Plan(_request(search), timeout=30)
            assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "expected at most" in raised.value.details()


def test_a_clinical_case_over_grpc(trocar: Run, server: Any, shared_dir: Path, tmp_path: Path) -> None:
    """The issue's main job: a real prostate against a running server gives a valid plan with its proof."""
    case = shared_dir / "cases" / "ldr_clinical" / "case1.seg.nrrd"
    settings = ("--strength-u", "0.42", "--prescription-gy", "144")
    done = trocar(
        "plan",
        case,
        *settings,
        "--moves",
        "300000",
        "--json",
        "--server",
        server.target,
        "-o",
        tmp_path / "out",
    )
    document = json.loads(done.stdout)
    failed = [finding for finding in document["validity"]["findings"] if finding["severity"] == "fail"]
    assert (done.returncode, failed) == (0, []), done.stderr
    assert document["metrics"]["ctv"]["v100_pct"] >= 99.0
    assert sorted(os.listdir(tmp_path / "out")) == sorted(OUTPUTS)


def test_a_clinical_plan_is_evaluated(trocar: Run, server: Any, shared_dir: Path) -> None:
    folder = shared_dir / "cases" / "ldr_clinical"
    settings = ("--strength-u", "0.42", "--prescription-gy", "144", "--index", "0", "--json")
    files = (folder / "case1.seg.nrrd", folder / "case1_seeds.json")
    here = _document(trocar("evaluate", *files, *settings))
    there = _document(trocar("evaluate", *files, *settings, "--server", server.target))
    assert _comparable(there) == _comparable(here)
    assert 95.0 < here["metrics"]["ctv"]["v100_pct"] <= 100.0
    assert 100 <= here["seeds"] <= 128


def test_models_come_from_the_repository_named(start_server: Any, trocar: Run, tmp_path: Path) -> None:
    """A copy of the shipped model as version 7 is what plans begin with; a folder without it is refused."""
    shipped_model = shipped().open("tpgan")
    files = {name: shipped_model.read(name) for name in shipped_model.manifest.files}
    document = shipped_model.manifest.document()
    fields = {key: document[key] for key in document if key not in ("schema", "name", "version", "files")}
    Repository(tmp_path / "models").publish("tpgan", fields, files, version=7)
    server = start_server(config=f'[server]\nrepository = "{tmp_path / "models"}"\n')
    with grpc.insecure_channel(server.target) as channel:
        reply = planning_pb2_grpc.PlanningServiceStub(channel).Plan(_request(), timeout=60)
    assert reply.provenance["model"] == "tpgan/7"

    (tmp_path / "empty").mkdir()
    done = trocar("serve", "--listen", "127.0.0.1:0", "--repository", tmp_path / "empty")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("trocar: error: no model 'tpgan' in")

    altered = tmp_path / "models" / "tpgan" / "7" / "model.onnx"
    altered.write_bytes(altered.read_bytes()[:-1] + b"x")
    done = trocar("serve", "--listen", "127.0.0.1:0", "--repository", tmp_path / "models")
    assert done.returncode == 2
    assert "model.onnx" in done.stderr
    assert "Traceback" not in done.stderr
