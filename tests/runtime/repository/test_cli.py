from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from trocar.runtime.cli import main
from trocar.runtime.repository.store import Model, Repository


def test_list(published: Model, repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--repository", str(repository.root), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (model,) = document["models"]
    assert (model["name"], model["version"], model["opset"]) == ("pair", 1, 18)
    assert model["bytes"] == sum(len(published.read(name)) for name in model["files"])
    assert model["inputs"][0]["layout"] == "batch row column"
    assert main(["models", "list", "--repository", str(repository.root)]) == 0
    assert capsys.readouterr().out == "pair 1  0.0 MiB  opset 18  adds and subtracts\n"


@pytest.mark.usefixtures("published")
def test_verify(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "verify", "pair", "--repository", str(repository.root)]) == 0
    assert capsys.readouterr().out.startswith("pair 1  ok  2 files, model.onnx ")
    assert main(["models", "verify", "--repository", str(repository.root), "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert sorted(model["files"]) == ["card.md", "model.onnx"]
    assert model["device"].startswith("c")


@pytest.mark.parametrize("verb", ["list", "verify"])
def test_an_altered_model_fails_and_the_others_are_still_said(
    verb: str,
    published: Model,
    repository: Repository,
    fields: dict[str, Any],
    files: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    repository.publish("pair", fields, files)
    (published.folder / "card.md").write_text("# a better pair")
    assert main(["models", verb, "--repository", str(repository.root)]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("pair 1  NOT VALID  ")
    assert "card.md: expected SHA-256" in first
    assert "NOT VALID" not in second


def test_text_from_a_manifest_cannot_drive_a_terminal(
    repository: Repository,
    fields: dict[str, Any],
    files: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    repository.publish("pair", fields | {"task": "adds\n\x1b[2Jpair 9  ok"}, files)
    assert main(["models", "list", "--repository", str(repository.root)]) == 0
    assert capsys.readouterr().out == "pair 1  0.0 MiB  opset 18  adds [2Jpair 9 ok\n"


def test_the_shipped_models_verify(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "verify"]) == 0
    assert main(["models", "list"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "tpgan"], "no model 'tpgan'"),
        (["verify", "../pair"], "expected a model name"),
        (["list", "pair"], "unrecognized arguments"),
        ([], "list|verify"),
        (["sign"], "invalid choice: 'sign'"),
    ],
)
def test_bad_arguments(
    repository: Repository, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    place = ["--repository", str(repository.root)] if arguments else []
    assert main(["models", *arguments, *place]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert message in captured.err


def test_a_repository_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--repository", "/nonexistent/models"]) == 2
    assert "cannot read the repository /nonexistent/models" in capsys.readouterr().err


def test_its_module_is_light() -> None:
    heavy = "{'numpy', 'onnxruntime'} & set(sys.modules)"
    code = f"import sys, trocar.runtime.repository.cli; print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
