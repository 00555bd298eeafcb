"""What goes wrong around a real server and in it: nobody gets a wrong answer, and none is lost silently.

Other faults have their tests where they belong: a killed planning process in `test_scheduling`, a killed or
stuck model of frames in `test_video` and `tests/video`, copies in progress in `test_reload`, floods in
`tests/hostile`.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from trocar.inference_v2 import open_inference_pb2 as pb
from trocar.runtime.repository.store import Repository, shipped
from trocar.v1 import planning_pb2, planning_pb2_grpc, video_pb2, video_pb2_grpc

SERVICE = "/inference.GRPCInferenceService/"
GRAPHS = Path(__file__).parents[1] / "data" / "models"
UNAVAILABLE, DEADLINE = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED
QUICK = planning_pb2.SearchSettings(moves=2_000)
FOR_EVER = 10**15
LEFT = np.arange(6, dtype=np.float32).reshape(1, 2, 3)


class Client:
    """Raw calls of the inference protocol."""

    def __init__(self, target: str) -> None:
        self.channel = grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)])
        self.infer = self.channel.unary_unary(
            SERVICE + "ModelInfer", pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
        )

    def ask(self, method: str, **fields: Any) -> Any:
        """Call another method of the protocol."""
        kinds = [getattr(pb, f"{method}{side}") for side in ("Request", "Response")]
        call = self.channel.unary_unary(SERVICE + method, kinds[0].SerializeToString, kinds[1].FromString)
        return call(kinds[0](**fields), timeout=30)

    def model_ready(self, name: str) -> bool:
        return bool(self.ask("ModelReady", name=name).ready)

    def server_ready(self) -> bool:
        return bool(self.ask("ServerReady").ready)

    def require_sum(self, scale: float = 1.0) -> None:
        """The server adds up."""
        reply = self.infer(_pair(scale), timeout=60)
        total = np.frombuffer(reply.raw_output_contents[0], np.float32)
        assert np.array_equal(total, 2 * scale * LEFT.ravel())


def _pair(scale: float = 1.0) -> Any:
    request = pb.ModelInferRequest(model_name="pair")
    for name in ("left", "right"):
        request.inputs.add(name=name, datatype="FP32", shape=LEFT.shape)
        request.raw_input_contents.append((np.float32(scale) * LEFT).tobytes())
    return request


def _count(model: str, name: str, count: int) -> Any:
    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[np.int64(count).tobytes()])
    request.inputs.add(name=name, datatype="INT64", shape=[])
    return request


def _refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code(), raised.value.details()


def _until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.02)


def _tensor(name: str, dtype: str, *shape: object) -> dict[str, object]:
    return {"name": name, "dtype": dtype, "shape": list(shape), "layout": "axes"}


def _publish(root: Path, name: str, graph: str, fields: dict[str, Any]) -> None:
    said = {"task": "a test's", "intended_use": "tests", "limits": [], "opset": 18}
    said |= {"training": {}, "metrics": {}, "parity": {}, "novelty": {}, **fields}
    files = {"model.onnx": (GRAPHS / f"{graph}.onnx").read_bytes(), "card.md": b"#"}
    Repository(root).publish(name, said, files)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sums, a loop and one long operation of any length, and networks that give nothing but NaN."""
    root = tmp_path_factory.mktemp("faulty")
    sides = [_tensor(name, "float32", "batch", 2, 3) for name in ("left", "right")]
    sums = [_tensor(name, "float32", "batch", 2, 3) for name in ("total", "difference")]
    _publish(root, "pair", "pair", {"inputs": sides, "outputs": sums})
    for name, inlet, outlet in (("turns", "turns", "counted"), ("one_step", "boxes", "kept")):
        fields = {"inputs": [_tensor(inlet, "int64")], "outputs": [_tensor(outlet, "int64")]}
        _publish(root, name, name, fields)
    images = ["batch", 2, 8, 8], ["batch", 4, 8, 8]
    half = [[_tensor(n, "float16", *s)] for n, s in zip(("image", "logits"), images, strict=True)]
    _publish(root, "half", "half", {"inputs": half[0], "outputs": half[1]})
    for name, graph in (("tpgan", "not_a_plan"), ("annotator", "not_a_picture")):
        document = shipped().open(name).manifest.document()
        kept = ("inputs", "outputs", "preprocessing", "postprocessing", "novelty")
        _publish(root, name, graph, {key: document[key] for key in kept if key in document})
    return root


