from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trocar.runtime.errors import DeviceError, InvalidInput, ManifestMismatch
from trocar.runtime.repository import load
from trocar.runtime.repository.load import open_model
from trocar.runtime.repository.store import Model, Repository
from trocar.runtime.session.cuda import Gpu


def test_a_published_model_runs(published: Model) -> None:
    session = open_model(published, threads=1, device="cpu")
    left = np.ones((1, 2, 3), np.float32)
    assert session.run({"left": left, "right": left})["total"].tolist() == [[[2.0] * 3] * 2]


def test_a_file_altered_after_opening_is_not_run(published: Model) -> None:
    (published.folder / "model.onnx").write_bytes(b"another model")
    with pytest.raises(ManifestMismatch, match=r"model\.onnx: expected SHA-256"):
        open_model(published)


def test_a_published_file_that_is_no_graph(
    repository: Repository, fields: dict[str, Any], files: dict[str, bytes]
) -> None:
    """Protobuf, with a graph in it, and nothing in that."""
    model = repository.publish("pair", fields, files | {"model.onnx": b"\x3a\x00"})
    with pytest.raises(ManifestMismatch, match=r"model\.onnx: model: expected an ONNX model"):
        open_model(model)


@pytest.mark.parametrize(
    ("key", "index", "change"),
    [
        ("inputs", 0, {"name": "lefty"}),
        ("inputs", 1, {"dtype": "float64"}),
        ("outputs", 1, {"shape": ["batch", 3, 2]}),
        ("outputs", 0, {"shape": [1, 2, 3]}),
    ],
)
def test_tensors_that_the_manifest_says_otherwise(
    repository: Repository,
    fields: dict[str, Any],
    graphs: Path,
    key: str,
    index: int,
    change: dict[str, Any],
) -> None:
    fields[key][index] |= change
    files = {"model.onnx": (graphs / "pair.onnx").read_bytes(), "card.md": b"#"}
    model = repository.publish("pair", fields, files)
    with pytest.raises(ManifestMismatch, match=rf"model\.onnx: expected {key} .*, got .*float32"):
        open_model(model)


ENGINE_FACTS = {
    "flavour": "tensorrt-rtx",
    "library": "tensorrt_rtx 1.7",
    "capabilities": ["sm89"],
    "gpu": "",
}


def variant(file: str, precision: str, **more: Any) -> dict[str, Any]:
    return {
        "file": file,
        "format": "onnx" if file.endswith(".onnx") else "tensorrt-rtx",
        "precision": precision,
        "parity": {},
        "metrics": {},
        "engine": {},
        **more,
    }


@pytest.fixture
def full(repository: Repository, fields: dict[str, Any], files: dict[str, bytes], graphs: Path) -> Model:
    """A model in four files: the variant `double` doubles the answers, so that one can see which runs."""
    fields["variants"] = {
        "double": variant("model.double.onnx", "fp16"),
        "tensorrt-rtx-int8-sm89": variant("i.engine", "int8", engine=ENGINE_FACTS),
        "tensorrt-rtx-fp32-sm89": variant("f.engine", "fp32", engine=ENGINE_FACTS),
        "tensorrt-rtx-fp16-sm89": variant("h.engine", "fp16", engine=ENGINE_FACTS),
    }
    more = {"model.double.onnx": (graphs / "double.onnx").read_bytes()}
    more |= {f"{name}.engine": f"engine {name}".encode() for name in "ifh"}
    return repository.publish("pair", fields, files | more)


def total(session: Any) -> float:
    ones = np.ones((1, 2, 3), np.float32)
    return float(session.run({"left": ones, "right": ones})["total"][0, 0, 0])


@pytest.mark.parametrize(("name", "expected"), [("auto", 2.0), ("fp32", 2.0), ("double", 4.0)])
def test_a_variant_is_opened_by_name(full: Model, name: str, expected: float) -> None:
    assert total(open_model(full, device="cpu", variant=name)) == expected


def test_an_unknown_variant_or_device(full: Model) -> None:
    with pytest.raises(InvalidInput, match=r"expected a variant of fp32, double, .*'int4'"):
        open_model(full, variant="int4")
    with pytest.raises(InvalidInput, match="expected a device of auto, cpu, cuda, got 'tpu'"):
        open_model(full, device="tpu")


def test_an_engine_needs_a_gpu(full: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match=r"h\.engine: expected a GPU to run this engine, got device cpu"):
        open_model(full, device="cpu", variant="tensorrt-rtx-fp16-sm89")
    monkeypatch.setattr(load, "find_gpu", lambda: "libcuda.so.1 is not there")
    assert total(open_model(full)) == 2.0


def test_auto_takes_the_first_engine_that_opens_but_never_int8(
    full: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def open_engine(data: bytes, *, facts: Any, inputs: Any, outputs: Any, name: str) -> str:
        assert (facts, inputs, outputs) == (ENGINE_FACTS, full.manifest.inputs, full.manifest.outputs)
        assert name.startswith("pair/1/")
        tried.append(data.decode())
        if data.decode() not in works:
            raise DeviceError("another GPU")
        return data.decode()

    monkeypatch.setattr(load, "find_gpu", lambda: Gpu(0, "Imaginary 9000", "sm89"))
    monkeypatch.setattr("trocar.runtime.session.tensorrt.open_engine", open_engine)
    works = ["engine f", "engine i"]
    assert open_model(full) == "engine f"
    assert tried == ["engine h", "engine f"]
    assert open_model(full, variant="tensorrt-rtx-int8-sm89") == "engine i"
    assert total(open_model(full, device="cpu")) == 2.0
    works.clear()
    assert total(open_model(full)) == 2.0
    (full.folder / "h.engine").write_bytes(b"engine of somebody else")
    with pytest.raises(ManifestMismatch, match=r"h\.engine: expected SHA-256"):
        open_model(full)


@pytest.mark.parametrize("key", ["flavour", "library", "capabilities", "gpu"])
@pytest.mark.parametrize("value", [None, 7])
def test_an_engine_of_which_the_manifest_says_too_little(
    repository: Repository, fields: dict[str, Any], files: dict[str, bytes], key: str, value: object
) -> None:
    engine = variant("model.engine", "fp16", engine=ENGINE_FACTS | {key: value})
    fields["variants"] = {"compiled": engine}
    model = repository.publish("pair", fields, files | {"model.engine": b"ftrt"})
    with pytest.raises(ManifestMismatch, match=rf"model\.engine: expected the manifest to say its {key}"):
        open_model(model, variant="compiled")
