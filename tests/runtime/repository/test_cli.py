from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
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
    assert model["signatures"] == []
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
        ([], "list|verify|sign|keygen"),
        (["sign"], "required: NAME, --key"),
        (["sign", "pair"], "required: --key"),
        (["sign", "pair", "--key", "/nonexistent/key"], "cannot read the key /nonexistent/key"),
        (["verify", "--key", "/nonexistent/key.pub"], "cannot read the key /nonexistent/key.pub"),
        (["keygen", "/nonexistent/key", "--force"], "unrecognized arguments"),
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


def test_variants_are_opened_where_they_can_be(
    repository: Repository,
    fields: dict[str, Any],
    files: dict[str, bytes],
    graphs: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    blank = {"parity": {}, "metrics": {}, "engine": {}}
    half = {"file": "half.onnx", "format": "onnx", "precision": "fp16", **blank}
    engine = {"file": "model.engine", "format": "tensorrt", "precision": "fp16", **blank}
    built = {"flavour": "tensorrt", "library": "tensorrt 0.0", "capabilities": ["sm89"], "gpu": ""}
    more = {"half.onnx": files["model.onnx"], "model.engine": b"ftrt" + bytes(64)}
    fields["variants"] = {"fp16": half, "compiled": engine | {"engine": built}}
    repository.publish("pair", fields, files | more)
    # Another network under the name of a variant.
    fields["variants"] = {"fp16": half}
    repository.publish("pair", fields, files | {"half.onnx": (graphs / "mixed.onnx").read_bytes()})
    assert main(["models", "verify", "--repository", str(repository.root), "--json"]) == 1
    good, bad = json.loads(capsys.readouterr().out)["models"]
    assert good["variants"]["fp16"] == good["device"]
    assert good["variants"]["compiled"].startswith("not opened here: ")
    assert "pair/2/half.onnx: expected inputs" in bad["error"]
    assert main(["models", "verify", "--repository", str(repository.root)]) == 1
    assert "; not opened here: compiled\n" in capsys.readouterr().out


@pytest.fixture
def key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A private key, with its public one beside it."""
    assert main(["models", "keygen", str(tmp_path / "centre.key"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["public_key"] == f"{document['private_key']}.pub"
    assert len(document["key"]) == 16
    return tmp_path / "centre.key"


@pytest.mark.usefixtures("published")
def test_sign_and_verify(repository: Repository, key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--repository", str(repository.root)]
    verify = ["models", "verify", "--key", f"{key}.pub", *place]
    assert main(verify) == 1
    assert "NOT VALID" in capsys.readouterr().out
    assert main(["models", "sign", "pair", "--key", str(key), *place, "--json"]) == 0
    signed = json.loads(capsys.readouterr().out)
    assert (signed["name"], signed["version"]) == ("pair", 1)
    assert Path(signed["signature"]).name == f"manifest.{signed['key']}.sig"
    assert main([*verify, "--json"]) == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert (model["signed_by"], model["signatures_not_checked"]) == ([signed["key"]], [])
    assert main(verify) == 0
    assert capsys.readouterr().out.endswith(f"; signed by {signed['key']}\n")
    # Without the key, nothing says that the signature holds.
    assert main(["models", "verify", *place]) == 0
    assert capsys.readouterr().out.endswith(f"; not checked: signature by {signed['key']}\n")


def test_one_version_is_signed(
    published: Model,
    repository: Repository,
    fields: dict[str, Any],
    files: dict[str, bytes],
    key: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    repository.publish("pair", fields, files)
    place = ["--repository", str(repository.root)]
    assert main(["models", "sign", "pair", "--version", "1", "--key", str(key), *place]) == 0
    assert capsys.readouterr().out.startswith("pair 1  signed by ")
    assert main(["models", "verify", "--key", f"{key}.pub", *place, "--json"]) == 1
    first, second = json.loads(capsys.readouterr().out)["models"]
    assert "error" not in first
    assert "pair/2/manifest.json: expected a signature" in second["error"]
    assert main(["models", "sign", "pair", "--version", "7", "--key", str(key), *place]) == 2
    assert "no version 7 of 'pair'" in capsys.readouterr().err
    assert published.manifest.version == 1


def test_an_altered_model_is_not_signed(
    published: Model, repository: Repository, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (published.folder / "card.md").write_text("# a better pair")
    place = ["--repository", str(repository.root)]
    assert main(["models", "sign", "pair", "--key", str(key), *place]) == 2
    assert "card.md: expected SHA-256" in capsys.readouterr().err
    assert not list(published.folder.glob("*.sig"))


def test_a_private_key_among_the_models(
    published: Model, repository: Repository, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = key.rename(repository.root / "centre.key")
    assert main(["models", "sign", "pair", "--key", str(moved), "--repository", str(repository.root)]) == 2
    assert "kept elsewhere than with the models" in capsys.readouterr().err
    assert not list(published.folder.glob("*.sig"))


def test_a_repository_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--repository", "/nonexistent/models"]) == 2
    assert "cannot read the repository models" in capsys.readouterr().err


def test_its_module_is_light() -> None:
    heavy = "{'cryptography', 'numpy', 'onnxruntime'} & set(sys.modules)"
    code = f"import sys, trocar.runtime.repository.cli; print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
