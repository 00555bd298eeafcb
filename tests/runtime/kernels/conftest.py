"""Where a kernel's tests run: `backend` is the CPU, a GPU, or the CUDA sources emulated on the CPU."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from trocar.runtime.kernels import cuda, devices

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
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
    pytest.importorskip("nanobind", reason="the emulation of CUDA is compiled with nanobind")
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if not compiler:
        pytest.skip("the emulation of CUDA needs a C++ compiler")
    module = _load("build", HERE / "emulation" / "build.py").build(compiler, ROOT / "build" / "emulated")
    return _load("_cuda", module)


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