def _inference(models: Path, more: str = "") -> str:
    return f'[server]\nservices = "inference"\nrepository = "{models}"\n{more}'


@pytest.fixture(scope="module")
def server(start_server: Any, models: Path) -> Any:
    """Runs one request at a time, and none for more than a second."""
    return start_server(config=_inference(models, "max_running = 1\n[services.inference]\nrun_limit_s = 1\n"))


@pytest.fixture
def client(server: Any) -> Iterator[Client]:
    client = Client(server.target)
    with client.channel:
        yield client
        client.require_sum()  # whatever was done to it


def test_a_run_that_does_not_come_back_is_ended(client: Client, server: Any) -> None:
    code, text = _refused(lambda: client.infer(_count("turns", "turns", FOR_EVER), timeout=60))
    assert (code, text) == (DEADLINE, "model 'turns': expected a run of at most 1 s, got one that was ended")
    client.require_sum()  # there is one slot, and it is free again
    assert client.model_ready("turns")
    assert client.infer(_count("turns", "turns", 7), timeout=60).raw_output_contents[0][0] == 7
    assert "model turns: a run of more than 1 s is ended" in server.log.read_text()


def test_a_run_that_cannot_be_ended_makes_its_model_not_ready(start_server: Any, models: Path) -> None:
    """One operation is finished whatever is asked; nobody is told meanwhile that the model were ready."""
    server = start_server(config=_inference(models, "[services.inference]\nrun_limit_s = 0.2\n"))
    client = Client(server.target)
    with client.channel:
        assert client.ask("RepositoryIndex").models
        ready, boxes = True, 60_000
        while ready:  # with more, should this machine be quicker than the server's patience
            long = client.infer.future(_count("one_step", "boxes", boxes), timeout=120)
            while not long.done() and (ready := client.model_ready("one_step")):
                time.sleep(0.02)
            boxes *= 2 if ready else 1
        assert not client.server_ready()
        code, text = _refused(lambda: client.infer(_count("one_step", "boxes", 1), timeout=60))
        assert code is UNAVAILABLE
        assert text.startswith("model 'one_step' takes no requests: a run of it does not end, after ")
        states = {one.name: one.state for one in client.ask("RepositoryIndex").models}
        assert (states["one_step"], states["pair"]) == ("UNAVAILABLE", "READY")
        client.require_sum()
        # What it found after all is right, or it was told that it took too long; it is never left alone.
        error = long.exception(120)
        assert error is None or error.code() is DEADLINE
        assert error is not None or long.result().raw_output_contents[0] == np.int64(boxes).tobytes()
        _until(lambda: client.model_ready("one_step") and client.server_ready())
        assert client.infer(_count("one_step", "boxes", 3), timeout=60).raw_output_contents[0][0] == 3
    assert "model one_step is ready again" in server.log.read_text()
    assert server.stop() == 0


def test_nan_is_handed_through(client: Client) -> None:
    """The protocol's client asked for what the network gives."""
    reply = client.infer(_pair(float("nan")), timeout=60)
    assert np.isnan(np.frombuffer(reply.raw_output_contents[0], np.float32)).all()


def test_a_request_for_more_memory_than_there_is(start_server: Any, models: Path) -> None:
    server = start_server(config=_inference(models))
    client = Client(server.target)
    with client.channel:
        client.require_sum()
        size = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        most = size + (256 << 20)
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (most, most))
        for _ in range(3):
            code, text = _refused(lambda: client.infer(_count("one_step", "boxes", 10**9), timeout=60))
            assert code is grpc.StatusCode.INTERNAL
            assert "allocate memory" in text or "bad_alloc" in text
            client.require_sum()
        assert client.server_ready()
    assert "Traceback" not in server.log.read_text()
    assert server.stop() == 0


