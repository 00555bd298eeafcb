"""What the generator is told of its label maps: cross-entropy, Dice, and tips as small bells."""

from __future__ import annotations

import torch
from torch import Tensor

from trocar.video.annotator.labels import ANY_INSTRUMENT, IGNORE

# Keeps Dice defined where a class is absent; pixels of the batch.
_SMOOTH = 200.0


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean over the pixels that are labelled, by the weight of their class.

    Parameters
    ----------
    logits : (b, c, h, w).
    labels : (b, h, w) int64; `IGNORE` counts for nothing, and `ANY_INSTRUMENT` is right where the
        instrument's classes together are.
    weights : (c,).
    """
    if not bool((labels == ANY_INSTRUMENT).any()):
        return torch.nn.functional.cross_entropy(logits, labels, weights, ignore_index=IGNORE)
    known = labels < logits.shape[1]
    target = labels.where(known, torch.zeros_like(labels))
    total = torch.logsumexp(logits, 1)
    nll = total - logits.gather(1, target[:, None])[:, 0]
    weight = weights[target] * known
    merged = labels == ANY_INSTRUMENT
    nll = torch.where(merged, total - torch.logsumexp(logits[:, 2:], 1), nll)
    weight = torch.where(merged, weights[2:].mean(), weight)
    return (nll * weight).sum() / weight.sum().clamp_min(1.0)


def soft_dice(probability: Tensor, labels: Tensor) -> Tensor:
    """One less the mean Dice of the classes over the batch, where every pixel's class is known.

    Parameters
    ----------
    probability : (b, c, h, w).
    labels : as in `cross_entropy`; a frame with merged labels is left out.
    """
    whole = ~((labels == ANY_INSTRUMENT).flatten(1).any(1))
    known = ((labels != IGNORE) & whole[:, None, None])[:, None]
    classes = probability.shape[1]
    target = torch.nn.functional.one_hot(labels.clamp_max(classes - 1), classes).movedim(3, 1)
    target = (target * known).to(probability.dtype)
    probability = probability * known
    overlap = (probability * target).sum((0, 2, 3))
    size = probability.sum((0, 2, 3)) + target.sum((0, 2, 3))
    return 1.0 - ((2.0 * overlap + _SMOOTH) / (size + _SMOOTH)).mean()


def tips_loss(logits: Tensor, bells: Tensor) -> Tensor:
    """Focal cross-entropy of the map of tips (Zhou et al., Objects as Points, equation 1).

    Parameters
    ----------
    logits, bells : (b, 1, h, w); a bell is 1 at its tip's cell. Below 0 nobody marked tips: no loss.
    """
    probability = torch.sigmoid(logits)
    hit = torch.nn.functional.logsigmoid(logits) * (1 - probability) ** 2
    miss = torch.nn.functional.logsigmoid(-logits) * probability**2 * (1 - bells) ** 4
    peak = bells >= 0.999
    marked = bells >= 0
    return -(torch.where(peak, hit, miss) * marked).sum() / peak.sum().clamp_min(1)
