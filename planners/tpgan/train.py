"""The training loop: deterministic by seed, resumable after any kill, the best of its weights averaged."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trocar.planners.tpgan import checkpoint, losses
from trocar.planners.tpgan.augment import augmented
from trocar.planners.tpgan.data import Dataset
from trocar.planners.tpgan.discriminator import (
    Discriminator,
    generator_loss,
    matching_loss,
    real_loss,
    straight_through,
)
from trocar.planners.tpgan.generator import CANDIDATE, Generator
from trocar.planners.tpgan.settings import NOISE_CHANNELS, TrainSettings
from trocar.runtime.errors import InvalidInput

# Called after each epoch with its number from 1 and its figures.
OnEpoch = Callable[[int, Mapping[str, float]], None]
# Called after each batch with the share of the epoch done.
OnBatch = Callable[[float], None]

_LAST_RATE = 0.05
_VALIDATION_STREAM = 0x7661_6C69


class Trainer:
    """One run: networks, optimisers, averaged weights and the epoch they have reached.

    Parameters
    ----------
    data : examples; `Dataset.split` says which are held back.
    mirror : whether left-right mirrors of the cases are cases too.
    """

    def __init__(
        self, data: Dataset, settings: TrainSettings, *, device: str = "cpu", mirror: bool = True
    ) -> None:
        self.data, self.settings, self.device, self.mirror = data, settings, torch.device(device), mirror
        self.epoch = 0
        torch.manual_seed(settings.seed)
        self.generator = Generator(settings.network).to(self.device)
        self.discriminator = Discriminator().to(self.device)
        self.averaged = copy.deepcopy(self.generator).requires_grad_(False)
        self.dose = losses.SiteDose(torch.from_numpy(data.kernel_gy_u)).to(self.device)
        self.steps = 0
        self._optimiser = torch.optim.AdamW(
            self.generator.parameters(), settings.learning_rate, betas=(0.9, 0.99), weight_decay=1e-2
        )
        self._judge_optimiser = torch.optim.Adam(
            self.discriminator.parameters(), settings.discriminator_rate, betas=(0.5, 0.99)
        )
        self._train, self._held = data.split()

    def run_epoch(self, on_batch: OnBatch | None = None) -> dict[str, float]:
        """Train for one epoch and measure; the epoch's draws depend on the seed and its number alone."""
        random = np.random.default_rng([self.settings.seed, self.epoch])
        order = random.permutation(self._train)
        batches = range(0, len(order), self.settings.batch_size)
        sums: dict[str, float] = {}
        began = time.perf_counter()
        for number, start in enumerate(batches):
            self._set_rates((self.epoch + number / len(batches)) / self.settings.epochs)
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
        if self._adversary:
            uniform = self._tensor(random.random(tuple(target.shape)))
            seeds = straight_through(probability, uniform)
            figures = self._train_judge(features, target, seeds.detach(), strength)
            terms |= self._adversarial(features, target, seeds, strength)
        total = torch.stack(list(terms.values())).sum()
        self._optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call, unused-ignore]
        torch.nn.utils.clip_grad_norm_(self.generator.parameters(), 1.0)
        self._optimiser.step()
        self.steps += 1
        self._average()
        named = {f"loss/{name}": float(term.detach()) for name, term in terms.items()}
        return {**named, **figures, "loss/total": float(total.detach())}

    @property
    def _adversary(self) -> bool:
        weights = self.settings.weights
        joined = self.epoch >= self.settings.adversary_from * self.settings.epochs
        return joined and (weights.adversarial > 0 or weights.feature_matching > 0)

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
        loss = real_loss(real, generated, mismatched, share)
        self._judge_optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        self._judge_optimiser.step()
        figures = {
            "judge/loss": float(loss.detach()),
            "judge/real": float(real.score.detach().mean()),
            "judge/generated": float(generated.score.detach().mean()),
        }
        if mismatched is not None:
            figures["judge/mismatched"] = float(mismatched.score.detach().mean())
        return figures

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

    def _set_rates(self, share: float) -> None:
        factor = _LAST_RATE + (1.0 - _LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * share))
        rates = (self.settings.learning_rate, self.settings.discriminator_rate)
        for optimiser, rate in zip((self._optimiser, self._judge_optimiser), rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = factor * rate

    def _average(self) -> None:
        """Exponential moving average of the weights, short at first so that the start is forgotten."""
        decay = min(self.settings.ema_decay, (1.0 + self.steps) / (10.0 + self.steps))
        with torch.no_grad():
            for mean, now in zip(self.averaged.parameters(), self.generator.parameters(), strict=True):
                mean.lerp_(now, 1.0 - decay)

    def save(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Write everything a later process needs to go on exactly here."""
        tensors = {
            **checkpoint.prefixed("generator", self.generator.state_dict()),
            **checkpoint.prefixed("averaged", self.averaged.state_dict()),
            **checkpoint.prefixed("discriminator", self.discriminator.state_dict()),
            **checkpoint.prefixed("optimiser", checkpoint.optimiser_tensors(self._optimiser)),
            **checkpoint.prefixed("judge_optimiser", checkpoint.optimiser_tensors(self._judge_optimiser)),
        }
        state = {"epoch": self.epoch, "steps": self.steps, "run": self._run_facts(), **facts}
        checkpoint.write_checkpoint(path, tensors, state)

    def load(self, path: Path) -> dict[str, Any]:
        """Go on where `save` was called; returns the facts given there.

        Raises
        ------
        InvalidInput
            Another run's checkpoint: other settings or other cases.
        """
        tensors, facts = checkpoint.read_checkpoint(path)
        theirs, ours = facts.get("run", {}), self._run_facts()
        changed = sorted(name for name in ours if theirs.get(name) != ours[name])
        if changed:
            name = changed[0]
            raise InvalidInput(
                f"checkpoint {path.name} is of another run: {name}: expected {ours[name]}, got "
                f"{theirs.get(name)}; remove it to start anew"
            )
        for part, module in (
            ("generator", self.generator),
            ("averaged", self.averaged),
            ("discriminator", self.discriminator),
        ):
            checkpoint.load_weights(module, checkpoint.under(part, tensors), path.name)
        checkpoint.restore_optimiser(self._optimiser, checkpoint.under("optimiser", tensors))
        checkpoint.restore_optimiser(self._judge_optimiser, checkpoint.under("judge_optimiser", tensors))
        self.epoch, self.steps = int(facts["epoch"]), int(facts["steps"])
        return facts

    def _run_facts(self) -> dict[str, Any]:
        """What must not change between a checkpoint and the run that goes on from it."""
        import hashlib
        import json

        settings = json.loads(json.dumps(asdict(self.settings)))
        names = hashlib.sha256("\n".join(self.data.names).encode()).hexdigest()
        return {**settings, "cases": len(self.data.names), "names_sha256": names, "mirror": self.mirror}
