"""The training loop: decided by its seed, resumable after any kill, its weights averaged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trocar.training.judge import generator_loss, judge_loss
from trocar.training.trainer import AdversarialTrainer, OnBatch
from trocar.video.annotator import losses
from trocar.video.annotator.data import Frames, Source, augmented
from trocar.video.annotator.discriminator import (
    Discriminator,
    matching_loss,
    softened,
)
from trocar.video.annotator.generator import Generator
from trocar.video.annotator.painter import Painter, repainted
from trocar.video.annotator.settings import SCHEMA, TrainSettings
from trocar.video.types import HEIGHT, WIDTH

COARSE_SHAPE = (160, 288)
HELD_FRAMES = 64
_LAST_RATE = 0.02
# Frames of this many blocks are mixed before they are cut into batches.
_MIXED = 4


class Trainer(AdversarialTrainer[Generator]):
    """One run: networks, optimisers, averaged weights and the epoch they have reached.

    Parameters
    ----------
    shapes : of the frames in the coarse and in the fine epochs.
    painter : repaints `settings.painted` of each batch.
    """

    schema = SCHEMA

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
        self._painter = painter
        torch.manual_seed(settings.seed)
        layout = torch.channels_last
        self.generator = Generator(settings.network).to(self.device, memory_format=layout)  # type: ignore[call-overload, unused-ignore]
        self.discriminator = Discriminator(settings.network.classes).to(self.device, memory_format=layout)  # type: ignore[call-overload, unused-ignore]
        super().__init__(settings, self.generator, self.discriminator, last_rate=_LAST_RATE)
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
            share = (self.epoch + done / max(total, 1)) / settings.epochs
            # The first steps are small: the normalisations have seen nothing yet.
            self.set_rates(share, warm_up_steps=100)
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
        if self.adversary_joined and int(labels.max()) < classes:
            small = torch.nn.functional.avg_pool2d(image, 2)
            uniform = torch.from_numpy(random.random((len(labels), 1, 1, 1), dtype=np.float32)).to(
                self.device
            )
            truth = softened(labels[:, ::2, ::2], classes, uniform)
            drawn = torch.nn.functional.avg_pool2d(probability, 2)
            with self._fast():
                figures = self._train_judge(small, truth, drawn.detach())
                terms |= self._adversarial(small, truth, drawn)
        return {**self.step_generator(terms), **figures}

    def _repainted(
        self, painter: Painter, image: Tensor, labels: Tensor, random: np.random.Generator
    ) -> Tensor:
        """The batch with its first frames painted anew from their label maps."""
        count = round(self.settings.painted * len(image))
        drawn = torch.Generator().manual_seed(int(random.integers(2**31 - 1)))
        painted = repainted(painter, image, labels, count, drawn)
        return torch.cat([painted, image[count:]]).contiguous(memory_format=torch.channels_last)

    def _train_judge(self, image: Tensor, truth: Tensor, drawn: Tensor) -> dict[str, float]:
        """One step of the discriminator."""
        share = self.settings.weights.mismatched
        real, generated = self.discriminator(image, truth), self.discriminator(image, drawn)
        mismatched = self.discriminator(image, truth.roll(1, 0)) if share > 0 and len(truth) > 1 else None
        loss = judge_loss(real, generated, mismatched, share)
        return self.step_judge(loss, {"real": real, "generated": generated})

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

    def run_facts(self) -> dict[str, Any]:
        """Settings, frames and their shapes."""
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
