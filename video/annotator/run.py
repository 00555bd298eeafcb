"""One training run on disk: resume, log, and leave a network that can be exported."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from trocar.video.annotator import checkpoint
from trocar.video.annotator.data import Source
from trocar.video.annotator.settings import TrainSettings
from trocar.video.annotator.train import Trainer

Figures = Mapping[str, float]


class Watcher(Protocol):
    """Who is told how the run goes."""

    def resumed(self, epoch: int) -> None:
        """The run goes on after this many epochs."""

    def batch(self, share: float) -> None:
        """Of the running epoch, this share is done."""

    def epoch(self, number: int, figures: Figures) -> None:
        """An epoch, counted from 1, is done and saved."""


def state_path(output: Path) -> Path:
    """Where the run that will write `output` keeps its state between epochs."""
    return output.with_name(f"{output.name.removesuffix('.safetensors')}.state.safetensors")


def train_network(
    trainer: Trainer,
    classes: tuple[str, ...],
    *,
    output: Path,
    watcher: Watcher,
    start: Path | None = None,
    log_folder: Path | None = None,
) -> dict[str, Any]:
    """Train, or go on with a run that was killed, and write the network.

    Parameters
    ----------
    classes : names of the network's classes.
    output : the network, `.safetensors`; the run's state stands beside it.
    start : a trained network whose weights to begin with.
    log_folder : for TensorBoard; nothing is logged where it is not installed.

    Returns
    -------
    The network's metadata.
    """
    settings, state, history = trainer.settings, state_path(output), []
    if state.exists():
        history = trainer.load(state)["history"]
        watcher.resumed(trainer.epoch)
    elif start is not None:
        trainer.begin_from(start)
    log = _event_log(log_folder, trainer.epoch)
    try:
        while trainer.epoch < settings.epochs:
            figures = trainer.run_epoch(watcher.batch)
            history.append({name: round(value, 6) for name, value in figures.items()})
            trainer.save(state, {"history": history})
            _write(state.with_suffix(".json"), {"epoch": trainer.epoch, "history": history})
            log(trainer.epoch, figures)
            watcher.epoch(trainer.epoch, figures)
    finally:
        log(None, {})
    metadata = _metadata(trainer, trainer.source, classes, history, start)
    checkpoint.write_checkpoint(output, trainer.averaged.state_dict(), metadata)
    return metadata


def _metadata(
    trainer: Trainer,
    source: Source,
    classes: tuple[str, ...],
    history: list[dict[str, float]],
    start: Path | None,
) -> dict[str, Any]:
    settings: TrainSettings = trainer.settings
    return {
        "network": asdict(settings.network),
        "training": {
            **source.facts(),
            "arm": settings.arm,
            "seed": settings.seed,
            "epochs": settings.epochs,
            "frames_an_epoch": settings.frames,
            "each_seen": settings.repeats,
            "batch_size": settings.batch_size,
            "steps": trainer.steps,
            "loss_weights": asdict(settings.weights),
            **({"started_from": start.name} if start is not None else {}),
            "minutes": round(sum(figures["seconds"] for figures in history) / 60.0, 1),
        },
        "metrics": _metrics(history[-1], classes),
    }


def _metrics(figures: Figures, classes: tuple[str, ...]) -> dict[str, float]:
    named = {f"dice_{name}": figures[f"validation/dice_{number}"] for number, name in enumerate(classes)}
    return {"dice": figures["validation/dice"], **named}


def _write(path: Path, document: Mapping[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)


def _event_log(folder: Path | None, epoch: int) -> Callable[[int | None, Figures], None]:
    """A function that logs an epoch's figures, or with None closes the log."""
    if folder is None or find_spec("tensorboard") is None:
        return lambda *_: None
    from torch.utils.tensorboard import SummaryWriter

    # Epochs that a killed run logged but did not save are hidden.
    writer = SummaryWriter(str(folder), purge_step=epoch + 1)  # type: ignore[no-untyped-call, unused-ignore]

    def log(number: int | None, figures: Figures) -> None:
        if number is None:
            writer.close()  # type: ignore[no-untyped-call, unused-ignore]
            return
        for name, value in figures.items():
            writer.add_scalar(name, value, number)  # type: ignore[no-untyped-call, unused-ignore]

    return log
