"""One training run: its network and what is recorded of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trocar.planners.tpgan.train import Trainer
from trocar.training.run import Figures, Watcher, minutes, run_epochs


def train_network(
    trainer: Trainer,
    training: Mapping[str, Any],
    *,
    output: Path,
    watcher: Watcher,
    novelty: Mapping[str, Any] | None = None,
    log_folder: Path | None = None,
) -> dict[str, Any]:
    """Train, or go on with a run that was killed, and write the network.

    Parameters
    ----------
    training : what the data are, for the record.
    novelty : statistics of the training cases, from `trocar.planners.novelty.fit`.
    output, log_folder : see `trocar.training.run.run_epochs`.

    Returns
    -------
    The network's metadata.
    """
    settings = trainer.settings
    history = run_epochs(trainer, settings.epochs, output=output, watcher=watcher, log_folder=log_folder)
    cases, held_back = trainer.data.split()
    metadata = {
        "network": asdict(settings.network),
        "training": {
            **training,
            "training_cases": len(cases),
            "held_back_cases": len(held_back),
            "arm": settings.arm,
            "seed": settings.seed,
            "epochs": settings.epochs,
            "batch_size": settings.batch_size,
            "mirrored": trainer.mirror,
            "loss_weights": asdict(settings.weights),
            "minutes": minutes(history),
        },
        "metrics": _metrics(history[-1]),
        "novelty": dict(novelty or {}),
    }
    trainer.write_network(output, metadata)
    return metadata


def _metrics(figures: Figures) -> dict[str, float]:
    start = "validation/"
    return {name.removeprefix(start): value for name, value in figures.items() if name.startswith(start)}
