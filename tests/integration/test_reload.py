"""Models change in the repository while a real server answers requests with them."""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from trocar.runtime.repository.store import Repository, shipped
from trocar.v1 import planning_pb2, planning_pb2_grpc, video_pb2, video_pb2_grpc

triton = pytest.importorskip(
    "tritonclient.grpc", reason="tritonclient is not installed", exc_type=ImportError
)

GRAPHS = Path(__file__).parents[1] / "data" / "models"
# What the output `total` is in each version: the graph's one addition, or another operator in its place.
OPERATORS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "Add": np.add,
    "Mul": np.multiply,
    "Max": np.maximum,
    "Min": np.minimum,
}
WATCHED = """
[server]
services = "{services}"
repository = "{root}"
watch_s = 0.1
metrics = "127.0.0.1:0"
log_format = "json"
max_queued = 64
"""


def _tensors(*names: str, axes: list[Any], dtype: str = "float32") -> list[dict[str, Any]]:
    return [{"name": name, "dtype": dtype, "shape": axes, "layout": "axes"} for name in names]


def _publish(
    root: Path, operator: str = "Add", *, graph: str = "pair", version: int | None = None, **more: Any
) -> int:
    data = (GRAPHS / f"{graph}.onnx").read_bytes()
    assert graph != "pair" or data.count(b"Add") == 1
    fields = {
        "task": "a test's",
        "intended_use": "tests",
        "limits": [],
        "inputs": _tensors("left", "right", axes=["batch", 2, 3]),
        "outputs": _tensors("total", "difference", axes=["batch", 2, 3]),
        "opset": 18,
        "training": {},
        "metrics": {},
        "parity": {},
        "novelty": {},
        **more,
    }
    files = {"model.onnx": data.replace(b"Add", operator.encode()), "card.md": b"#"}
    return Repository(root).publish("pair", fields, files, version=version).manifest.version


def _withdraw(root: Path, version: int, name: str = "pair") -> None:
    """Take a version away at once, as a rename does."""
    away = root.parent / "withdrawn"
    away.mkdir(exist_ok=True)
    (root / name / str(version)).rename(away / f"{name}-{version}-{time.monotonic_ns()}")


def _wait_for(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def _metrics(server: Any) -> dict[str, dict[str, float]]:
    from trocar.runtime.server.address import parse_address
    from trocar.runtime.telemetry.reading import read

    found = read(parse_address(server.metrics))
    return {
        name: {" ".join(value for _, value in labels): value for labels, value in rows.items()}
        for name, rows in found.values.items()
    }


class Hammer:
    """Clients that send without pause, each holding every answer against the version that gives it."""

    def __init__(self, target: str, operators: dict[int, str], clients: int = 4) -> None:
        self.operators = operators
        self.seen: dict[int, int] = {}
        self.wrong: list[str] = []
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(target, seed)) for seed in range(clients)]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(60)

    def _run(self, target: str, seed: int) -> None:
        random = np.random.default_rng(seed)
        with triton.InferenceServerClient(target) as client:
            while not self._stop.is_set():
                left, right = random.random((2, int(random.integers(1, 5)), 2, 3), dtype=np.float32)
                inputs = []
                for name, array in (("left", left), ("right", right)):
                    inputs.append(triton.InferInput(name, list(array.shape), "FP32"))
                    inputs[-1].set_data_from_numpy(array)
                try:
                    reply = client.infer("pair", inputs)
                    version = int(reply.get_response().model_version)
                    expected = OPERATORS[self.operators[version]](left, right)
                    right_answer = np.array_equal(reply.as_numpy("total"), expected)
                    fault = "" if right_answer else f"version {version} answered wrongly"
                except Exception as error:
                    version, fault = 0, f"{type(error).__name__}: {error}"
                with self._lock:
                    self.seen[version] = self.seen.get(version, 0) + 1
                    if fault:
                        self.wrong.append(fault)
                time.sleep(0.002)  # the machine has other things to do