def _workers(server: Any) -> list[int]:
    """Processes that it started."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def _plan(seed: int = 7, search: Any = QUICK) -> Any:
    return planning_pb2.PlanRequest(case=planning_pb2.CaseInput(phantom_seed=seed), search=search)


def test_a_plan_without_memory_costs_one_request(start_server: Any) -> None:
    server = start_server(config='[server]\nservices = "planning"\nmax_running = 1\n')
    with grpc.insecure_channel(server.target) as channel:
        stub = planning_pb2_grpc.PlanningServiceStub(channel)
        needles = stub.Plan(_plan(), timeout=60).plan.needles
        (worker,) = _workers(server)
        size = int(Path(f"/proc/{worker}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(worker, resource.RLIMIT_AS, (size, size))
        search = planning_pb2.SearchSettings(moves=2_000, chains=8)
        code, text = _refused(lambda: stub.Plan(_plan(search=search), timeout=60))
        # A thread of the search that gets none for its first step ends its process.
        assert code in (grpc.StatusCode.RESOURCE_EXHAUSTED, UNAVAILABLE)
        assert "memory enough for this request" in text or "it may be sent again" in text
        assert stub.Plan(_plan(), timeout=60).plan.needles == needles
    assert server.stop() == 0


def test_planning_and_pictures_never_use_nan(start_server: Any, models: Path) -> None:
    server = start_server(config=f'[server]\nservices = "planning, video"\nrepository = "{models}"\n')
    with grpc.insecure_channel(server.target) as channel:
        plans = planning_pb2_grpc.PlanningServiceStub(channel)
        code, text = _refused(lambda: plans.Plan(_plan(), timeout=60))
        assert code is grpc.StatusCode.INTERNAL
        assert text.startswith("tpgan/1: expected probabilities of 0 to 1, got others; --start greedy")
        greedy = planning_pb2.SearchSettings(moves=2_000, start="greedy")
        assert plans.Plan(_plan(search=greedy), timeout=60).seeds > 20

        picture = video_pb2.RawPicture(
            format=video_pb2.PIXEL_FORMAT_BGR, height=64, width=112, data=bytes(64 * 112 * 3)
        )
        asked = [
            video_pb2.AnnotateRequest(
                settings=video_pb2.StreamSettings(masks=video_pb2.MASK_FORMAT_LABELS_PNG)
            ),
            video_pb2.AnnotateRequest(frame=video_pb2.VideoFrame(id=4, raw=picture)),
        ]
        (reply,) = video_pb2_grpc.VideoServiceStub(channel).Annotate(iter(asked), timeout=60)
        assert (reply.id, reply.labels_png, len(reply.instances)) == (4, b"", 0)
        assert "logit" in reply.error
    assert server.stop() == 0


VANISHES = """
import sys, threading, grpc
channel = grpc.insecure_channel(sys.argv[1])
calls = [channel.unary_unary(sys.argv[2]).future(bytes.fromhex(sys.argv[3])) for _ in range(3)]
print("sent", flush=True)
threading.Event().wait()
"""


def test_a_client_that_is_killed_stops_its_work(start_server: Any, models: Path) -> None:
    """One slot, and a limit far away: only the client's end gives it back."""
    config = _inference(models, "max_running = 1\n[services.inference]\nrun_limit_s = 3600\n")
    server = start_server(config=config)
    message = _count("turns", "turns", FOR_EVER).SerializeToString().hex()
    command = [sys.executable, "-c", VANISHES, server.target, SERVICE + "ModelInfer", message]
    client = Client(server.target)
    with client.channel, subprocess.Popen(command, stdout=subprocess.PIPE) as doomed:
        assert doomed.stdout is not None
        doomed.stdout.readline()
        _until(lambda: _refused_for_time(client))
        doomed.kill()
        doomed.wait()
        client.require_sum()
        # A deadline that passes while the network runs ends it too.
        code, _ = _refused(lambda: client.infer(_count("turns", "turns", FOR_EVER), timeout=0.5))
        assert code is DEADLINE
        client.require_sum()
    assert server.stop() == 0


