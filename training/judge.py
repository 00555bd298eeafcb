"""What a discriminator answers, and the hinge losses of the two sides."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Verdict:
    """Patch scores, high for real, and the activations of each layer."""

    score: Tensor
    layers: tuple[Tensor, ...]


def judge_loss(real: Verdict, generated: Verdict, mismatched: Verdict | None, share: float) -> Tensor:
    """The discriminator's hinge loss.

    Parameters
    ----------
    mismatched : real answers beside another question; they make up `share` of what it must refuse.
    """
    refuse = torch.relu(1.0 + generated.score).mean()
    if mismatched is not None:
        refuse = (1.0 - share) * refuse + share * torch.relu(1.0 + mismatched.score).mean()
    return torch.relu(1.0 - real.score).mean() + refuse


def generator_loss(generated: Verdict) -> Tensor:
    """What the generator gains by being taken for real."""
    return -generated.score.mean()
