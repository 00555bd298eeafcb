"""What a network and its training are made of, as frozen dataclasses; no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from trocar.runtime.errors import InvalidInput
from trocar.video.types import CLASSES, POLYP_CLASSES

SCHEMA = "trocar.annotator/1"


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """The generator's widths at a half, a quarter, .. a 32nd of the picture's size.

    `lean`: what comes from below is added to what was seen on the way down, and the first class has no
    channels of its own. Otherwise both lie beside each other, which costs a third more time.
    """

    classes: int = len(CLASSES)
    widths: tuple[int, int, int, int, int] = (16, 32, 64, 128, 192)
    depths: tuple[int, int, int, int] = (2, 3, 4, 3)
    tips: bool = True
    lean: bool = True

    def __post_init__(self) -> None:
        """Refuse what is no network."""
        if not (2 <= self.classes <= 256 and len(self.widths) == 5 and len(self.depths) == 4):
            raise InvalidInput(f"expected 2 to 256 classes, five widths and four depths, got {self}")
        if not all(8 <= width <= 512 and width % 8 == 0 for width in self.widths):
            raise InvalidInput(f"expected widths that are multiples of 8 from 8 to 512, got {self.widths}")


@dataclass(frozen=True, slots=True)
class LossWeights:
    """What each term counts for; 0 leaves it out.

    `classes` weighs the cross-entropy: thin parts are few pixels. `mismatched` is the share of the
    discriminator's fakes that are true label maps beside another frame.
    """

    cross_entropy: float = 1.0
    classes: tuple[float, ...] = (0.7, 1.0, 1.5, 3.0, 3.0)
    dice: float = 1.0
    tips: float = 1.0
    adversarial: float = 0.02
    feature_matching: float = 0.2
    mismatched: float = 0.3


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One training run. Rates fall to a fiftieth along a cosine.

    The first `coarse` of the epochs see frames at five eighths of the size, which is two and a half
    times cheaper. Each rendered frame is seen `repeats` times, mirrored and recoloured. `adversary_from`
    is the share of the run after which the adversarial terms join. `painted` is the share of each batch
    that a painter repaints, where there is one.
    """

    arm: str = "full"
    seed: int = 0
    epochs: int = 14
    frames: int = 768
    repeats: int = 3
    batch_size: int = 8
    coarse: float = 0.5
    learning_rate: float = 2e-3
    discriminator_rate: float = 5e-4
    ema_decay: float = 0.998
    adversary_from: float = 0.57
    painted: float = 0.0
    weights: LossWeights = field(default_factory=LossWeights)
    network: NetworkSettings = field(default_factory=NetworkSettings)


def train_settings(network: str, arm: str, seed: int, **changes: float) -> TrainSettings:
    """Settings of a network's arm by name.

    Parameters
    ----------
    network : `annotator` or `polyp`.
    arm : `full`, or `no-adversarial`: the same generator and budget without a discriminator.
    changes : other fields of `TrainSettings`.
    """
    weights = LossWeights()
    made = TrainSettings(arm=arm, seed=seed)
    if network == "polyp":
        weights = replace(weights, classes=(1.0, 2.0))
        smaller = NetworkSettings(len(POLYP_CLASSES), (16, 32, 80, 128, 192), tips=False, lean=False)
        # What a polyp is shows in the large: most epochs may be coarse. A short run, and a short average.
        made = replace(made, network=smaller, epochs=8, coarse=0.8, frames=512, ema_decay=0.99)
    if arm == "no-adversarial":
        weights = replace(weights, adversarial=0.0, feature_matching=0.0)
    return replace(made, weights=weights, **changes)  # type: ignore[arg-type]
