from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trocar.runtime.cli import main


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder with case.seg.nrrd and its plan in out/: `good`, or `poor`, whose rules fail."""
    made: dict[str, Path] = {}

    def plan(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            case = folder / "Doe-John.seg.nrrd"
            assert main(["phantom", "4", "-o", str(case)]) == 0
            search = {"good": ("--moves", "10000"), "poor": ("--moves", "1", "--start", "random")}[kind]
            arguments = ["plan", str(case), *search, "--chains", "2", "--dicom", "-o", str(folder / "out")]
            assert main(arguments) == {"good": 0, "poor": 1}[kind]
            made[kind] = folder
        return made[kind]

    return plan


@pytest.fixture
def good(planned: Callable[..., Path], tmp_path: Path) -> Path:
    """The folder of an acceptable plan, to spoil; its case lies in the folder above."""
    shutil.copytree(planned("good"), tmp_path / "good")
    return tmp_path / "good" / "out"


@pytest.fixture
def poor(planned: Callable[..., Path], tmp_path: Path) -> Path:
    """The folder of a plan that fails its rules."""
    shutil.copytree(planned("poor"), tmp_path / "poor")
    return tmp_path / "poor" / "out"


@pytest.fixture
def log_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the default log of this test will be."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "trocar" / "audit.sqlite"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], log_path: Path) -> Callable[..., tuple[int, Any, str]]:
    """Run a command line: its code, its JSON document or text, and its one line of error."""
    assert not log_path.exists()

    def call(*arguments: object) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, json.loads(said.out) if "--json" in arguments and said.out else said.out, said.err

    return call
