"""The training loop: decided by its seed, resumable after any kill, its weights averaged."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trocar.runtime.errors import InvalidInput
from trocar.video.annotator import checkpoint, losses
from trocar.video.annotator.data import Frames, Source, augmented
from trocar.video.annotator.discriminator import (
    Discriminator,
    generator_loss,
    judge_loss,
    matching_loss,
    softened,
)
from trocar.video.annotator.generator import Generator
from trocar.video.annotator.painter import Painter, repainted
from trocar.video.annotator.settings import TrainSettings
from trocar.video.types import HEIGHT, WIDTH

# Called after each batch with the share of the epoch done.
OnBatch = Callable[[float], None]

COARSE_SHAPE = (160, 288)
HELD_FRAMES = 64
_LAST_RATE = 0.02
# Frames of this many blocks are mixed before they are cut into batches.
_MIXED = 4


class Trainer:
    """One run: networks, optimisers, averaged weights and the epoch they have reached.

    Parameters
    ----------
    shapes : of the frames in the coarse and in the fine epochs.
    painter : repaints `settings.painted` of each batch.
    """

    def __init__(
        self,
        source: Source,
        settings: TrainSettings,
        *,
        device: str = "cpu",
        shapes: tuple[tuple[int, int], tuple[int, int]] = (COARSE_SHAPE, (HEIGHT, WIDTH)),
        painter: Painter | None = None,
    ) -> None:
        self.source, self.settings, self.device, self.shapes = source, settings, torch.device(device), shapes
        self.epoch, self.steps, self._painter = 0, 0, painter
        torch.manual_seed(settings.seed)
        layout = torch.channels_last
        self.generator = Generator(settings.network).to(self.device, memory_format=layout)  # type: ignore[call-overload, unused-ignore]
        self.discriminator = Discriminator(settings.network.classes).to(self.device, memory_format=layout)  # type: ignore[call-overload, unused-ignore]
        self.averaged = copy.deepcopy(self.generator).requires_grad_(False).eval()
        self._optimiser = torch.optim.AdamW(
            self.generator.parameters(), settings.learning_rate, betas=(0.9, 0.99), weight_decay=1e-2
        )
        self._judge_optimiser = torch.optim.Adam(
            self.discriminator.parameters(), settings.discriminator_rate, betas=(0.5, 0.99)
        )
        self._class_weights = torch.tensor(settings.weights.classes, device=self.device)
        self._held: Frames | None = None

    def run_epoch(self, on_batch: OnBatch | None = None) -> dict[str, float]:
        """Train for one epoch and measure; what is drawn depends on the seed and its number alone."""
        settings = self.settings
        random = np.random.default_rng([settings.seed, self.epoch])
        shape = self.shapes[int(self.epoch >= settings.coarse * settings.epochs)]
        total = settings.frames * settings.repeats // settings.batch_size
        sums: dict[str, float] = {}
        began, done = time.perf_counter(), 0
        for batch in self._batches(random, shape):
            self._set_rates((self.epoch + done / max(total, 1)) / settings.epochs)
            done += 1
            for name, value in self._step(batch, random).items():
                sums[name] = sums.get(name, 0.0) + value
            if on_batch is not None:
                on_batch(min(1.0, done / max(total, 1)))
        self.epoch += 1
        means = {name: value / done for name, value in sums.items()}
        return {**means, **self.validate(), "seconds": time.perf_counter() - began}

    def _batches(self, random: np.random.Generator, shape: tuple[int, int]) -> Iterator[Frames]:
        """Mixed batches of whole size; frames of a few blocks at a time, each seen `repeats` times."""
        held: list[Frames] = []
        left = self.settings.frames
        for block in self.source.epoch(self.epoch, self.settings.frames, shape):
            held.append(block)
            left -= len(block)
            if len(held) < _MIXED and left > 0:
                continue
            pool = _joined(held)
            held = []
            for _ in range(self.settings.repeats):
                order = random.permutation(len(pool))
                size = self.settings.batch_size
                for start in range(0, len(order) - size + 1, size):
                    chosen = order[start : start + size]
                    yield augmented(_chosen(pool, chosen), random)

    def _step(self, batch: Frames, random: np.random.Generator) -> dict[str, float]:
        weights, classes = self.settings.weights, self.settings.network.classes
        image, labels, bells = self._tensors(batch)
        if self._painter is not None:
            image = self._repainted(self._painter, image, labels, random)
        with self._fast():
            logits, tips = self.generator.features(image)
        logits = logits.float()
        probability = torch.softmax(logits, 1)
        terms = {
            "cross_entropy": weights.cross_entropy
            * losses.cross_entropy(logits, labels, self._class_weights),
            # Every other pixel says as much, for a quarter of the work.
            "dice": weights.dice * losses.soft_dice(probability[..., ::2, ::2], labels[:, ::2, ::2]),
        }
        if tips is not None:
            terms["tips"] = weights.tips * losses.tips_loss(tips.float(), bells)
        figures: dict[str, float] = {}
        if self._adversary and int(labels.max()) < classes:
            small = torch.nn.functional.avg_pool2d(image, 2)
            uniform = torch.from_numpy(random.random((len(labels), 1, 1, 1), dtype=np.float32)).to(
                self.device
            )
            truth = softened(labels[:, ::2, ::2], classes, uniform)
            drawn = torch.nn.functional.avg_pool2d(probability, 2)
            with self._fast():
                figures = self._train_judge(small, truth, drawn.detach())
                terms |= self._adversarial(small, truth, drawn)
        loss = torch.stack(list(terms.values())).sum()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        torch.nn.utils.clip_grad_norm_(self.generator.parameters(), 1.0)
        self._optimiser.step()
        self.steps += 1
        self._average()
        named = {f"loss/{name}": float(term.detach()) for name, term in terms.items()}
        return {**named, **figures, "loss/total": float(loss.detach())}

    def _repainted(
        self, painter: Painter, image: Tensor, labels: Tensor, random: np.random.Generator
    ) -> Tensor:
        """The batch with its first frames painted anew from their label maps."""
        count = round(self.settings.painted * len(image))
        drawn = torch.Generator().manual_seed(int(random.integers(2**31 - 1)))
        painted = repainted(painter, image, labels, count, drawn)
        return torch.cat([painted, image[count:]]).contiguous(memory_format=torch.channels_last)

    @property
    def _adversary(self) -> bool:
        weights = self.settings.weights
        joined = self.epoch >= self.settings.adversary_from * self.settings.epochs
        return joined and (weights.adversarial > 0 or weights.feature_matching > 0)

    def _train_judge(self, image: Tensor, truth: Tensor, drawn: Tensor) -> dict[str, float]:
        """One step of the discriminator."""
        share = self.settings.weights.mismatched
        real, generated = self.discriminator(image, truth), self.discriminator(image, drawn)
        mismatched = self.discriminator(image, truth.roll(1, 0)) if share > 0 and len(truth) > 1 else None
        loss = judge_loss(real, generated, mismatched, share)
        self._judge_optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        self._judge_optimiser.step()
        return {
            "judge/loss": float(loss.detach()),
            "judge/real": float(real.score.detach().float().mean()),
            "judge/generated": float(generated.score.detach().float().mean()),
        }

    def _adversarial(self, image: Tensor, truth: Tensor, drawn: Tensor) -> dict[str, Tensor]:
        weights, terms = self.settings.weights, {}
        self.discriminator.requires_grad_(False)
        generated = self.discriminator(image, drawn)
        if weights.adversarial > 0:
            terms["adversarial"] = weights.adversarial * generator_loss(generated).float()
        if weights.feature_matching > 0:
            with torch.no_grad():
                real = self.discriminator(image, truth)
            terms["feature_matching"] = weights.feature_matching * matching_loss(real, generated).float()
        self.discriminator.requires_grad_(True)
        return terms

    def validate(self) -> dict[str, float]:
        """Figures of the averaged weights on the frames held back: Dice of each class, pooled."""
        if self._held is None:
            self._held = self.source.held(HELD_FRAMES, self.shapes[1])
        classes = self.settings.network.classes
        counts = np.zeros((3, classes))
        size = self.settings.batch_size
        with torch.no_grad():
            for start in range(0, len(self._held), size):
                image, labels, _ = self._tensors(
                    _chosen(self._held, np.arange(start, min(start + size, len(self._held))))
                )
                with self._fast():
                    logits, _ = self.averaged.features(image)
                found = logits.argmax(1)
                known = labels < classes
                for each in range(classes):
                    ours, theirs = (found == each) & known, labels == each
                    counts[:, each] += [int((ours & theirs).sum()), int(ours.sum()), int(theirs.sum())]
        dice = (2 * counts[0] + 1) / (counts[1] + counts[2] + 1)
        named = {f"validation/dice_{number}": float(value) for number, value in enumerate(dice)}
        return {**named, "validation/dice": float(dice.mean())}

    def _tensors(self, frames: Frames) -> tuple[Tensor, Tensor, Tensor]:
        pixels = torch.from_numpy(frames.images).to(self.device).permute(0, 3, 1, 2)
        image = pixels.float().div_(255.0).contiguous(memory_format=torch.channels_last)
        labels = torch.from_numpy(frames.labels).to(self.device).long()
        return image, labels, torch.from_numpy(frames.bells).to(self.device)[:, None]

    def _fast(self) -> torch.autocast:
        """Half-width arithmetic where the machine has it; the weights stay float32."""
        return torch.autocast(self.device.type, torch.bfloat16)

    def _set_rates(self, share: float) -> None:
        factor = _LAST_RATE + (1.0 - _LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))
        # The first steps are small: the normalisations have seen nothing yet.
        factor *= min(1.0, (self.steps + 1) / 100)
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
            for kept, held in zip(self.averaged.buffers(), self.generator.buffers(), strict=True):
                if kept.is_floating_point():
                    kept.lerp_(held, 1.0 - decay)
                else:
                    kept.copy_(held)

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
            Another run's checkpoint: other settings or other frames.
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

    def begin_from(self, path: Path) -> None:
        """Take the weights of a trained network."""
        tensors, _ = checkpoint.read_checkpoint(path)
        for module in (self.generator, self.averaged):
            checkpoint.load_weights(module, tensors, path.name)

    def _run_facts(self) -> dict[str, Any]:
        """What must not change between a checkpoint and the run that goes on from it."""
        import json

        settings: dict[str, Any] = json.loads(json.dumps(asdict(self.settings)))
        return {**settings, **self.source.facts(), "shapes": [list(shape) for shape in self.shapes]}


def _joined(blocks: list[Frames]) -> Frames:
    return Frames(
        np.concatenate([block.images for block in blocks]),
        np.concatenate([block.labels for block in blocks]),
        np.concatenate([block.bells for block in blocks]),
    )


def _chosen(frames: Frames, chosen: np.ndarray[Any, np.dtype[np.int64]]) -> Frames:
    return Frames(frames.images[chosen], frames.labels[chosen], frames.bells[chosen])
