"""The conditional patch discriminator: whether a label map is this frame's, patch by patch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from trocar.training.judge import Verdict

_WIDTHS = (24, 48, 96)
_SLOPE = 0.2


class Discriminator(nn.Module):
    """Spectrally normalised convolutions on half the resolution; no normalisation over the batch."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        entering = (3 + classes, *_WIDTHS[:-1])
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(inward, outward, 4, stride=2, padding=1))
            for inward, outward in zip(entering, _WIDTHS, strict=True)
        )
        self.head = spectral_norm(nn.Conv2d(_WIDTHS[-1], 1, 3, padding=1))

    def forward(self, image: Tensor, classes: Tensor) -> Verdict:
        """Judge class shares (b, c, h, w) beside their frames (b, 3, h, w)."""
        pixels = torch.cat([image, classes], dim=1)
        held = []
        for layer in self.layers:
            pixels = nn.functional.leaky_relu(layer(pixels), _SLOPE)
            held.append(pixels)
        return Verdict(self.head(pixels), tuple(held))


def softened(labels: Tensor, classes: int, uniform: Tensor) -> Tensor:
    """One-hot maps blunted by a random share a frame, so that sharpness alone gives nothing away.

    Parameters
    ----------
    labels : (b, h, w) int64.
    uniform : (b, 1, 1, 1) from 0 to 1.
    """
    hard = nn.functional.one_hot(labels.clamp_max(classes - 1), classes).movedim(3, 1).float()
    keep = 1.0 - 0.15 * uniform
    return hard * keep + (1.0 - keep) / classes


def matching_loss(real: Verdict, generated: Verdict) -> Tensor:
    """Mean absolute difference of each layer's activations, place by place."""
    terms = [(a.detach() - b).abs().mean() for a, b in zip(real.layers, generated.layers, strict=True)]
    return torch.stack(terms).mean()
