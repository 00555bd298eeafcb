from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trocar.runtime.errors import ManifestMismatch
from trocar.runtime.repository.load import open_model
from trocar.runtime.repository.store import Model, Repository


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
