from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trocar.export.engines import build
from trocar.runtime.session.cuda import Gpu

STAND_IN = Path(__file__).with_name("stand_in.py")
GPU = Gpu(0, "Imaginary 9000", "sm89")


class Recorded:
    """A stand-in for TensorRT that is installed for one test, and what it was asked by any process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def calls(self, what: str = "") -> list[list[Any]]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [call for call in map(json.loads, lines) if what in ("", call[0])]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Recorded]]:
    """Install the stand-in: `install(module, version=...)`; there is a GPU while it is there."""
    folder = tmp_path / "installed"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    kept = {name: sys.modules.pop(name, None) for name in ("tensorrt", "tensorrt_rtx")}

    def put(module: str = "tensorrt", version: str = "99.1") -> Recorded:
        sys.modules.pop(module, None)
        (folder / f"{module}.py").write_text(STAND_IN.read_text())
        monkeypatch.setenv("STAND_IN_CALLS", str(tmp_path / "calls"))
        monkeypatch.setenv("STAND_IN_VERSION", version)
        monkeypatch.setattr(build, "find_gpu", lambda: GPU)
        return Recorded(tmp_path / "calls")

    yield put
    for name, module in kept.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


@pytest.fixture
def model(tmp_path: Path) -> Callable[[str], Path]:
    """A file that the stand-in takes for a model; its words say what becomes of it."""

    def write(words: str = "a model") -> Path:
        path = tmp_path / f"{words.replace(' ', '_')}.onnx"
        path.write_bytes(words.encode())
        return path

    return write
