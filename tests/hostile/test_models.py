"""Models that somebody tampered with, at the surfaces that load them: the server and the command line."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from damage import flip

from trocar.runtime.config import Config, ServerConfig
from trocar.runtime.errors import InvalidInput, ManifestMismatch
from trocar.runtime.repository.sign import read_private_key, write_key_pair
from trocar.runtime.repository.store import Repository, shipped
from trocar.runtime.server.app import Server
from trocar.runtime.server.services import find_services

Run = Callable[..., CompletedProcess[str]]
Tamper = Callable[[Path], None]


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key, with its public one beside it."""
    path = tmp_path_factory.mktemp("keys") / "centre.key"
    write_key_pair(path)
    return path


@pytest.fixture
def models(tmp_path: Path, key: Path) -> Path:
    """The shipped generator, signed, in a repository of its own."""
    root = tmp_path / "models"
    shutil.copytree(shipped().root / "tpgan", root / "tpgan")
    repository = Repository(root)
    repository.sign(repository.open("tpgan"), read_private_key(key))
    return root


def replace(path: Path, content: bytes) -> None:
    """Put other content into a file, and its hash into the manifest."""
    path.write_bytes(content)
    manifest = path.with_name("manifest.json")
    document = json.loads(manifest.read_text())
    document["files"][path.name] = hashlib.sha256(content).hexdigest()
    manifest.write_text(json.dumps(document))


def linked(path: Path, root: int) -> None:
    """Move it out of the repository, `root` folders up, and leave a link to it."""
    outside = path.parents[root] / f"outside-{path.name}"
    path.rename(outside)
    path.symlink_to(outside)


def another_signature(folder: Path) -> None:
    (signature,) = folder.glob("manifest.*.sig")
    document = json.loads(signature.read_text())
    document["signature"] = document["signature"][::-1].replace("=", "A")[:86] + "=="
    signature.write_text(json.dumps(document))


# What was done to <models>/tpgan/1, and the file that must be named.
SIGNED: dict[str, tuple[Tamper, str]] = {
    "weights altered": (lambda folder: flip(folder / "model.onnx"), "model.onnx"),
    "card altered": (lambda folder: flip(folder / "card.md"), "card.md"),
    "signature gone": (lambda folder: next(folder.glob("*.sig")).unlink(), "manifest.json"),
    "signature altered": (another_signature, ".sig"),
    "manifest and card altered": (lambda folder: replace(folder / "card.md", b"# better"), ".sig"),
    "a file added": (lambda folder: (folder / "weights.bin").touch(), "weights.bin"),
}
# The same, of a repository in which no signature is required.
UNSIGNED: dict[str, tuple[Tamper, str]] = {
    "weights altered": (lambda folder: flip(folder / "model.onnx"), "model.onnx"),
    "a pickle": (lambda folder: replace(folder / "model.onnx", pickle.dumps({})), "model.onnx"),
    "weights linked": (lambda folder: linked(folder / "model.onnx", 3), "model.onnx"),
    "model linked": (lambda folder: linked(folder.parent, 1), "tpgan"),
    "a file missing": (lambda folder: (folder / "card.md").unlink(), "card.md"),
}


def refused(done: CompletedProcess[str], name: str) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    # A server logs what it could not load; the error is the last line, and the only one of its kind.
    *logged, line = done.stderr.splitlines()
    assert all(" ERROR trocar.server: model " in each for each in logged)
    assert line.startswith("trocar: error: ")
    assert f"{name}: " in line


def begin(models: Path, key: str = "") -> Server:
    config = ServerConfig(listen="127.0.0.1:0", repository=str(models), require_signature=key)
    return Server(Config(config), find_services())


@pytest.mark.parametrize("what", SIGNED)
def test_a_server_that_requires_a_signature(models: Path, key: Path, what: str) -> None:
    tamper, name = SIGNED[what]
    tamper(models / "tpgan" / "1")
    with pytest.raises(ManifestMismatch, match=f"{re.escape(name)}: "):
        begin(models, f"{key}.pub")


@pytest.mark.parametrize("what", UNSIGNED)
def test_a_server_that_requires_none(models: Path, what: str) -> None:
    tamper, name = UNSIGNED[what]
    tamper(models / "tpgan" / "1")
    with pytest.raises(ManifestMismatch, match=f"{re.escape(name)}: "):
        begin(models)


def test_a_server_with_signed_models_serves(
    start_server: Callable[..., Any], models: Path, key: Path
) -> None:
    config = f'[server]\nrepository = "{models}"\nrequire_signature = "{key}.pub"\n'
    server = start_server(config=config)
    assert server.stop() == 0


def test_the_shipped_models_are_signed_by_nobody(trocar: Run, key: Path) -> None:
    done = trocar("serve", "--listen", "127.0.0.1:0", "--require-signature", f"{key}.pub")
    refused(done, "tpgan/1/manifest.json")
    assert "expected a signature by" in done.stderr


@pytest.mark.parametrize("start", ["gan", "random"])
def test_a_plan_with_a_network_that_nobody_signed(trocar: Run, key: Path, start: str) -> None:
    command = ["plan", "phantom:7", "--moves", "1000", "--json", "--require-signature", f"{key}.pub"]
    done = trocar(*command, "--start", start)
    if start == "gan":
        refused(done, "tpgan/1/manifest.json")
    else:
        assert done.returncode in (0, 1), done.stderr
        assert json.loads(done.stdout)["seeds"] > 0


def test_a_plan_with_a_signed_network(trocar: Run, models: Path, key: Path) -> None:
    done = trocar(
        *("plan", "phantom:7", "--moves", "1000", "--json"),
        *("--repository", models, "--require-signature", f"{key}.pub"),
    )
    assert done.returncode in (0, 1), done.stderr
    digest = hashlib.sha256((models / "tpgan" / "1" / "model.onnx").read_bytes()).hexdigest()
    assert json.loads(done.stdout)["provenance"]["model_sha256"] == digest


@pytest.mark.parametrize("option", ["--repository", "--require-signature"])
def test_a_server_s_models_are_not_the_caller_s_to_choose(trocar: Run, option: str) -> None:
    done = trocar("plan", "phantom:7", "--server", "127.0.0.1:1", option, "x")
    assert done.returncode == 2
    assert "expected no --repository or --require-signature with --server" in done.stderr


@pytest.mark.parametrize("text", ["", "not a key"])
def test_a_server_with_a_key_that_is_none(models: Path, tmp_path: Path, text: str) -> None:
    """An empty file must not mean that nothing is required."""
    (tmp_path / "k.pub").write_text(text)
    with pytest.raises(InvalidInput, match=r"k\.pub: expected an Ed25519 public key"):
        begin(models, str(tmp_path / "k.pub"))
