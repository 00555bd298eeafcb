"""A generator, its averaged weights and a discriminator: their optimisers, their state, their shared steps.

A trainer of this project is this class with its own batches and losses. Whatever is drawn in an epoch
depends on the seed and the epoch's number alone, so that a killed run ends as one that was not.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from trocar.runtime.errors import InvalidInput
from trocar.training import checkpoint
from trocar.training.judge import Verdict

# Called after each batch with the share of the epoch done.
OnBatch = Callable[[float], None]
Figures = dict[str, float]
G = TypeVar("G", bound=nn.Module)


class Weights(Protocol):
    """Of the loss terms, those that every trainer has; 0 leaves a term out."""

    @property
    def adversarial(self) -> float:
        """Of being taken for real."""

    @property
    def feature_matching(self) -> float:
        """Of the discriminator's activations."""


class Settings(Protocol):
    """What every training run is told."""

    @property
    def epochs(self) -> int:
        """How many there are."""

    @property
    def learning_rate(self) -> float:
        """The generator's, at its highest."""

    @property
    def discriminator_rate(self) -> float:
        """The discriminator's, at its highest."""

    @property
    def ema_decay(self) -> float:
        """Of the averaged weights, a step."""

    @property
    def adversary_from(self) -> float:
        """Share of the run after which the adversarial terms join."""

    @property
    def weights(self) -> Weights:
        """Of the loss terms."""


class AdversarialTrainer(ABC, Generic[G]):
    """One run: networks, optimisers, averaged weights and the epoch they have reached.

    Parameters
    ----------
    generator, discriminator : made from the run's seed, on their device.
    last_rate : what is left of the learning rates at the end of their cosine.
    """

    schema: ClassVar[str]

    def __init__(
        self, settings: Settings, generator: G, discriminator: nn.Module, *, last_rate: float
    ) -> None:
        self._run_settings, self._last_rate = settings, last_rate
        self.epoch = self.steps = 0
        self.averaged = copy.deepcopy(generator).requires_grad_(False).eval()
        self._networks = {
            "generator": generator,
            "averaged": self.averaged,
            "discriminator": discriminator,
        }
        self._optimisers: dict[str, torch.optim.Optimizer] = {
            "optimiser": torch.optim.AdamW(
                generator.parameters(), settings.learning_rate, betas=(0.9, 0.99), weight_decay=1e-2
            ),
            "judge_optimiser": torch.optim.Adam(
                discriminator.parameters(), settings.discriminator_rate, betas=(0.5, 0.99)
            ),
        }

    @abstractmethod
    def run_epoch(self, on_batch: OnBatch | None = None) -> Figures:
        """Train for one epoch and measure: `loss/*`, `validation/*`, `seconds`."""

    @abstractmethod
    def run_facts(self) -> dict[str, Any]:
        """JSON values that must not change between a checkpoint and the run that goes on from it."""

    @property
    def adversary_joined(self) -> bool:
        """Whether the running epoch has adversarial terms."""
        settings, weights = self._run_settings, self._run_settings.weights
        joined = self.epoch >= settings.adversary_from * settings.epochs
        return joined and (weights.adversarial > 0 or weights.feature_matching > 0)

    def set_rates(self, share: float, *, warm_up_steps: int = 0) -> None:
        """Learning rates after this share of the run: a cosine, behind a rise where one is asked for."""
        factor = self._last_rate + (1.0 - self._last_rate) * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))
        if warm_up_steps:
            factor *= min(1.0, (self.steps + 1) / warm_up_steps)
        rates = (self._run_settings.learning_rate, self._run_settings.discriminator_rate)
        for optimiser, rate in zip(self._optimisers.values(), rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = factor * rate

    def step_generator(self, terms: Mapping[str, Tensor]) -> Figures:
        """Descend the sum of the terms, average the weights; the terms as figures."""
        loss = torch.stack(list(terms.values())).sum()
        optimiser, generator = self._optimisers["optimiser"], self._networks["generator"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        torch.nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
        optimiser.step()
        self.steps += 1
        self._average()
        named = {f"loss/{name}": float(term.detach()) for name, term in terms.items()}
        return {**named, "loss/total": float(loss.detach())}

    def step_judge(self, loss: Tensor, verdicts: Mapping[str, Verdict | None]) -> Figures:
        """Descend the discriminator's loss; it and the mean score of each verdict as figures."""
        optimiser = self._optimisers["judge_optimiser"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        optimiser.step()
        scores = {
            f"judge/{name}": float(verdict.score.detach().float().mean())
            for name, verdict in verdicts.items()
            if verdict is not None
        }
        return {"judge/loss": float(loss.detach()), **scores}

    def _average(self) -> None:
        """Exponential moving average of the weights, short at first so that the start is forgotten."""
        decay = min(self._run_settings.ema_decay, (1.0 + self.steps) / (10.0 + self.steps))
        averaged, generator = self.averaged, self._networks["generator"]
        with torch.no_grad():
            for mean, now in zip(averaged.parameters(), generator.parameters(), strict=True):
                mean.lerp_(now, 1.0 - decay)
            for kept, held in zip(averaged.buffers(), generator.buffers(), strict=True):
                if kept.is_floating_point():
                    kept.lerp_(held, 1.0 - decay)
                else:
                    kept.copy_(held)

    def save(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Write everything a later process needs to go on exactly here."""
        tensors: dict[str, Tensor] = {}
        for name, network in self._networks.items():
            tensors |= checkpoint.prefixed(name, network.state_dict())
        for name, optimiser in self._optimisers.items():
            tensors |= checkpoint.prefixed(name, checkpoint.optimiser_tensors(optimiser))
        state = {"epoch": self.epoch, "steps": self.steps, "run": self.run_facts(), **facts}
        checkpoint.write_checkpoint(path, tensors, state, schema=self.schema)

    def load(self, path: Path) -> dict[str, Any]:
        """Go on where `save` was called; returns the facts given there.

        Raises
        ------
        InvalidInput
            Another run's checkpoint: other settings or other examples.
        """
        tensors, facts = checkpoint.read_checkpoint(path, schema=self.schema)
        theirs, ours = facts.get("run", {}), self.run_facts()
        changed = sorted(name for name in ours if theirs.get(name) != ours[name])
        if changed:
            name = changed[0]
            raise InvalidInput(
                f"checkpoint {path.name} is of another run: {name}: expected {ours[name]}, got "
                f"{theirs.get(name)}; remove it to start anew"
            )
        for name, network in self._networks.items():
            checkpoint.load_weights(network, checkpoint.under(name, tensors), path.name)
        for name, optimiser in self._optimisers.items():
            checkpoint.restore_optimiser(optimiser, checkpoint.under(name, tensors))
        self.epoch, self.steps = int(facts["epoch"]), int(facts["steps"])
        return facts

    def begin_from(self, path: Path) -> None:
        """Take the weights of a trained network."""
        tensors, _ = checkpoint.read_checkpoint(path, schema=self.schema)
        for name in ("generator", "averaged"):
            checkpoint.load_weights(self._networks[name], tensors, path.name)

    def write_network(self, path: Path, metadata: Mapping[str, Any]) -> None:
        """Write the averaged generator, which is what an export takes."""
        checkpoint.write_checkpoint(path, self.averaged.state_dict(), metadata, schema=self.schema)
