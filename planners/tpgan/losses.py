"""What the generator is asked for, besides fooling the discriminator.

All terms take probabilities (b, 16, 16, 16) that are 0 where no seed may stand, and give one value,
the mean over the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from trocar.planners.features import CHANNELS, SIDE
from trocar.planners.tpgan.settings import LossWeights

CTV, PTV, URETHRA, RECTUM, CANDIDATE = (
    CHANNELS.index(name)
    for name in ("ctv_distance", "ptv_distance", "urethra_distance", "rectum_distance", "candidate")
)
# Site pairs that a hard rule forbids: neighbouring planes of one hole, neighbouring holes in one plane.
FORBIDDEN = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
# Site pairs whose frequency makes a style: next but one along a needle and across, diagonals, staggers.
STYLE_PAIRS = (
    (2, 0, 0),
    (0, 2, 0),
    (0, 0, 2),
    (0, 1, 1),
    (0, 1, -1),
    (1, 1, 1),
    (1, 1, -1),
    (1, 0, 1),
    (1, 1, 0),
)
_FFT = 2 * SIDE  # 31 offsets fit in a circle of 32
# A lattice site this close to the urethra's wall or nearer stands for it: it is thinner than the pitch.
_URETHRA_REACH = 0.1
_SPACE = (1, 2, 3)


class SiteDose(nn.Module):
    """Dose at the window's sites from seeds at its sites: TG-43 superposition, differentiable.

    Parameters
    ----------
    kernel_gy_u : (31, 31, 31), dose in Gy per U of a seed at site offsets -15..15.
    """

    spectrum: Tensor

    def __init__(self, kernel_gy_u: Tensor) -> None:
        super().__init__()
        offsets = nn.functional.pad(kernel_gy_u.double(), (0, 1) * 3)
        circular = torch.roll(offsets, (1 - SIDE,) * 3, (0, 1, 2))
        spectrum = torch.fft.rfftn(circular).to(torch.complex64)
        self.register_buffer("spectrum", spectrum, persistent=False)

    def forward(self, seeds: Tensor, strength: Tensor) -> Tensor:
        """Dose in prescriptions, (b, 16, 16, 16); `strength` (b,) in U over the prescription in Gy."""
        sent = torch.fft.rfftn(seeds, s=(_FFT,) * 3, dim=_SPACE)
        dose: Tensor = torch.fft.irfftn(sent * self.spectrum, s=(_FFT,) * 3, dim=_SPACE)
        dose = dose[:, :SIDE, :SIDE, :SIDE].clamp_min(0.0)
        return dose * strength[:, None, None, None]


def cross_entropy(logits: Tensor, target: Tensor, features: Tensor, positive: float) -> Tensor:
    """Binary cross-entropy over the candidates, with a seed missed worth `positive` seeds too many."""
    weight = torch.full((), positive, device=logits.device)
    each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=weight)
    return _mean_over(each, features[:, CANDIDATE])


def soft_l1(probability: Tensor, target: Tensor, features: Tensor) -> Tensor:
    """Smooth L1 over the candidates, quadratic below 0.2."""
    each = functional.smooth_l1_loss(probability, target, beta=0.2, reduction="none")
    return _mean_over(each, features[:, CANDIDATE])


def adjacency(probability: Tensor) -> Tensor:
    """Pairs of seeds that the rules forbid, expected number a seed; 0 for a legal plan."""
    pairs = torch.stack([_pair_sum(probability, step) for step in FORBIDDEN]).sum(dim=0)
    return (pairs / (probability.sum(dim=_SPACE) + 1.0)).mean()


def dose_misfit(dose: Tensor, features: Tensor) -> Tensor:
    """How far the dose at the sites is from what the protocol wants, in prescriptions.

    Below 1 in the CTV and (half as much) the PTV; above 1.5 and (a quarter) above 1.25 in the urethra;
    above 1 in the rectum. An expert's plan has about 0.01.
    """
    cold = torch.relu(1.0 - dose)
    over = torch.relu(dose - 1.5) + 0.25 * torch.relu(dose - 1.25)
    return (
        _mean_over(cold, (features[:, CTV] < 0).to(dose.dtype))
        + 0.5 * _mean_over(cold, (features[:, PTV] < 0).to(dose.dtype))
        + _mean_over(over, (features[:, URETHRA] < _URETHRA_REACH).to(dose.dtype))
        + _mean_over(torch.relu(dose - 1.0), (features[:, RECTUM] < 0).to(dose.dtype))
    )


def style_misfit(probability: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the two plans' `style`, each statistic relative to the target's seeds."""
    return (style(probability, target) - style(target, target)).abs().mean()


def style(seeds: Tensor, reference: Tensor) -> Tensor:
    """Statistics of a plan, (b, 2 + pairs): seeds, needles, and seed pairs at `STYLE_PAIRS`.

    All are relative to the number of seeds of `reference`. A needle is counted by the probability that
    its hole holds a seed.
    """
    whole = reference.sum(dim=_SPACE) + 1.0
    needles = (1.0 - torch.prod(1.0 - seeds, dim=1)).sum(dim=(1, 2))
    pairs = [_pair_sum(seeds, step) for step in STYLE_PAIRS]
    return torch.stack([seeds.sum(dim=_SPACE), needles, *pairs], dim=1) / whole[:, None]


def supervised(
    logits: Tensor, target: Tensor, features: Tensor, dose: Tensor, weights: LossWeights
) -> dict[str, Tensor]:
    """Every weighted term that needs no discriminator, by name; terms of weight 0 are left out.

    Parameters
    ----------
    dose : of the probabilities, in prescriptions.
    """
    probability = torch.sigmoid(logits) * features[:, CANDIDATE]
    terms: dict[str, Callable[[], Tensor]] = {
        "cross_entropy": lambda: cross_entropy(logits, target, features, weights.positive),
        "soft_l1": lambda: soft_l1(probability, target, features),
        "adjacency": lambda: adjacency(probability),
        "dose": lambda: dose_misfit(dose, features),
        "style": lambda: style_misfit(probability, target),
    }
    return {
        name: getattr(weights, name) * term() for name, term in terms.items() if getattr(weights, name) > 0
    }


def dice(seeds: Tensor, target: Tensor) -> Tensor:
    """Dice overlap of each case, (b,)."""
    both = (seeds * target).sum(dim=_SPACE)
    return 2.0 * both / (seeds.sum(dim=_SPACE) + target.sum(dim=_SPACE)).clamp_min(1.0)


def most_wanted(probability: Tensor, target: Tensor) -> Tensor:
    """As many seeds as the target has, at the sites of highest probability, (b, 16, 16, 16) of 0 and 1."""
    flat = probability.flatten(1)
    rank = flat.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    wanted = target.flatten(1).sum(dim=1, keepdim=True)
    return (rank < wanted).to(probability.dtype).reshape(probability.shape)


def _mean_over(values: Tensor, sites: Tensor) -> Tensor:
    """Mean over the sites of each case, then over the batch; a case without such sites counts 0."""
    return ((values * sites).sum(dim=_SPACE) / sites.sum(dim=_SPACE).clamp_min(1.0)).mean()


def _pair_sum(seeds: Tensor, step: tuple[int, int, int]) -> Tensor:
    """Sum over site pairs `step` (plane, row, column) apart of the product of their seeds, (b,)."""
    first, second = seeds, seeds
    for axis, distance in enumerate(step, start=1):
        kept = SIDE - abs(distance)
        low, high = (0, distance) if distance >= 0 else (-distance, 0)
        first, second = first.narrow(axis, low, kept), second.narrow(axis, high, kept)
    return (first * second).sum(dim=_SPACE)