def test_versions_come_and_go_under_load(start_server: Any, tmp_path: Path) -> None:
    root = tmp_path / "models"
    operators = {_publish(root, "Add"): "Add"}
    server = start_server(config=WATCHED.format(services="inference", root=root))
    hammer = Hammer(server.target, operators)
    with triton.InferenceServerClient(server.target) as client, hammer.at_work():

        def index() -> list[tuple[str, str]]:
            rows = client.get_model_repository_index(as_json=True)["models"]
            return [(row["version"], row["state"]) for row in rows]

        def served(version: int) -> None:
            _wait_for(lambda: (str(version), "READY") in index())
            before = hammer.seen.get(version, 0)
            _wait_for(lambda: hammer.seen.get(version, 0) > before + 20 or bool(hammer.wrong))

        served(1)
        operators[2] = "Mul"
        assert _publish(root, "Mul") == 2
        served(2)

        # Three that cannot take its place: another graph than the manifest says, no graph that runs, and one
        # that would break those who call it.
        bad: list[dict[str, Any]] = [
            {"graph": "mixed"},
            {"graph": "unknown_operator"},
            {
                "graph": "half",
                "inputs": _tensors("image", axes=["batch", 2, 8, 8], dtype="float16"),
                "outputs": _tensors("logits", axes=["batch", 4, 8, 8], dtype="float16"),
            },
        ]
        for number, changes in enumerate(bad, 1):
            version = _publish(root, **changes)
            _wait_for(lambda number=number: server.log.read_text().count("is refused") == number)
            assert index() == [("2", "READY"), (f"{version}", "UNAVAILABLE")]
            assert client.is_server_ready()
            assert _metrics(server)["trocar_model_newest_refused"] == {"pair inference": 1.0}
            _withdraw(root, version)
            _wait_for(lambda: index() == [("2", "READY")])
            _wait_for(lambda: "trocar_model_newest_refused" not in _metrics(server))

        operators[3] = "Max"
        assert _publish(root, "Max") == 3
        served(3)
        _withdraw(root, 3)
        served(2)
        for operator in ("Min", "Max", "Mul", "Add"):
            operators[max(operators) + 1] = operator
            _publish(root, operator, version=max(operators))
            served(max(operators))
    assert hammer.wrong == []
    assert set(hammer.seen) == set(operators)
    counts = _metrics(server)
    assert counts["trocar_model_loaded"] == {f"pair inference {max(operators)}": 1.0}
    handled = counts["grpc_server_handled_total"]
    assert handled["OK ModelInfer inference.GRPCInferenceService"] == sum(hammer.seen.values())
    assert not any("ModelInfer" in key and not key.startswith("OK ") for key in handled)
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    refused = [line["message"] for line in lines if "is refused" in line["message"]]
    assert len(refused) == 3
    assert "expected the inputs of version 2" in " ".join(refused)
    assert server.stop() == 0


def test_a_copy_in_progress_is_taken_once_it_is_whole(start_server: Any, tmp_path: Path) -> None:
    """Not every operator publishes: files may come one after the other."""
    root, other = tmp_path / "models", tmp_path / "other"
    _publish(root, "Add")
    for operator in ("Add", "Mul"):
        _publish(other, operator)
    server = start_server(config=WATCHED.format(services="inference", root=root))
    with triton.InferenceServerClient(server.target) as client:
        folder = root / "pair" / "2"
        folder.mkdir()
        for file in ("manifest.json", "card.md", "model.onnx"):
            data = (other / "pair" / "2" / file).read_bytes()
            with (folder / file).open("wb") as copy:
                copy.write(data[:7])
                copy.flush()
                time.sleep(0.3)
                assert not client.is_model_ready("pair", "2")
                assert client.is_model_ready("pair", "1")
                copy.write(data[7:])
        _wait_for(lambda: client.is_model_ready("pair", "2"))

        os.rename(root / "pair", tmp_path / "gone")
        _wait_for(lambda: not client.is_model_ready("pair"))
        assert client.is_server_ready()  # what was withdrawn is not missed
        os.rename(tmp_path / "gone", root / "pair")
        _wait_for(lambda: client.is_model_ready("pair", "2"))
        client.unload_model("pair")
        _publish(root, "Max")
        time.sleep(0.5)
        assert not client.is_model_ready("pair")  # somebody wanted it so
        client.load_model("pair")
        assert client.is_model_ready("pair", "3")


