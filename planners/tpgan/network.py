"""TP-GAN as a network that can be exported: what `trocar.networks` offers under `tpgan`.

This module loads without torch; what builds the network imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trocar.planners.features import CHANNELS, SIDE
from trocar.planners.tpgan import measure
from trocar.planners.tpgan.card import LIMITS, TASK, card_text
from trocar.planners.tpgan.measure import Feeds, Run
from trocar.planners.tpgan.settings import NOISE_CHANNELS, SCHEMA, NetworkSettings
from trocar.planners.types import require
from trocar.runtime.command import INTENDED_USE

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Network:
    """What export needs to know of a network, and nothing of how it was trained."""

    name: str
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    layouts: Mapping[str, str]

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The network with first weights; its `forward` takes the inputs in order.

        Parameters
        ----------
        config : a checkpoint's metadata, or the `network` object in it.
        """
        from trocar.planners.tpgan.generator import Generator

        return Generator(network_settings(config))

    def load(self, path: Path) -> tuple[nn.Module, dict[str, Any]]:
        """The trained network of a `.safetensors` file that training wrote, and its metadata.

        Raises
        ------
        InvalidInput
            Not such a file, or tensors that do not fit.
        """
        from trocar.training import checkpoint

        tensors, metadata = checkpoint.read_checkpoint(path, schema=SCHEMA)
        require("network" in metadata, f"{path.name} is a run's checkpoint: expected the network it gave")
        module = self.build(metadata)
        checkpoint.load_weights(module, tensors, path.name)
        return module.eval(), metadata

    def example_inputs(self, batch: int = 2) -> tuple[Tensor, Tensor]:
        """Inputs of the right shapes, with values such as a case has."""
        import torch

        drawn = torch.Generator().manual_seed(0)
        features = torch.randn((batch, len(CHANNELS), SIDE, SIDE, SIDE), generator=drawn)
        features[:, CHANNELS.index("candidate")] = (features[:, CHANNELS.index("ptv_distance")] < 0).float()
        return features, torch.randn((batch, NOISE_CHANNELS, SIDE, SIDE, SIDE), generator=drawn)

    def parity_inputs(self) -> list[Feeds]:
        """Batches of fresh phantoms' features, to compare an exported file with torch on."""
        return measure.batches(measure.PARITY_PHANTOMS, measure.PARITY_BATCHES)

    def calibration_inputs(self) -> list[Feeds]:
        """Batches of other fresh phantoms' features, from which int8 takes its ranges."""
        return measure.batches(measure.CALIBRATION_PHANTOMS, measure.CALIBRATION_BATCHES)

    def task_metric(self, run: Run) -> dict[str, float]:
        """Cost of the plans that the network's proposals lead to; see `measure.plan_costs`."""
        return measure.plan_costs(run, measure.PARITY_PHANTOMS)

    def manifest_fields(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest's fields that the checkpoint knows."""
        return {
            "task": TASK,
            "intended_use": INTENDED_USE,
            "limits": list(LIMITS),
            "training": dict(metadata.get("training", {})),
            "metrics": dict(metadata.get("metrics", {})),
            "novelty": dict(metadata.get("novelty", {})),
        }

    def card(self, metadata: Mapping[str, Any]) -> str:
        """The model's card, Markdown; see `trocar.planners.tpgan.card.card_text`."""
        return card_text(metadata, metadata.get("tables", {}))


def network_settings(config: Mapping[str, Any]) -> NetworkSettings:
    """Settings from a checkpoint's JSON."""
    held = config.get("network", config)
    expected = {"widths", "feature_channels", "noise_channels"}
    require(
        isinstance(held, Mapping) and set(held) == expected and isinstance(held["widths"], list | tuple),
        f"expected the network's {', '.join(sorted(expected))}, got {held!r:.200}",
    )
    settings = NetworkSettings(
        tuple(int(width) for width in held["widths"]),  # type: ignore[arg-type]
        int(held["feature_channels"]),
        int(held["noise_channels"]),
    )
    require(
        (settings.feature_channels, settings.noise_channels) == (len(CHANNELS), NOISE_CHANNELS),
        f"expected {len(CHANNELS)} feature and {NOISE_CHANNELS} noise channels, got "
        f"{settings.feature_channels} and {settings.noise_channels}",
    )
    return settings


NETWORK = Network(
    name="tpgan",
    input_names=("features", "noise"),
    output_names=("probability",),
    layouts={"features": "NCZYX", "noise": "NCZYX", "probability": "NZYX"},
)
