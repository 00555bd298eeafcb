"""The whole way, with a third party's network: checkpoint, graph, parity, manifest, repository, session."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trocar.runtime.cli import main
from trocar.runtime.errors import DeviceError
from trocar.runtime.repository.load import open_model
from trocar.runtime.repository.store import Repository
from trocar.runtime.session.ort import open_session

torch = pytest.importorskip("torch", reason="torch is not installed (train extra)")
pytest.importorskip("onnxscript", reason="onnxscript is not installed (train extra)")

from trocar.export import variants  # noqa: E402

Checkpoint = Callable[..., Path]


def export(checkpoint: Path, repository: Path, *more: str, network: str = "mixer") -> int:
    where = ["--checkpoint", str(checkpoint), "--repository", str(repository)]
    return main(["export", network, *where, *more])


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
    assert document["parity"]["inputs"].startswith("the example")
    assert document["variants"] == {}

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
    assert manifest.variants == {}
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
    fewer = ("--to", "fp16,int8")
    assert export(path, repository, *fewer, network="measured") == 0
    assert export(path, repository, *fewer, "--version", "4", network="measured") == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert (
        "/1: published model.fp16.onnx, model.int8.onnx, model.onnx; model.onnx differs from" in captured.out
    )
    assert "trocar: comparing model.onnx with torch\n" in captured.err
    first, second = (Repository(repository).open("measured", version) for version in (1, 4))
    assert first.manifest.files == second.manifest.files
    for file in ("model.onnx", "model.fp16.onnx", "model.int8.onnx"):
        for trace in (b"third_party_mixer", b".py", str(Path.cwd()).encode()):
            assert trace not in first.read(file), "a graph must not say where it was made"
    assert export(path, repository, "--version", "4", network="measured") == 2
    assert "version 4 of 'measured' is published already" in capsys.readouterr().err


def test_a_graph_is_folded_shaped_and_says_what_it_is(checkpoint: Checkpoint, repository: Path) -> None:
    import onnx

    path = checkpoint()
    assert export(path, repository, "--to", "fp16,int8", network="measured") == 0
    model = Repository(repository).open("measured")
    for file in ("model.onnx", "model.fp16.onnx", "model.int8.onnx"):
        graph = onnx.load_from_string(model.read(file))
        onnx.checker.check_model(graph, full_check=True)
        constant = {each.name for each in graph.graph.initializer}
        shaped = {each.name for each in (*graph.graph.value_info, *graph.graph.output)}
        for node in graph.graph.node:
            assert node.op_type != "Constant"
            # A quantised weight goes through DequantizeLinear: that is what a Q/DQ graph is.
            if node.op_type != "DequantizeLinear":
                assert not set(node.input) <= constant, "what does not depend on the inputs is computed once"
            assert set(node.output) <= shaped, "every tensor has a type and a shape"
        for value in (*graph.graph.input, *graph.graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
        assert {each.key: each.value for each in graph.metadata_props} == {
            "name": "measured",
            "checkpoint_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "intended_use": "tests",
            **({} if file == "model.onnx" else {"precision": file.split(".")[1]}),
        }


@pytest.mark.parametrize("kind", ["Drifting", "Lost"])
def test_a_graph_that_is_not_the_network_is_not_published(
    checkpoint: Checkpoint, repository: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    assert export(checkpoint(kind=kind), repository, "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["published"] is False
    assert document["exceeded"][0].startswith("onnx: probability differs by ")
    difference = document["parity"]["max_abs_difference"]
    assert difference == pytest.approx(1e-3, rel=0.01) if kind == "Drifting" else difference is None
    assert not repository.exists()


def test_differences_can_be_allowed_and_are_said(
    checkpoint: Checkpoint, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint(kind="Drifting")
    assert export(path, repository) == 1
    refused = capsys.readouterr().out
    assert refused.startswith("not published: onnx: probability differs by 0.001, 0.0001 allowed; onnx: ")
    assert export(path, repository, "--allow-differences") == 0
    assert "past tolerance: onnx: probability differs by 0.001, 0.0001 allowed" in capsys.readouterr().out
    model = Repository(repository).open("mixer")
    assert model.manifest.parity["exceeded"][0] == "onnx: probability differs by 0.001, 0.0001 allowed"
    assert b"Past tolerance, published all the same: onnx: probability differs" in model.read("card.md")


def test_fewer_bits_are_published_with_what_they_cost(
    checkpoint: Checkpoint, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(checkpoint(), repository, "--to", "int8,fp16", "--json", network="measured") == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["parity"]["inputs"] == "real"
    assert document["parity"]["samples"] == 4
    assert list(document["variants"]) == ["fp16", "int8"]
    model = Repository(repository).open("measured")
    variants = model.manifest.variants
    assert set(model.manifest.files) == {"model.onnx", "model.fp16.onnx", "model.int8.onnx", "card.md"}
    found = [variants[name].parity["max_abs_difference"] for name in ("fp16", "int8")]
    assert model.manifest.parity["max_abs_difference"] < found[0] < 1e-3 < found[1] < 0.05
    for name, variant in variants.items():
        assert (variant.format, variant.precision, variant.file) == ("onnx", name, f"model.{name}.onnx")
        assert variant.parity["metric_ratios"]["mass"] == pytest.approx(1, abs=0.02)
        assert variant.metrics["mass"] > 0
        session = open_session(model.read(variant.file), device="cpu")
        assert (session.inputs, session.outputs) == (model.manifest.inputs, model.manifest.outputs)
    card = model.read("card.md").decode()
    assert "| model.int8.onnx | int8 |" in card
    assert "`mass` / torch's" in card
    assert "over 4 inputs (real)" in card


def test_what_float16_cannot_hold_is_not_published(
    checkpoint: Checkpoint, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint(kind="Overflowing")
    assert export(path, repository, "--to", "fp16", "--json", network="measured") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["variants"]["fp16"]["parity"]["max_abs_difference"] > 1e5
    assert document["exceeded"][0].startswith("fp16: probability differs by ")
    assert not repository.exists()


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("fp8", "--to: expected onnx, fp16, int8, tensorrt, tensorrt-rtx, got 'fp8'"),
        ("int8", "network 'mixer': expected calibration_inputs for int8, got none"),
        (
            "fp16 --capabilities sm89",
            "--capabilities: expected tensorrt-rtx in --to, which alone is built for them",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_first(
    checkpoint: Checkpoint, repository: Path, capsys: pytest.CaptureFixture[str], to: str, message: str
) -> None:
    assert export(checkpoint(), repository, "--to", *to.split()) == 2
    assert capsys.readouterr().err == f"trocar: error: {message}\n"


class Builder:
    """Stands in for `build_engine`: what it was asked for, and an engine that nothing here runs."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def __call__(self, path: Path, *, flavour: str, precision: str, **options: Any) -> SimpleNamespace:
        graph = path.read_bytes()
        self.asked.append((flavour, precision, options["capabilities"], b"\x0a\x04fp16" in graph))
        return SimpleNamespace(
            variant=f"{flavour}-{precision}-sm89",
            file_name=f"model.{flavour}-{precision}-sm89.engine",
            engine=b"engine of " + hashlib.sha256(graph).digest(),
            document=lambda: {"flavour": flavour, "model_sha256": hashlib.sha256(graph).hexdigest()},
        )


