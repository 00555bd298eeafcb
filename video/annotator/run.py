"""One training run: its network and what is recorded of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from trocar.training.run import Figures, Watcher, minutes, run_epochs
from trocar.video.annotator.train import Trainer


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
    output, start, log_folder : see `trocar.training.run.run_epochs`.

    Returns
    -------
    The network's metadata.
    """
    settings = trainer.settings
    history = run_epochs(
        trainer, settings.epochs, output=output, watcher=watcher, start=start, log_folder=log_folder
    )
    metadata = {
        "network": asdict(settings.network),
        "training": {
            **trainer.source.facts(),
            "arm": settings.arm,
            "seed": settings.seed,
            "epochs": settings.epochs,
            "frames_an_epoch": settings.frames,
            "each_seen": settings.repeats,
            "batch_size": settings.batch_size,
            "steps": trainer.steps,
            "loss_weights": asdict(settings.weights),
            **({"started_from": start.name} if start is not None else {}),
            "minutes": minutes(history),
        },
        "metrics": _metrics(history[-1], classes),
    }
    trainer.write_network(output, metadata)
    return metadata


def _metrics(figures: Figures, classes: tuple[str, ...]) -> dict[str, float]:
    named = {f"dice_{name}": figures[f"validation/dice_{number}"] for number, name in enumerate(classes)}
    return {"dice": figures["validation/dice"], **named}
