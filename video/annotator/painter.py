"""The other way round: from a label map and a palette to a frame, SPADE in small.

Trained on rendered frames, it repaints label maps in palettes of other frames: more training frames for the
annotator. Whether that helps was measured; the annotator's card says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trocar.runtime.errors import InvalidInput
from trocar.training import checkpoint
from trocar.training.judge import generator_loss, judge_loss
from trocar.video.annotator.data import Frames, Source, augmented
from trocar.video.annotator.discriminator import Discriminator, matching_loss
from trocar.video.annotator.settings import SCHEMA

_WIDTHS = (96, 64, 40, 24)
_NOISE = 2


@dataclass(frozen=True, slots=True)
class PainterSettings:
    """One training run of a painter, short: it begins to be useful within minutes."""

    classes: int
    seed: int = 0
    epochs: int = 4
    frames: int = 768
    batch_size: int = 8
    rate: float = 1e-3
    adversarial: float = 0.05
    matching: float = 2.0


class Painter(nn.Module):
    """Label maps (b, c, h, w) and palettes (b, 6 c) to frames (b, 3, h, w) from 0 to 1."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.begin = nn.Linear(6 * classes, _WIDTHS[0])
        self.first = nn.Conv2d(classes + _NOISE, _WIDTHS[0], 3, padding=1)
        widths = (_WIDTHS[0], *_WIDTHS)
        self.blocks = nn.ModuleList(
            _Block(inward, outward, classes, 6 * classes) for inward, outward in pairwise(widths)
        )
        self.last = nn.Conv2d(_WIDTHS[-1], 3, 3, padding=1)

    def forward(self, maps: Tensor, palettes: Tensor, noise: Tensor) -> Tensor:
        """Paint.

        Parameters
        ----------
        maps : one-hot; height and width are multiples of 8.
        palettes : from `palettes_of`.
        noise : (b, 2, h, w), standard normal: what no label says.
        """
        depth = len(self.blocks) - 1
        told = torch.cat([maps, noise], 1)
        x = self.first(_smaller(told, 2**depth)) + self.begin(palettes)[:, :, None, None]
        for number, block in enumerate(self.blocks):
            x = block(x, _smaller(told, 2 ** (depth - number)), palettes)
            if number < depth:
                x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
        return torch.sigmoid(self.last(torch.relu(x)))


class _Block(nn.Module):
    """A convolution whose normalisation is told the labels and the palette at each place."""

    def __init__(self, inward: int, outward: int, classes: int, style: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, inward, affine=False)
        self.told = nn.Conv2d(classes + _NOISE, 2 * inward, 3, padding=1)
        self.style = nn.Linear(style, 2 * inward)
        self.mix = nn.Conv2d(inward, outward, 3, padding=1)
        self.skip = nn.Conv2d(inward, outward, 1)

    def forward(self, x: Tensor, told: Tensor, palettes: Tensor) -> Tensor:
        gain, shift = (self.told(told) + self.style(palettes)[:, :, None, None]).chunk(2, 1)
        return self.skip(x) + self.mix(torch.relu(self.norm(x) * (1 + gain) + shift))