def _refused_for_time(client: Client) -> bool:
    try:
        client.infer(_pair(), timeout=0.3)
    except grpc.RpcError as error:
        return error.code() is DEADLINE
    return False


def _resident_mib(server: Any) -> float:
    return (
        int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    )


def test_a_stream_that_nobody_reads_takes_bounded_memory(start_server: Any, models: Path) -> None:
    """160 MB of answers in all: what is not read is not computed yet, and none is lost."""
    server = start_server(config=_inference(models))
    client, images, count = Client(server.target), np.ones((1_600, 2, 8, 8), np.float16), 200
    request = pb.ModelInferRequest(model_name="half", raw_input_contents=[images.tobytes()])
    request.inputs.add(name="image", datatype="FP16", shape=images.shape)
    taken: list[int] = []

    def requests() -> Iterator[bytes]:
        for number in range(count):
            request.id = str(number)
            taken.append(number)
            yield request.SerializeToString()

    with client.channel:
        client.require_sum()
        before = _resident_mib(server)
        stream = client.channel.stream_stream(SERVICE + "ModelStreamInfer")(requests(), timeout=120)
        peak = 0.0
        end_s = time.monotonic() + 1.0
        while time.monotonic() < end_s:
            peak = max(peak, _resident_mib(server))
            client.require_sum()
        assert peak - before < 100
        assert len(taken) < count  # it was held up, and not at its end
        ids = [pb.ModelStreamInferResponse.FromString(reply).infer_response.id for reply in stream]
        assert ids == [str(number) for number in range(count)]
    assert server.stop() == 0


def test_sigterm_under_load_answers_or_refuses_each(start_server: Any, models: Path) -> None:
    server = start_server(config=_inference(models, "max_running = 2\nmax_queued = 64\n"))
    outcomes: Counter[str] = Counter()
    lock, going = threading.Lock(), threading.Event()

    def load(seed: int) -> None:
        client = Client(server.target)
        with client.channel:
            for turn in range(100_000):
                try:
                    client.require_sum(seed + turn)
                    said = "OK"
                except grpc.RpcError as error:
                    said = f"{error.code().name} {error.details()}"
                with lock:
                    outcomes[said] += 1
                if said != "OK":
                    return
                going.set()

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(load, seed) for seed in range(8)]
        going.wait(60)
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        for each in clients:
            each.result(60)  # no answer was wrong, and each call had one
    assert server.process.wait(60) == 0
    answered = outcomes.pop("OK")
    assert sum(outcomes.values()) == 8
    assert all(said.startswith("UNAVAILABLE ") for said in outcomes), outcomes
    # What the server counts as answered has been received.
    log = server.log.read_text()
    assert len(re.findall("ModelInfer OK", log)) == answered
    assert "Traceback" not in log


def test_killed_and_started_again_at_once(start_server: Any, models: Path, tmp_path: Path) -> None:
    """Under load, on the socket that the killed one left."""
    listen = f"unix:{tmp_path}/t.sock"
    server = start_server(listen, config=_inference(models))
    client = Client(server.target)
    with client.channel:
        flying = [client.infer.future(_count("turns", "turns", FOR_EVER), timeout=60) for _ in range(2)]
        client.ask("ServerLive")
        server.stop(signal.SIGKILL)
        assert {call.exception(60).code() for call in flying} == {UNAVAILABLE}
        again = start_server(listen, config=_inference(models))
        reply = client.infer(_pair(), timeout=60, wait_for_ready=True)
        assert np.array_equal(np.frombuffer(reply.raw_output_contents[0], np.float32), 2 * LEFT.ravel())
        assert client.model_ready("pair")
    assert again.stop() == 0


