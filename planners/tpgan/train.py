"""The training loop: deterministic by seed, resumable after any kill, the best of its weights averaged."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trocar.planners.tpgan import losses
from trocar.planners.tpgan.augment import augmented
from trocar.planners.tpgan.data import Dataset
from trocar.planners.tpgan.discriminator import (
    Discriminator,
    matching_loss,
    straight_through,
)
from trocar.planners.tpgan.generator import CANDIDATE, Generator
from trocar.planners.tpgan.settings import NOISE_CHANNELS, SCHEMA, TrainSettings
from trocar.training.judge import generator_loss, judge_loss
from trocar.training.trainer import AdversarialTrainer, OnBatch

_LAST_RATE = 0.05
_VALIDATION_STREAM = 0x7661_6C69


class Trainer(AdversarialTrainer[Generator]):
    """One run: networks, optimisers, averaged weights and the epoch they have reached.

    Parameters
    ----------
    data : examples; `Dataset.split` says which are held back.
    mirror : whether left-right mirrors of the cases are cases too.
    """

    schema = SCHEMA

    def __init__(
        self, data: Dataset, settings: TrainSettings, *, device: str = "cpu", mirror: bool = True
    ) -> None:
        self.data, self.settings, self.device, self.mirror = data, settings, torch.device(device), mirror
        torch.manual_seed(settings.seed)
        self.generator = Generator(settings.network).to(self.device)
        self.discriminator = Discriminator().to(self.device)
        super().__init__(settings, self.generator, self.discriminator, last_rate=_LAST_RATE)
        self.dose = losses.SiteDose(torch.from_numpy(data.kernel_gy_u)).to(self.device)
        self._train, self._held = data.split()

    def run_epoch(self, on_batch: OnBatch | None = None) -> dict[str, float]:
        """Train for one epoch and measure; the epoch's draws depend on the seed and its number alone."""
        random = np.random.default_rng([self.settings.seed, self.epoch])
        order = random.permutation(self._train)
        batches = range(0, len(order), self.settings.batch_size)
        sums: dict[str, float] = {}
        began = time.perf_counter()
        for number, start in enumerate(batches):
            self.set_rates((self.epoch + number / len(batches)) / self.settings.epochs)
            cases = order[start : start + self.settings.batch_size]
            for name, value in self._step(cases, random).items():
                sums[name] = sums.get(name, 0.0) + value / len(batches)
            if on_batch is not None:
                on_batch((number + 1) / len(batches))
        self.epoch += 1
        return {**sums, **self.validate(), "seconds": time.perf_counter() - began}

    def _step(
        self, cases: np.ndarray[Any, np.dtype[np.int64]], random: np.random.Generator
    ) -> dict[str, float]:
        features, target, strength = self._batch(cases, random)
        noise = self._tensor(random.standard_normal((len(cases), NOISE_CHANNELS, *target.shape[1:])))
        logits = self.generator.logits(features, noise)
        probability = torch.sigmoid(logits) * features[:, CANDIDATE]
        dose = self.dose(probability, strength)
        terms = losses.supervised(logits, target, features, dose, self.settings.weights)
        figures: dict[str, float] = {}
        if self.adversary_joined:
            uniform = self._tensor(random.random(tuple(target.shape)))
            seeds = straight_through(probability, uniform)
            figures = self._train_judge(features, target, seeds.detach(), strength)
            terms |= self._adversarial(features, target, seeds, strength)
        return {**self.step_generator(terms), **figures}

    def _train_judge(
        self, features: Tensor, target: Tensor, seeds: Tensor, strength: Tensor
    ) -> dict[str, float]:
        """One step of the discriminator."""
        share = self.settings.weights.mismatched
        real = self.discriminator(features, target, self.dose(target, strength))
        generated = self.discriminator(features, seeds, self.dose(seeds, strength))
        mismatched = None
        if share > 0 and len(target) > 1:
            # A neighbour's plan, only where this case may hold seeds: the mask alone must not give it away.
            other = target.roll(1, 0) * features[:, CANDIDATE]
            mismatched = self.discriminator(features, other, self.dose(other, strength))
        loss = judge_loss(real, generated, mismatched, share)
        return self.step_judge(loss, {"real": real, "generated": generated, "mismatched": mismatched})

    def _adversarial(
        self, features: Tensor, target: Tensor, seeds: Tensor, strength: Tensor
    ) -> dict[str, Tensor]:
        weights, terms = self.settings.weights, {}
        self.discriminator.requires_grad_(False)
        generated = self.discriminator(features, seeds, self.dose(seeds, strength))
        if weights.adversarial > 0:
            terms["adversarial"] = weights.adversarial * generator_loss(generated)
        if weights.feature_matching > 0:
            with torch.no_grad():
                real = self.discriminator(features, target, self.dose(target, strength))
            terms["feature_matching"] = weights.feature_matching * matching_loss(real, generated)
        self.discriminator.requires_grad_(True)
        return terms

    def validate(self) -> dict[str, float]:
        """Figures of the averaged weights on the cases held back; the noise is the same every time."""
        random = np.random.default_rng([_VALIDATION_STREAM])
        sums: dict[str, float] = {}
        with torch.no_grad():
            for start in range(0, len(self._held), self.settings.batch_size):
                cases = self._held[start : start + self.settings.batch_size]
                share = len(cases) / len(self._held)
                for name, value in self._measure(cases, random).items():
                    sums[f"validation/{name}"] = sums.get(f"validation/{name}", 0.0) + share * value
        return sums

    def _measure(
        self, cases: np.ndarray[Any, np.dtype[np.int64]], random: np.random.Generator
    ) -> dict[str, float]:
        features, target, strength = self._batch(cases, None)
        drawn = random.standard_normal((2, len(cases), NOISE_CHANNELS, *target.shape[1:]))
        logits, others = (self.averaged.logits(features, self._tensor(noise)) for noise in drawn)
        candidate = features[:, CANDIDATE]
        probability, other = torch.sigmoid(logits) * candidate, torch.sigmoid(others) * candidate
        wanted = losses.most_wanted(probability, target)
        figures = {
            "dice": losses.dice(wanted, target).mean(),
            "dice_at_half": losses.dice((probability > 0.5).to(target.dtype), target).mean(),
            "bce": losses.cross_entropy(logits, target, features, 1.0),
            "dose": losses.dose_misfit(self.dose(probability, strength), features),
            "dose_of_seeds": losses.dose_misfit(self.dose(wanted, strength), features),
            "adjacency": losses.adjacency(probability),
            "style": losses.style_misfit(probability, target),
            "seeds_ratio": (probability.sum() / target.sum()),
            # How far two proposals for one case differ, as seeds over seeds: 0 says the noise is ignored.
            "variety": (probability - other).abs().sum() / probability.sum().clamp_min(1.0),
        }
        return {name: float(value) for name, value in figures.items()}

    def _batch(
        self, cases: np.ndarray[Any, np.dtype[np.int64]], random: np.random.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        features, seeds = self.data.features[cases], self.data.seeds[cases]
        if random is not None:
            pairs = [
                augmented(one, other, random, mirror=self.mirror)
                for one, other in zip(features, seeds, strict=True)
            ]
            features, seeds = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
        return self._tensor(features), self._tensor(seeds), self._tensor(self.data.strength[cases])

    def _tensor(self, array: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(np.asarray(array, dtype=np.float32)).to(self.device)

    def run_facts(self) -> dict[str, Any]:
        """Settings and cases."""
        import hashlib
        import json

        settings = json.loads(json.dumps(asdict(self.settings)))
        names = hashlib.sha256("\n".join(self.data.names).encode()).hexdigest()
        return {**settings, "cases": len(self.data.names), "names_sha256": names, "mirror": self.mirror}
