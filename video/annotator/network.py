"""The annotator and the polyp model as networks that can be exported: what `trocar.networks` offers.

This module loads without torch; what builds a network imports it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trocar.runtime.errors import InvalidInput
from trocar.video.annotator.card import ANNOTATOR, INTENDED_USE, Facts, card_text
from trocar.video.annotator.card import POLYP as POLYP_FACTS
from trocar.video.annotator.settings import SCHEMA, NetworkSettings
from trocar.video.types import CLASSES, HEIGHT, PALETTE_RGB, POLYP_CLASSES, WIDTH, PixelClass

if TYPE_CHECKING:
    from torch import Tensor, nn

# What one reads of the outputs: a tip is a peak of at least this.
TIP_THRESHOLD = 0.3
TIP_STRIDE = 4
# Instruments of fewer of the network's pixels are taken for highlights: on 200 rendered frames it raises the
# mean Dice from 0.738 to 0.796, most of it where there is no instrument.
LEAST_REGION_PX = 200
_PARITY_STREAM, _CALIBRATION_STREAM, _METRIC_STREAM = 0x7061_7274, 0x6361_6C69, 0x6D65_7472


@dataclass(frozen=True, slots=True)
class Network:
    """What export needs to know of a network, and nothing of how it was trained."""

    name: str
    output_names: tuple[str, ...]
    facts: Facts
    classes: tuple[str, ...]
    kind: str

    @property
    def input_names(self) -> tuple[str, ...]:
        """One picture."""
        return ("image",)

    @property
    def layouts(self) -> Mapping[str, str]:
        """What the axes are."""
        return {"image": "NCHW", "logits": "NCHW", "tips": "NCHW"}

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The network with first weights; its `forward` takes the inputs in order.

        Parameters
        ----------
        config : a checkpoint's metadata, or the `network` object in it.
        """
        from trocar.video.annotator.generator import Generator

        settings = network_settings(config)
        if settings.classes != len(self.classes):
            raise InvalidInput(f"{self.name}: expected {len(self.classes)} classes, got {settings.classes}")
        return Generator(settings)

    def load(self, path: Path) -> tuple[nn.Module, dict[str, Any]]:
        """The trained network of a `.safetensors` file that training wrote, and its metadata.

        Raises
        ------
        InvalidInput
            Not such a file, or tensors that do not fit.
        """
        from trocar.training import checkpoint

        tensors, metadata = checkpoint.read_checkpoint(path, schema=SCHEMA)
        if "network" not in metadata:
            raise InvalidInput(f"{path.name} is a run's checkpoint: expected the network it gave")
        module = self.build(metadata)
        checkpoint.load_weights(module, tensors, path.name)
        return module.eval(), metadata

    def example_inputs(self) -> tuple[Tensor]:
        """A rendered frame."""
        import torch

        return (torch.from_numpy(next(self._feeds(0, (1,)))["image"]),)

    def parity_inputs(self) -> Sequence[dict[str, Any]]:
        """Rendered frames that nobody trained on."""
        return list(self._feeds(_PARITY_STREAM, (1, 2, 4)))

    def calibration_inputs(self) -> Iterator[dict[str, Any]]:
        """Rendered frames for the ranges of int8."""
        return self._feeds(_CALIBRATION_STREAM, (4,) * 8)

    def task_metric(self, run: Any) -> dict[str, float]:
        """Mean Dice of the classes over rendered frames, pooled."""
        import numpy as np

        from trocar.video.annotator.data import rendered

        frames = rendered(self.kind, [(_METRIC_STREAM, number) for number in range(24)], (HEIGHT, WIDTH))
        counts = np.zeros((3, len(self.classes)))
        for image, labels in zip(frames.images, frames.labels, strict=True):
            found = run({"image": as_input(image[None])})["logits"].argmax(1)[0]
            for each in range(len(self.classes)):
                counts[:, each] += [
                    ((found == each) & (labels == each)).sum(),
                    (found == each).sum(),
                    (labels == each).sum(),
                ]
        dice = (2 * counts[0] + 1) / (counts[1] + counts[2] + 1)
        return {
            "dice": float(dice.mean()),
            **{f"dice_{name}": float(value) for name, value in zip(self.classes, dice, strict=True)},
        }

    def manifest_fields(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The manifest's fields that the checkpoint knows."""
        return {
            "task": self.facts.task,
            "intended_use": INTENDED_USE,
            "limits": list(self.facts.limits),
            "training": dict(metadata.get("training", {})),
            "metrics": dict(metadata.get("metrics", {})),
            "novelty": {},
            "preprocessing": {
                "image": {
                    "height": HEIGHT,
                    "width": WIDTH,
                    "order": "rgb",
                    "resize": "area",
                    "keep_aspect": False,
                    "scale": [1 / 255] * 3,
                    "bias": [0.0] * 3,
                }
            },
            "postprocessing": self._postprocessing(),
        }

    def card(self, document: Mapping[str, Any]) -> str:
        """The model's card, Markdown."""
        return card_text(self.facts, document)

    def _postprocessing(self) -> dict[str, Any]:
        logits: dict[str, Any] = {"mode": "argmax", "classes": list(self.classes)}
        if self.classes != CLASSES:
            return {"logits": logits}
        logits["palette_rgb"] = [list(PALETTE_RGB[each]) for each in PixelClass]
        logits["least_instrument_px"] = LEAST_REGION_PX
        return {"logits": logits, "tips": {"stride": TIP_STRIDE, "threshold": TIP_THRESHOLD, "read": "peak"}}

    def _feeds(self, stream: int, batches: Sequence[int]) -> Iterator[dict[str, Any]]:
        from trocar.video.annotator.data import rendered

        first = 0
        for size in batches:
            seeds: list[tuple[int, ...]] = [(stream, number) for number in range(first, first + size)]
            yield {"image": as_input(rendered(self.kind, seeds, (HEIGHT, WIDTH)).images)}
            first += size


def as_input(images: Any) -> Any:
    """Frames (n, height, width, 3) uint8 RGB as the network takes them."""
    import numpy as np

    return np.ascontiguousarray(np.moveaxis(images, 3, 1), dtype=np.float32) / np.float32(255)


def network_settings(config: Mapping[str, Any]) -> NetworkSettings:
    """Settings from a checkpoint's JSON."""
    held = config.get("network", config)
    expected = {"classes", "widths", "depths", "tips"}
    # Those written before there was a choice do not say `lean`.
    if not isinstance(held, Mapping) or set(held) - {"lean"} != expected:
        raise InvalidInput(f"expected the network's {', '.join(sorted(expected))}, got {held!r:.200}")
    return NetworkSettings(
        int(held["classes"]),
        tuple(int(width) for width in held["widths"]),  # type: ignore[arg-type]
        tuple(int(depth) for depth in held["depths"]),  # type: ignore[arg-type]
        bool(held["tips"]),
        bool(held.get("lean", False)),
    )


NETWORK = Network("annotator", ("logits", "tips"), ANNOTATOR, CLASSES, "tools")
POLYP = Network("polyp", ("logits",), POLYP_FACTS, POLYP_CLASSES, "polyps")
