"""TP-GAN through the whole export, untrained and small, on a few phantoms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trocar.planners.tpgan import measure
from trocar.runtime.cli import main
from trocar.runtime.repository.store import Repository

torch = pytest.importorskip("torch", reason="torch is not installed (train extra)")
pytest.importorskip("onnxscript", reason="onnxscript is not installed (train extra)")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    from trocar.planners.tpgan.network import NETWORK
    from trocar.planners.tpgan.settings import SCHEMA
    from trocar.training import checkpoint

    torch.manual_seed(0)
    facts = {"network": {"widths": [8, 8, 8], "feature_channels": 8, "noise_channels": 2}}
    path = tmp_path / "small.safetensors"
    checkpoint.write_checkpoint(path, NETWORK.build(facts).state_dict(), facts, schema=SCHEMA)
    return path


def test_every_precision_is_measured_on_features_and_on_plans(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "PARITY_PHANTOMS", range(20_000_000, 20_000_002))
    monkeypatch.setattr(measure, "PARITY_BATCHES", (2,))
    monkeypatch.setattr(measure, "CALIBRATION_PHANTOMS", range(21_000_000, 21_000_002))
    where = ["--checkpoint", str(checkpoint), "--repository", str(tmp_path / "models")]
    # An untrained network's probabilities are all alike: their order, and so the plans, may differ.
    assert main(["export", "tpgan", *where, "--to", "fp16,int8", "--allow-differences", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert not [line for line in document["exceeded"] if "differs" in line]
    assert not [line for line in document["exceeded"] if line.startswith("onnx")]
    model = Repository(tmp_path / "models").open("tpgan")
    for parity in (model.manifest.parity, *(each.parity for each in model.manifest.variants.values())):
        assert (parity["samples"], parity["inputs"]) == (2, "real")
        assert list(parity["metric_ratios"]) == ["plan_cost", "plan_cost_1000_moves"]
        assert parity["metric_ratios"]["plan_cost"] == pytest.approx(1, abs=0.3)
    assert b"| model.int8.onnx | int8 |" in model.read("card.md")