@pytest.mark.parametrize(
    ("to", "precisions"), [("tensorrt-rtx", ["fp32"]), ("fp16,tensorrt-rtx,int8", ["fp16", "int8"])]
)
def test_engines_are_built_from_what_else_is_asked_for(
    checkpoint: Checkpoint,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    to: str,
    precisions: list[str],
) -> None:
    builder = Builder()
    monkeypatch.setattr(variants, "build_engine", builder)

    def refuse(*_: Any, **__: Any) -> None:
        raise DeviceError("no GPU for it here")

    monkeypatch.setattr("trocar.runtime.session.tensorrt.open_engine", refuse)
    more = ("--to", to, "--capabilities", "sm86,sm89")
    assert export(checkpoint(), repository, *more, network="measured") == 0
    assert [asked[:3] for asked in builder.asked] == [
        ("tensorrt-rtx", precision, ("sm86", "sm89")) for precision in precisions
    ]
    model = Repository(repository).open("measured")
    for precision in precisions:
        variant = model.manifest.variants[f"tensorrt-rtx-{precision}-sm89"]
        source = "model.onnx" if precision == "fp32" else f"model.{precision}.onnx"
        assert (variant.format, variant.precision) == ("tensorrt-rtx", precision)
        assert variant.parity == {"unmeasured": "no GPU for it here"}
        assert variant.engine["model_sha256"] == model.manifest.files[source]
    assert b"not measured: no GPU for it here" in model.read("card.md")


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
