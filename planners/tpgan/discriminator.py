"""The conditional patch discriminator: whether a plan looks like an expert's, for this anatomy.

It sees the features, the seeds and the dose they give, so that it can judge spacing, style and
coverage, and answers for 4 x 4 x 4 overlapping patches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from trocar.planners.features import CHANNELS
from trocar.training.judge import Verdict

_WIDTHS = (32, 64, 96)
_SLOPE = 0.2


class Discriminator(nn.Module):
    """Spectrally normalised convolutions; no normalisation over the batch, which would leak."""

    def __init__(self) -> None:
        super().__init__()
        entering = (len(CHANNELS) + 2, *_WIDTHS[:-1])
        strides = (2, 1, 2)
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv3d(inward, outward, 4 if stride == 2 else 3, stride=stride, padding=1))
            for inward, outward, stride in zip(entering, _WIDTHS, strides, strict=True)
        )
        self.head = spectral_norm(nn.Conv3d(_WIDTHS[-1], 1, 3, padding=1))

    def forward(self, features: Tensor, seeds: Tensor, dose: Tensor) -> Verdict:
        """Judge seeds (b, 16, 16, 16) and their dose in prescriptions, beside features (b, 8, 16, 16, 16)."""
        # Next to a seed the dose is many prescriptions; its logarithm keeps the rest in view.
        sites = torch.cat([features, seeds[:, None], torch.log1p(dose)[:, None]], dim=1)
        held = []
        for layer in self.layers:
            sites = nn.functional.leaky_relu(layer(sites), _SLOPE)
            held.append(sites)
        score: Tensor = self.head(sites)
        return Verdict(score[:, 0], tuple(held))


def straight_through(probability: Tensor, uniform: Tensor) -> Tensor:
    """Seeds drawn from the probabilities, 0 or 1, whose gradient is the probabilities'.

    Without the draw a discriminator needs only to look for values that are neither.

    Parameters
    ----------
    uniform : as the probabilities' shape, uniform in [0, 1).
    """
    drawn = (uniform < probability).to(probability.dtype)
    return drawn + (probability - probability.detach())


def matching_loss(real: Verdict, generated: Verdict) -> Tensor:
    """Mean absolute difference of each layer's activations, averaged over space: style, not place."""
    terms = [
        (a.detach().mean((2, 3, 4)) - b.mean((2, 3, 4))).abs().mean()
        for a, b in zip(real.layers, generated.layers, strict=True)
    ]
    return torch.stack(terms).mean()