def _copy_of(name: str, root: Path, version: int, card: bytes = b"") -> None:
    """Publish a shipped model under another number."""
    found = shipped().open(name)
    document = found.manifest.document()
    files = {file: found.read(file) for file in found.manifest.files}
    fields = {key: document[key] for key in document if key not in ("schema", "name", "version", "files")}
    Repository(root).publish(name, fields, {**files, "card.md": files["card.md"] + card}, version=version)


def test_plans_begin_with_the_newest_network(start_server: Any, tmp_path: Path) -> None:
    root = tmp_path / "models"
    _copy_of("tpgan", root, 1)
    server = start_server(config=WATCHED.format(services="planning,inference", root=root))
    case = planning_pb2.CaseInput()
    ctv = case.contours.structures.add(name="CTV")
    for z in range(0, 45, 5):
        ctv.contours.add(z_mm=z, xy_mm=[-18, -15, 18, -15, 18, 15, -18, 15])
    search = planning_pb2.SearchSettings(moves=1000)
    with grpc.insecure_channel(server.target) as channel:
        stub = planning_pb2_grpc.PlanningServiceStub(channel)

        def model() -> str:
            reply = stub.Plan(planning_pb2.PlanRequest(case=case, search=search), timeout=60)
            return str(reply.provenance["model"])

        assert model() == "tpgan/1"
        _copy_of("tpgan", root, 2)
        _wait_for(lambda: "tpgan planning 2" in _metrics(server)["trocar_model_loaded"])
        assert model() == "tpgan/2"
        (root / "tpgan" / "3").mkdir()  # nothing in it
        _wait_for(lambda: "tpgan planning" in _metrics(server).get("trocar_model_newest_refused", {}))
        assert model() == "tpgan/2"


def test_a_stream_goes_on_while_the_next_takes_the_new_model(start_server: Any, tmp_path: Path) -> None:
    root = tmp_path / "models"
    _copy_of("annotator", root, 1)
    server = start_server(config=WATCHED.format(services="video", root=root))
    raw = video_pb2.RawPicture(
        width=64, height=48, format=video_pb2.PIXEL_FORMAT_BGR, data=bytes(64 * 48 * 3)
    )
    with grpc.insecure_channel(server.target) as channel:
        stub = video_pb2_grpc.VideoServiceStub(channel)

        class Stream:
            def __init__(self) -> None:
                self.requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
                self.requests.put(video_pb2.AnnotateRequest(settings=video_pb2.StreamSettings()))
                self.call = stub.Annotate(iter(self.requests.get, None), timeout=200)
                self.number = 0

            def frame(self) -> Any:
                self.number += 1
                frame = video_pb2.VideoFrame(id=self.number, pts_us=40_000 * self.number, raw=raw)
                self.requests.put(video_pb2.AnnotateRequest(frame=frame))
                return next(self.call)

            def end(self) -> None:
                self.requests.put(None)
                assert list(self.call) == []

        def loaded() -> set[str]:
            return set(_metrics(server).get("trocar_model_loaded", {}))

        def workers() -> int:
            children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
            return sum(len(each.read_text().split()) for each in children)

        old = Stream()
        assert old.frame().id == 1
        assert loaded() == {"annotator video 1"}
        _copy_of("annotator", root, 2)
        _wait_for(lambda: loaded() == {"annotator video 2"})
        assert workers() == 2  # the old one still has its stream
        new = Stream()
        for number in range(1, 4):
            assert new.frame().id == number
            assert old.frame().id == number + 1
        old.end()
        _wait_for(lambda: workers() == 1)
        assert new.frame().id == 4
        new.end()
    frames = _metrics(server)["trocar_video_frames_total"]
    assert frames["annotated"] + frames["ai_off"] == 8
