from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from trocar.export import cli
from trocar.runtime.cli import main

ARGUMENTS = ["export", "tpgan", "--checkpoint", "c.safetensors", "--repository", "models"]


def test_without_torch_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find(name: str, package: str | None = None) -> Any:
        return None if name in ("torch", "safetensors") else find_spec("json", package)

    monkeypatch.setattr("importlib.util.find_spec", find)
    assert main(ARGUMENTS) == 2
    assert capsys.readouterr().err == (
        "trocar: error: export needs torch, safetensors, not installed here: pip install 'trocar[train]'\n"
    )


def test_its_module_is_light() -> None:
    heavy = f"{set(cli.NEEDED) | {'numpy', 'onnxruntime'}} & set(sys.modules)"
    code = f"import sys, trocar.export.cli; print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("missing", ["--checkpoint", "--repository"])
def test_what_must_be_given(missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    at = ARGUMENTS.index(missing)
    assert main(ARGUMENTS[:at] + ARGUMENTS[at + 2 :]) == 2
    assert f"the following arguments are required: {missing}" in capsys.readouterr().err