JUMPING = """
import random, sys, time
true_s, true_ns = time.time, time.time_ns

def jump(kind):
    # gRPC takes a wall-clock deadline apart again with the same clock: it sees the true one.
    asks = sys._getframe(2).f_globals.get("__name__", "")
    return 0 if asks.startswith("grpc") else random.uniform(-1e6, 1e6)

time.time = lambda: true_s() + jump(0)
time.time_ns = lambda: true_ns() + int(1e9 * jump(0))
"""


def test_the_clock_on_the_wall_does_not_matter(
    start_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is off by days, by others whenever it is read; deadlines, budgets and limits hold all the same."""
    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    server = start_server(
        config="[server]\nwatch_s = 0.1\nmax_running = 1\n[server.clients]\nrequests_per_s = 1000.0\n"
        '[services.planning]\ncpu = "normal"\nreserve_ms = 10000\n'
    )
    clock = [sys.executable, "-c", "import time; print(abs(time.time() - time.time()) > 60)"]
    assert subprocess.run(clock, capture_output=True, text=True, check=True).stdout == "True\n"
    with grpc.insecure_channel(server.target) as channel:
        stub = planning_pb2_grpc.PlanningServiceStub(channel)
        assert stub.Plan(_plan(), timeout=60).seeds > 20
        begin_s = time.monotonic()
        assert stub.Plan(_plan(search=planning_pb2.SearchSettings(budget_ms=600)), timeout=60).seeds > 20
        assert time.monotonic() - begin_s > 0.6
        # The search is given what the deadline leaves it.
        long = planning_pb2.SearchSettings(budget_ms=50_000)
        assert stub.Plan(_plan(search=long), timeout=11.5).seeds > 20
        code, _ = _refused(lambda: stub.Plan(_plan(), timeout=0.2))
        assert code is DEADLINE
        client = Client(server.target)
        with client.channel:
            assert client.server_ready()
            assert client.model_ready("tpgan")
    assert "Traceback" not in server.log.read_text()
    assert server.stop() == 0


def test_a_full_disk_behind_the_log_ends_no_server(models: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(_inference(models))
    command = [sys.executable, "-m", "trocar.runtime.cli", "serve", "--listen", f"unix:{tmp_path}/t.sock"]
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen([*command, "--config", str(tmp_path / "c.toml")], stderr=full)
    try:
        client = Client(f"unix:{tmp_path}/t.sock")
        with client.channel:
            grpc.channel_ready_future(client.channel).result(60)
            for scale in range(20):
                client.require_sum(scale)
            _refused(lambda: client.infer(_count("pair", "left", 1), timeout=60))
            health: Any = health_pb2_grpc.HealthStub(client.channel)
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=30).status == 1
        process.terminate()
        process.wait(60)
        assert not (tmp_path / "t.sock").exists()  # it came to its end
    finally:
        process.kill()
        process.wait()


FULL = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
FULL += "from trocar.runtime.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "phantom:7", "--moves", "2000", "-o", "{place}/out", "--dicom"),
        ("phantom", "7", "-o", "{place}/case.seg.nrrd"),
    ],
    ids=lambda words: words[0],
)
def test_a_full_disk_is_one_line_and_no_half_file(words: tuple[str, ...], tmp_path: Path) -> None:
    """A limit on the size of files stands for it: writes fail as they do there."""
    place = tmp_path / "disk"
    place.mkdir()
    command = [sys.executable, "-c", FULL, *(word.replace("{place}", str(place)) for word in words)]
    # Nor is there a place for what libraries keep, such as a list of fonts.
    there = os.environ | {"MPLCONFIGDIR": str(tmp_path / "kept")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=there)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch("trocar: error: cannot write .*: File too large\n", done.stderr), done.stderr
    assert list(place.iterdir()) == []


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    command = [sys.executable, "-m", "trocar.runtime.cli", "phantom", "7", "--json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "No space left on device" in done.stderr
