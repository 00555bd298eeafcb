"""The conditional generator: a small 3D U-Net over the window of lattice sites."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trocar.planners.features import CHANNELS
from trocar.planners.tpgan.settings import NetworkSettings

CANDIDATE = CHANNELS.index("candidate")
_GROUPS = 8
# Before it has learned anything, the network says what share of candidates hold a seed.
_USUAL_SHARE = 0.13


class Generator(nn.Module):
    """Features and noise to a seed probability a site.

    The up-convolutions have a kernel for each place in a 2 x 2 x 2 block, so the network knows on which
    board a site lies beyond what the parity channels say.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        fine, middle, coarse = settings.widths
        self.enter = _double(settings.feature_channels + settings.noise_channels, fine)
        self.down_fine = nn.Conv3d(fine, middle, 2, stride=2)
        self.encode = _double(middle, middle)
        self.down_middle = nn.Conv3d(middle, coarse, 2, stride=2)
        self.bottom = _double(coarse, coarse)
        self.up_middle = nn.ConvTranspose3d(coarse, middle, 2, stride=2)
        self.decode = _double(2 * middle, middle)
        self.up_fine = nn.ConvTranspose3d(middle, fine, 2, stride=2)
        self.leave = _double(2 * fine, fine)
        self.head = nn.Conv3d(fine, 1, 1)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, float(torch.logit(torch.tensor(_USUAL_SHARE))))

    def logits(self, features: Tensor, noise: Tensor) -> Tensor:
        """Log-odds of a seed at every site, candidates or not, (b, 16, 16, 16)."""
        fine = self.enter(torch.cat([features, noise], dim=1))
        middle = self.encode(self.down_fine(fine))
        coarse = self.bottom(self.down_middle(middle))
        middle = self.decode(torch.cat([self.up_middle(coarse), middle], dim=1))
        fine = self.leave(torch.cat([self.up_fine(middle), fine], dim=1))
        sites: Tensor = self.head(fine)
        return sites[:, 0]

    def forward(self, features: Tensor, noise: Tensor) -> Tensor:
        """Probability of a seed at every site, 0 where none may stand; (b, 16, 16, 16)."""
        return torch.sigmoid(self.logits(features, noise)) * features[:, CANDIDATE]


def _double(inward: int, outward: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inward, outward, 3, padding=1, bias=False),
        nn.GroupNorm(_GROUPS, outward),
        nn.SiLU(),
        nn.Conv3d(outward, outward, 3, padding=1, bias=False),
        nn.GroupNorm(_GROUPS, outward),
        nn.SiLU(),
    )
