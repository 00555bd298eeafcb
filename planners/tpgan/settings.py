"""What a network and its training are made of, as frozen dataclasses; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from trocar.planners.features import CHANNELS
from trocar.planners.types import require

SCHEMA = "trocar.tpgan/1"
NOISE_CHANNELS = 2


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """The generator's widths at 16, 8 and 4 sites a side."""

    widths: tuple[int, int, int] = (16, 32, 96)
    feature_channels: int = len(CHANNELS)
    noise_channels: int = NOISE_CHANNELS

    def __post_init__(self) -> None:
        """Refuse widths that group normalisation cannot split."""
        require(
            len(self.widths) == 3 and all(8 <= width <= 512 and width % 8 == 0 for width in self.widths),
            f"expected three widths, multiples of 8 from 8 to 512, got {list(self.widths)}",
        )


@dataclass(frozen=True, slots=True)
class LossWeights:
    """What each term counts for; 0 leaves it out.

    `positive` is what a missed seed counts for in the cross-entropy beside a false one. `mismatched` is
    the share of the discriminator's fakes that are real plans beside another case's features.
    """

    cross_entropy: float = 1.0
    positive: float = 2.0
    soft_l1: float = 1.0
    adjacency: float = 0.5
    dose: float = 1.0
    style: float = 0.2
    adversarial: float = 0.02
    feature_matching: float = 0.2
    mismatched: float = 0.5


ARMS: Mapping[str, LossWeights] = MappingProxyType(
    {
        "full": LossWeights(),
        "no-adversarial": replace(LossWeights(), adversarial=0.0, feature_matching=0.0),
        "no-dose": replace(LossWeights(), dose=0.0),
        "bce": LossWeights(
            soft_l1=0.0, adjacency=0.0, dose=0.0, style=0.0, adversarial=0.0, feature_matching=0.0
        ),
    }
)


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One training run. Rates fall to a twentieth along a cosine.

    `adversary_from` is the share of the run after which the adversarial terms join; `seed` decides
    first weights, order, augmentation and noise.
    """

    arm: str = "full"
    seed: int = 0
    epochs: int = 30
    batch_size: int = 16
    learning_rate: float = 2e-3
    discriminator_rate: float = 1e-3
    ema_decay: float = 0.99
    adversary_from: float = 0.3
    weights: LossWeights = field(default_factory=LossWeights)
    network: NetworkSettings = field(default_factory=NetworkSettings)

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        require(1 <= self.epochs <= 100_000, f"expected 1 to 100000 epochs, got {self.epochs}")
        require(1 <= self.batch_size <= 4096, f"expected a batch of 1 to 4096 cases, got {self.batch_size}")
        require(0.0 <= self.adversary_from <= 1.0, f"expected a share of the run, got {self.adversary_from}")


def arm_settings(arm: str) -> LossWeights:
    """Weights of an arm by name."""
    require(arm in ARMS, f"expected an arm of {', '.join(ARMS)}, got {arm!r}")
    return ARMS[arm]