def palettes_of(image: Tensor, maps: Tensor) -> Tensor:
    """Mean and deviation of red, green and blue of each class (b, 6 c); 0 where a class is absent."""
    size = maps.sum((2, 3)).clamp_min(1.0)
    mean = torch.einsum("bchw,bkhw->bkc", image, maps) / size[..., None]
    square = torch.einsum("bchw,bkhw->bkc", image.square(), maps) / size[..., None]
    return torch.cat([mean, (square - mean.square()).clamp_min(0.0).sqrt()], 2).flatten(1)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Label maps (b, h, w) as planes (b, classes, h, w)."""
    return nn.functional.one_hot(labels.clamp_max(classes - 1), classes).movedim(3, 1).float()


def repainted(painter: Painter, image: Tensor, labels: Tensor, count: int, drawn: torch.Generator) -> Tensor:
    """The first `count` frames (count, 3, h, w) anew: their maps in the palettes of their neighbours."""
    maps = one_hot(labels, painter.classes)
    own = palettes_of(image, maps)
    other = own.roll(1, 0)
    # A class that the neighbour lacks keeps its own colours.
    palettes = torch.where(other == 0, own, other)[:count]
    noise = torch.randn(count, _NOISE, *maps.shape[2:], generator=drawn)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        painted: Tensor = painter(maps[:count], palettes, noise).float()
    return painted


def train_painter(
    source: Source, settings: PainterSettings, shape: tuple[int, int]
) -> Iterator[tuple[Painter, dict[str, float]]]:
    """Train; gives the painter and its figures after each epoch."""
    torch.manual_seed(settings.seed)
    painter, judge = Painter(settings.classes), Discriminator(settings.classes)
    ours = torch.optim.Adam(painter.parameters(), settings.rate, betas=(0.5, 0.99))
    theirs = torch.optim.Adam(judge.parameters(), settings.rate / 2, betas=(0.5, 0.99))
    for epoch in range(settings.epochs):
        random = np.random.default_rng([settings.seed, epoch])
        sums: dict[str, float] = {}
        count = 0
        for block in source.epoch(epoch, settings.frames, shape):
            for start in range(0, len(block) - settings.batch_size + 1, settings.batch_size):
                part = slice(start, start + settings.batch_size)
                batch = augmented(Frames(block.images[part], block.labels[part], block.bells[part]), random)
                count += 1
                for name, value in _step(painter, judge, ours, theirs, batch, settings).items():
                    sums[name] = sums.get(name, 0.0) + value
        yield painter, {name: value / max(count, 1) for name, value in sums.items()}


def _step(
    painter: Painter,
    judge: Discriminator,
    ours: torch.optim.Optimizer,
    theirs: torch.optim.Optimizer,
    batch: Frames,
    settings: PainterSettings,
) -> dict[str, float]:
    image = torch.from_numpy(batch.images).permute(0, 3, 1, 2).float() / 255.0
    maps = one_hot(torch.from_numpy(batch.labels).long(), settings.classes)
    noise = torch.randn(len(image), _NOISE, *image.shape[2:])
    with torch.autocast("cpu", torch.bfloat16):
        painted = painter(maps, palettes_of(image, maps), noise).float()
        small = nn.functional.avg_pool2d(maps, 2)
        real, made = nn.functional.avg_pool2d(image, 2), nn.functional.avg_pool2d(painted, 2)
        loss = judge_loss(judge(real, small), judge(made.detach(), small), None, 0.0)
        theirs.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        theirs.step()
        judge.requires_grad_(False)
        seen = judge(made, small)
        with torch.no_grad():
            truth = judge(real, small)
        terms = {
            "l1": (painted - image).abs().mean(),
            "adversarial": settings.adversarial * generator_loss(seen).float(),
            "matching": settings.matching * matching_loss(truth, seen).float(),
        }
    total = torch.stack(list(terms.values())).sum()
    ours.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call, unused-ignore]
    ours.step()
    judge.requires_grad_(True)
    return {"judge": float(loss.detach()), **{name: float(term.detach()) for name, term in terms.items()}}


def save_painter(path: Path, painter: Painter, facts: Mapping[str, Any]) -> None:
    """Write a painter as one safetensors file."""
    checkpoint.write_checkpoint(
        path, painter.state_dict(), {"painter": {"classes": painter.classes}, **facts}, schema=SCHEMA
    )


def load_painter(path: Path, classes: int) -> Painter:
    """Read what `save_painter` wrote.

    Raises
    ------
    InvalidInput
        No painter, or of another model's classes.
    """
    tensors, facts = checkpoint.read_checkpoint(path, schema=SCHEMA)
    found = facts.get("painter", {}).get("classes")
    if found != classes:
        raise InvalidInput(f"{path.name}: expected a painter of {classes} classes, got {found}")
    painter = Painter(classes)
    checkpoint.load_weights(painter, tensors, path.name)
    painter.eval()
    return painter


def _smaller(planes: Tensor, factor: int) -> Tensor:
    return nn.functional.avg_pool2d(planes, factor) if factor > 1 else planes
