from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trocar.runtime.repository.store import Model, Repository

AXES = ["batch", 2, 3]


def tensor(name: str) -> dict[str, Any]:
    return {"name": name, "dtype": "float32", "shape": AXES, "layout": "batch row column"}


@pytest.fixture
def fields() -> dict[str, Any]:
    """A manifest of the `pair` graph, less what publishing fills in."""
    return {
        "task": "adds and subtracts",
        "intended_use": "tests",
        "limits": ["knows no medicine"],
        "inputs": [tensor("left"), tensor("right")],
        "outputs": [tensor("total"), tensor("difference")],
        "opset": 18,
        "training": {"seeds": [1, 2]},
        "metrics": {"dice": 0.5},
        "parity": {},
        "novelty": {"mean": [0.0, 1.5]},
    }


@pytest.fixture
def files(graphs: Path) -> dict[str, bytes]:
    return {"model.onnx": (graphs / "pair.onnx").read_bytes(), "card.md": b"# pair\n"}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def published(repository: Repository, fields: dict[str, Any], files: dict[str, bytes]) -> Model:
    return repository.publish("pair", fields, files)
