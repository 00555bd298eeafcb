from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from trocar.bench.workloads import model_load
from trocar.runtime.errors import InvalidInput, ManifestMismatch
from trocar.runtime.repository.sign import write_key_pair


def measure(*options: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    model_load.add_arguments(parser)
    return model_load.run(parser.parse_args(options))


def test_every_shipped_model_is_loaded_each_way() -> None:
    found = measure("--repeats", "2", "--processes", "1")
    assert found["passed"]
    model = found["models"]["tpgan"]
    assert model["answers"] == 1
    assert model["size_bytes"] > 1 << 20
    timings = model["timings"]
    for kind in ("new_process", "new_process_imported", "whole_new_process", "same_process"):
        assert timings[kind]["min_ms"] > 0
    steps = ("verify", "open", "first_answer")
    assert timings["same_process"]["p50_ms"] == pytest.approx(
        sum(timings[f"same_process_{step}"]["p50_ms"] for step in steps), rel=1e-6
    )


def test_another_answer_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    real, turns = model_load.answer, iter(range(9))

    def drifting(*arguments: Any) -> dict[str, Any]:
        return real(*arguments) | {"answer_sha256": str(next(turns))}

    monkeypatch.setattr(model_load, "answer", drifting)
    assert not measure("--repeats", "2", "--processes", "1")["passed"]


def test_what_measures_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--repeats and --processes of 1 or more"):
        measure("--repeats", "0")
    with pytest.raises(InvalidInput, match="expected models in"):
        measure("--repository", str(tmp_path))
    public, _ = write_key_pair(tmp_path / "k")
    with pytest.raises(ManifestMismatch, match="expected a signature"):
        measure("--require-signature", str(public), "--processes", "1", "--repeats", "1")
