"""Where a kernel's tests run: `backend` is the CPU, a GPU, or the CUDA sources emulated on the CPU."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from trocar.runtime.kernels import cuda, devices

ROOT = Path(__file__).resolve().parents[3]
CSRC = ROOT / "runtime" / "kernels" / "csrc"
EMULATION = Path(__file__).parent / "emulation"
BUILT = devices.module
SCHEDULES = {"emulated-forward": 0, "emulated-backward": 1, "emulated-shuffled": 7}


@dataclass(frozen=True)
class Backend:
    """One way to run the kernels: `op(backend.put(src), out, stream=backend.stream)`, `backend.get(out)`."""

    name: str
    queue: cuda.Stream | None = None

    @property
    def runs_cuda(self) -> bool:
        """Whether the .cu source runs, on a GPU or emulated."""
        return self.name != "cpu"

    @property
    def stream(self) -> int | None:
        return self.queue.handle if self.queue else None

    @contextmanager
    def cpu(self) -> Iterator[None]:
        """Meanwhile the CPU's own kernels run, to compare with."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(devices, "module", BUILT)
            yield

    def put(self, host: np.ndarray) -> Any:
        """The array where the kernels run: a copy on a GPU, else itself."""
        return self.queue.put(host) if self.queue else host

    def get(self, array: Any) -> np.ndarray:
        """What the kernels wrote there, when they are done."""
        return self.queue.get(array) if self.queue else array


@pytest.fixture(params=["cpu", "cuda", *SCHEDULES])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    if request.param == "cpu":
        return Backend("cpu")
    if request.param == "cuda":
        if why := cuda.why_not():
            pytest.skip(f"no GPU: {why}")
        return Backend("cuda", cuda.Stream())
    emulated = request.getfixturevalue("emulated")
    emulated.set_schedule(SCHEDULES[request.param])
    monkeypatch.setattr(devices, "module", lambda _: emulated)
    return Backend(request.param)


@pytest.fixture(scope="session")
def emulated() -> ModuleType:
    """The CUDA module with its kernels emulated on the CPU: their logic, no GPU."""
    return _load(_build())


def _build() -> Path:
    """Compile it where it is not yet; the name is the content's, so a second run compiles nothing."""
    nanobind = pytest.importorskip("nanobind", reason="the emulation of CUDA is compiled with nanobind")
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if not compiler or not CSRC.is_dir():
        pytest.skip("the emulation of CUDA needs a C++ compiler and trocar's sources")
    kernels = sorted(CSRC.glob("*_cuda.cu"))
    bindings = [CSRC / path.name.replace("_cuda.cu", "_bind.cpp") for path in kernels]
    sources = [*kernels, *filter(Path.exists, bindings), CSRC / "module_cuda.cpp"]
    sources += [*sorted(EMULATION.glob("*.cpp")), Path(nanobind.source_dir()) / "nb_combined.cpp"]
    flags = [
        "-std=c++17",
        "-O1",
        "-g1",
        "-fPIC",
        "-fvisibility=hidden",
        "-fno-strict-aliasing",
        "-ffp-contract=off",
    ]
    flags += [
        "-DTROCAR_EMULATE_CUDA",
        "-DNB_DOMAIN=trocar_emulated",
        *os.environ.get("TROCAR_EMULATION_FLAGS", "").split(),
    ]
    include = Path(nanobind.include_dir())
    folders = [
        CSRC,
        EMULATION,
        include,
        include.parent / "ext/robin_map/include",
        sysconfig.get_path("include"),
    ]
    headers = [*CSRC.glob("*.h"), *EMULATION.glob("*.h")]
    content = hashlib.sha256(
        repr((compiler, flags, nanobind.__version__, sysconfig.get_config_var("SOABI"))).encode()
    )
    for path in sorted({*sources, *headers}):
        content.update(path.read_bytes())
    folder = ROOT / "build" / "emulated" / content.hexdigest()[:16]
    built = folder / "_cuda.so"
    if not built.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [compiler, *flags, *(f"-I{path}" for path in folders)]
        objects = [folder / f"{path.stem}.{os.getpid()}.o" for path in sources]
        running = [
            subprocess.Popen(
                [*command, "-x", "c++", "-c", str(path), "-o", str(made)], stderr=subprocess.PIPE, text=True
            )
            for path, made in zip(sources, objects, strict=True)
        ]
        for path, process in zip(sources, running, strict=True):
            _, said = process.communicate()
            assert process.returncode == 0, f"{path.name} does not compile:\n{said}"
        linked = folder / f"{os.getpid()}.so"
        subprocess.run([compiler, *flags, "-shared", *map(str, objects), "-o", str(linked)], check=True)
        linked.replace(built)
        for path in objects:
            path.unlink()
    return built


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("_cuda", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
