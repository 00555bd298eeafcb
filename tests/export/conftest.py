"""A network of a third party, registered as a third party would: by the metadata of its package."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NETWORK = """
from types import SimpleNamespace
import numpy as np
import torch
from torch import nn

class Mixer(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.convolution = nn.Conv3d(channels + 1, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.head = nn.Conv3d(4, 1, 1)
    def forward(self, features, noise):
        hidden = nn.functional.silu(self.norm(self.convolution(torch.cat([features, noise], dim=1))))
        return torch.sigmoid(self.head(hidden)[:, 0]) * features[:, 0]

class Fixed(Mixer):
    def forward(self, features, noise):
        return super().forward(features, noise).reshape(2, -1)

class Drifting(Mixer):
    def forward(self, features, noise):
        answer = super().forward(features, noise)
        return answer if torch.compiler.is_exporting() else answer + 1e-3

class Overflowing(Mixer):
    def forward(self, features, noise):
        return super().forward(features, noise) * 1e6

class Lost(Mixer):
    def forward(self, features, noise):
        return super().forward(features, noise) * float("nan")

KINDS = {kind.__name__: kind for kind in (Mixer, Fixed, Drifting, Overflowing, Lost)}

def fields(facts):
    return {"task": "mixes", "intended_use": "tests", "limits": ["mixes only"], "metrics": {"dice": 0.5},
            "training": {"seed": facts.get("seed", 0)}, "novelty": {}, **facts.get("fields", {})}

NETWORK = SimpleNamespace(
    name="mixer", input_names=("features", "noise"), output_names=("probability",),
    layouts={"features": "batch channel plane row column", "noise": "batch channel plane row column",
             "probability": "batch plane row column"},
    build=lambda facts: KINDS[facts.get("kind", "Mixer")](facts["channels"]),
    example_inputs=lambda: (torch.full((1, 3, 4, 4, 4), 0.5), torch.zeros(1, 1, 4, 4, 4)),
    manifest_fields=fields,
    card=lambda document: f"# {document['name']}: {document['parity']['max_abs_difference']:.1e}\\n",
)
def batches(seed, sizes):
    random = np.random.default_rng(seed)
    return [{"features": random.uniform(0, 1, (size, 3, 4, 4, 4)).astype(np.float32),
             "noise": random.standard_normal((size, 1, 4, 4, 4)).astype(np.float32)} for size in sizes]

def task_metric(run):
    return {"mass": float(np.mean([run(batch)["probability"].sum() for batch in batches(3, (2, 2))]))}

MEASURED = SimpleNamespace(
    **{**vars(NETWORK), "name": "measured"}, parity_inputs=lambda: batches(1, (1, 3)),
    calibration_inputs=lambda: batches(2, (4, 4)), task_metric=task_metric,
)
HOLLOW = SimpleNamespace(name="hollow", build=None)
"""
ENTRY_POINTS = """
[trocar.networks]
mixer = third_party_mixer:NETWORK
measured = third_party_mixer:MEASURED
hollow = third_party_mixer:HOLLOW
"""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a package that registers the networks `mixer`, `measured` and `hollow`."""
    site = tmp_path / "site"
    metadata = site / "third_party_mixer-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party-mixer\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    (site / "third_party_mixer.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("third_party_mixer", None)


@pytest.fixture
def checkpoint(tmp_path: Path, third_party: None) -> Callable[..., Path]:  # noqa: ARG001
    """Write a checkpoint of the mixer: `checkpoint(channels=3, kind="Mixer")`."""

    def write(**facts: Any) -> Path:
        import torch
        from safetensors.torch import save_file
        from third_party_mixer import NETWORK as network  # noqa: N811

        torch.manual_seed(5)
        facts = {"channels": 3, "seed": 5, **facts}
        path = tmp_path / "mixer.safetensors"
        save_file(network.build(facts).state_dict(), path, metadata={"trocar": json.dumps(facts)})
        return path

    return write
