from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from trocar.bench.workloads import sessions
from trocar.runtime.errors import InvalidInput, ModelNotFound
from trocar.runtime.repository.store import Repository

GRAPHS = Path(__file__).parents[2] / "data" / "models"


def measure(*options):
    parser = argparse.ArgumentParser()
    sessions.add_arguments(parser)
    return sessions.run(parser.parse_args(options))


@pytest.fixture
def repository(tmp_path):
    def tensor(name):
        return {"name": name, "dtype": "float32", "shape": ["batch", 2, 3], "layout": "batch row column"}

    def variant(file, form):
        facts = {"flavour": "tensorrt-rtx", "library": "tensorrt_rtx 0"}
        return {
            "file": file,
            "format": form,
            "precision": "fp16",
            "parity": {},
            "metrics": {},
            "engine": facts,
        }

    fields = {
        "task": "adds",
        "intended_use": "tests",
        "limits": [],
        "inputs": [tensor("left"), tensor("right")],
        "outputs": [tensor("total"), tensor("difference")],
        "opset": 18,
        "training": {},
        "metrics": {},
        "parity": {},
        "novelty": {},
        "variants": {"fp16": variant("d.onnx", "onnx"), "rtx": variant("d.engine", "tensorrt-rtx")},
    }
    files = {"model.onnx": (GRAPHS / "pair.onnx").read_bytes(), "card.md": b"# pair\n"}
    files |= {"d.onnx": (GRAPHS / "double.onnx").read_bytes(), "d.engine": b"an engine"}
    Repository(tmp_path).publish("pair", fields, files)
    return tmp_path


def test_each_variant_is_opened_and_run_both_ways(repository):
    found = measure("--repository", str(repository), "--model", "pair", "--batch", "3", "--repeats", "2")
    assert found["model"] == "pair/1"
    assert found["inputs"] == {"left": [3, 2, 3], "right": [3, 2, 3]}
    rows = found["tables"]["one run, ms"]
    assert [(row["variant"], row["buffers"]) for row in rows] == [
        ("fp32", "fresh"),
        ("fp32", "bound"),
        ("fp16", "fresh"),
        ("fp16", "bound"),
    ]
    assert all(0 < row["min_ms"] <= row["p50_ms"] <= row["max_ms"] and row["open_ms"] > 0 for row in rows)
    assert list(found["left_out"]) == ["rtx"]
    assert "expected a GPU to run this engine" in found["left_out"]["rtx"]


def test_what_measures_nothing_is_refused(repository):
    with pytest.raises(InvalidInput, match="expected batch and repeats of 1 or more, got 0 and 100"):
        measure("--batch", "0")
    with pytest.raises(ModelNotFound, match="no model 'none'"):
        measure("--repository", str(repository), "--model", "none")
