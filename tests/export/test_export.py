"""The whole way, with a third party's network: checkpoint, graph, parity, manifest, repository, session."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trocar.runtime.cli import main
from trocar.runtime.repository.load import open_model
from trocar.runtime.repository.store import Repository

torch = pytest.importorskip("torch", reason="torch is not installed (train extra)")
pytest.importorskip("onnxscript", reason="onnxscript is not installed (train extra)")

Checkpoint = Callable[..., Path]


def export(checkpoint: Path, repository: Path, *more: str) -> int:
    where = ["--checkpoint", str(checkpoint), "--repository", str(repository)]
    return main(["export", "mixer", *where, *more])


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


def test_a_third_partys_network_is_published_and_runs(
    checkpoint: Checkpoint, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint()
    assert export(path, repository, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["published"], document["name"], document["version"]) == (True, "mixer", 1)
    assert document["folder"] == str(repository / "mixer" / "1")
    assert 0 <= document["parity"]["max_abs_difference"] <= 1e-5
    assert document["parity"]["samples"] == 32

    model = Repository(repository).open("mixer")
    manifest = model.manifest
    assert [str(spec) for spec in manifest.inputs] == [
        "float32 [batch, 3, 4, 4, 4]",
        "float32 [batch, 1, 4, 4, 4]",
    ]
    assert [(spec.name, spec.layout) for spec in manifest.outputs] == [
        ("probability", "batch plane row column")
    ]
    assert manifest.opset == 18
    assert manifest.training == {
        "seed": 5,
        "checkpoint_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert manifest.parity["onnx"]
    assert model.read("card.md").startswith(b"# mixer: ")

    from third_party_mixer import NETWORK

    module = NETWORK.build({"channels": 3})
    torch.manual_seed(5)
    module = NETWORK.build({"channels": 3}).eval()
    session = open_model(model, device="cpu")
    generator = np.random.default_rng(0)
    for batch in (1, 3):
        features = generator.standard_normal((batch, 3, 4, 4, 4)).astype(np.float32)
        noise = generator.standard_normal((batch, 1, 4, 4, 4)).astype(np.float32)
        with torch.inference_mode():
            expected = module(torch.from_numpy(features), torch.from_numpy(noise)).numpy()
        found = session.run({"features": features, "noise": noise})["probability"]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_same_checkpoint_gives_the_same_files(
    checkpoint: Checkpoint, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint()
    assert export(path, repository) == 0
    assert export(path, repository, "--version", "4") == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert "published; differs from torch by" in captured.out
    assert "comparing with torch" in captured.err
    first, second = (Repository(repository).open("mixer", version) for version in (1, 4))
    assert first.manifest.files == second.manifest.files
    graph = first.read("model.onnx")
    for trace in (b"third_party_mixer", b".py", str(Path.cwd()).encode()):
        assert trace not in graph, "a graph must not say where it was made"
    assert export(path, repository, "--version", "4") == 2
    assert "version 4 of 'mixer' is published already" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["Drifting", "Lost"])
def test_a_graph_that_is_not_the_network_is_not_published(
    checkpoint: Checkpoint, repository: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    assert export(checkpoint(kind=kind), repository, "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["published"] is False
    difference = document["parity"]["max_abs_difference"]
    assert difference == pytest.approx(1e-3, rel=0.01) if kind == "Drifting" else difference is None
    assert not repository.exists()


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"kind": "Fixed"}, "expected axis 0 of probability to be any batch; the network fixes it"),
        ({"fields": {"limits": []}, "channels": 2}, "the network cannot be exported"),
        ({"fields": {"task": ""}}, "mixer: task: expected text"),
        ({"fields": {"opset": 17}}, "expected no 'opset' in its manifest fields"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(
    checkpoint: Checkpoint,
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    facts: dict[str, Any],
    message: str,
) -> None:
    assert export(checkpoint(**facts), repository) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err.splitlines()[-1]
    assert not repository.exists()


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("no-such", "no network 'no-such'; there is "),
        ("hollow", "network 'hollow': expected third_party_mixer:HOLLOW to have card, example_inputs"),
    ],
)
def test_networks_that_are_not_there(
    repository: Path, capsys: pytest.CaptureFixture[str], network: str, message: str
) -> None:
    where = ["--checkpoint", "none.safetensors", "--repository", str(repository)]
    assert main(["export", network, *where]) == 2
    assert message in capsys.readouterr().err
