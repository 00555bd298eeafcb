import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of local test data: TROCAR_SHARED, or `shared` beside the repository."""
    root = Path(os.environ.get("TROCAR_SHARED", Path(__file__).resolve().parents[1].parent / "shared"))
    if not (root / "cases").is_dir():
        pytest.skip("../shared is not present")
    return root


@dataclass(frozen=True)
class ServerProcess:
    """A `trocar serve` in a process of its own."""

    process: subprocess.Popen[str]
    target: str
    log: Path
    metrics: str = ""

    def stop(self, signal_number: int = signal.SIGTERM, timeout_s: float = 60.0) -> int:
        """Send a signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        return self.process.wait(timeout_s)


TROCAR = (sys.executable, "-m", "trocar.runtime.cli")


@pytest.fixture(scope="session")
def trocar() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command line in a process of its own."""

    def run(*arguments: str | Path, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        command = [*TROCAR, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)

    return run


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ServerProcess]]:
    """Start `trocar serve`: `start_server(listen="unix:...", config="[server]...")`."""
    started: list[ServerProcess] = []

    def start(
        listen: str = "127.0.0.1:0", config: str = "", environment: Mapping[str, str] | None = None
    ) -> ServerProcess:
        folder = tmp_path_factory.mktemp("server")
        if "[services.planning]" not in config:
            # By default plans wait for whatever else wants the machine, which here may be anything.
            config += '\n[services.planning]\ncpu = "normal"\n'
        (folder / "trocar.toml").write_text(config)
        log = folder / "log.txt"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [*TROCAR, "serve", "--json", "--listen", listen, "--config", str(folder / "trocar.toml")],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **(environment or {})},
            )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the server did not start: {log.read_text()}"
        said = json.loads(line)
        started.append(ServerProcess(process, said["listening"], log, said.get("metrics", "")))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait(10)
        assert server.process.stdout is not None
        server.process.stdout.close()


@pytest.fixture(scope="session")
def server(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    """One server that many tests share."""
    return start_server()


def _tensors(*rows: tuple[str, str, list[object]]) -> list[dict[str, object]]:
    return [{"name": name, "dtype": dtype, "shape": shape, "layout": "axes"} for name, dtype, shape in rows]


_NUMBERS = "bool float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64"
KINDS = {"text": "string"} | {name: name for name in _NUMBERS.split()}


@pytest.fixture(scope="session")
def inference_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small graphs; `broken_run` fails when it runs, `broken_graph` when it loads."""
    from trocar.runtime.repository.store import Repository

    rows: list[object] = ["batch", 2, 3]
    graphs = {
        "pair": (
            _tensors(("left", "float32", rows), ("right", "float32", rows)),
            _tensors(("total", "float32", rows), ("difference", "float32", rows)),
        ),
        "mixed": (
            _tensors(("pixels", "uint8", [None, 4]), ("mask", "bool", [])),
            _tensors(("wide", "int64", [None, 4]), ("inverse", "bool", [])),
        ),
        "half": (
            _tensors(("image", "float16", ["batch", 2, 8, 8])),
            _tensors(("logits", "float16", ["batch", 4, 8, 8])),
        ),
        "kinds": (
            _tensors(*((name, dtype, ["batch", 2]) for name, dtype in KINDS.items())),
            _tensors(*((f"{name}_out", dtype, ["batch", 2]) for name, dtype in KINDS.items())),
        ),
        "brain": (
            _tensors(("brain", "bfloat16", ["batch", 2])),
            _tensors(("same", "bfloat16", ["batch", 2]), ("wide", "float32", ["batch", 2])),
        ),
        "turns": (_tensors(("turns", "int64", [])), _tensors(("counted", "int64", []))),
        "broken_graph": (_tensors(("left", "float32", rows)), _tensors(("total", "float32", rows))),
        "broken_run": (_tensors(("left", "float32", rows)), _tensors(("square", "float32", [7, 7]))),
    }
    root = tmp_path_factory.mktemp("models")
    for name, (inputs, outputs) in graphs.items():
        fields = {
            "task": "a test's",
            "intended_use": "tests",
            "limits": [],
            "inputs": inputs,
            "outputs": outputs,
            "opset": 18,
            "training": {},
            "metrics": {},
            "parity": {},
            "novelty": {},
        }
        file = {"broken_graph": "unknown_operator"}.get(name, name)
        graph = Path(__file__).parent / "data" / "models" / f"{file}.onnx"
        Repository(root).publish(name, fields, {"model.onnx": graph.read_bytes(), "card.md": b"#"})
    return root


@pytest.fixture(scope="session")
def inference_server(start_server: Callable[..., ServerProcess], inference_repository: Path) -> ServerProcess:
    """One server of those models alone, that many tests share."""
    return start_server(config=f'[server]\nservices = "inference"\nrepository = "{inference_repository}"\n')


STANDIN = Path(__file__).parent / "standin"


@pytest.fixture(scope="session")
def stand_in_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for libcuda.so.1, in a folder for LD_LIBRARY_PATH."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler for the stand-in of the CUDA driver")
    library = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", library]
    subprocess.run([compiler, *flags, STANDIN / "libcuda.cpp"], check=True)
    return library


class Exporter:
    """Another process with memory of a GPU."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, STANDIN / "exporter.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def _ask(self, name: str, *arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, arguments]) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def allocate(self, size: int) -> tuple[int, bytes]:
        """Return the address of new memory there, and its handle."""
        answer = self._ask("allocate", size)
        assert answer["code"] == 0
        return answer["address"], base64.b64decode(answer["handle"])

    def write(self, address: int, data: bytes) -> None:
        """Put bytes there."""
        self._ask("write", address, base64.b64encode(data).decode())

    def read(self, address: int, size: int) -> bytes:
        """Return bytes from there."""
        return base64.b64decode(self._ask("read", address, size)["data"])

    def free(self, address: int) -> None:
        """Give memory back."""
        self._ask("free", address)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


@pytest.fixture
def start_exporter() -> Iterator[Callable[..., Exporter]]:
    """Start a process that lends memory of a GPU: `start_exporter({"LD_LIBRARY_PATH": "..."})`."""
    started: list[Exporter] = []

    def start(environment: Mapping[str, str]) -> Exporter:
        started.append(Exporter(environment))
        return started[-1]

    yield start
    for exporter in started:
        exporter.close()
