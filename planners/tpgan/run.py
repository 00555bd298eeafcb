"""One training run on disk: resume, log, and leave a network that can be exported."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from trocar.planners.files import write_file
from trocar.planners.tpgan import checkpoint
from trocar.planners.tpgan.data import Dataset
from trocar.planners.tpgan.settings import TrainSettings
from trocar.planners.tpgan.train import Trainer

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
    data: Dataset,
    settings: TrainSettings,
    training: Mapping[str, Any],
    *,
    output: Path,
    watcher: Watcher,
    device: str = "cpu",
    mirror: bool = True,
    log_folder: Path | None = None,
    novelty: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train, or go on with a run that was killed, and write the network.

    Parameters
    ----------
    training : what the data are, for the record.
    output : the network, `.safetensors`; the run's state stands beside it.
    log_folder : for TensorBoard; nothing is logged where it is not installed.
    novelty : what the training cases look like, from `trocar.planners.novelty.fit`.

    Returns
    -------
    The network's metadata.
    """
    trainer = Trainer(data, settings, device=device, mirror=mirror)
    state, history = state_path(output), []
    if state.exists():
        history = trainer.load(state)["history"]
        watcher.resumed(trainer.epoch)
    log = _event_log(log_folder, trainer.epoch)
    try:
        while trainer.epoch < settings.epochs:
            figures = trainer.run_epoch(watcher.batch)
            history.append({name: round(value, 6) for name, value in figures.items()})
            trainer.save(state, {"history": history})
            write_file(state.with_suffix(".json"), _report(trainer.epoch, settings, history))
            log(trainer.epoch, figures)
            watcher.epoch(trainer.epoch, figures)
    finally:
        log(None, {})
    metadata = {
        "network": asdict(settings.network),
        "training": {
            **training,
            "training_cases": len(data.split()[0]),
            "held_back_cases": len(data.split()[1]),
            "arm": settings.arm,
            "seed": settings.seed,
            "epochs": settings.epochs,
            "batch_size": settings.batch_size,
            "mirrored": mirror,
            "loss_weights": asdict(settings.weights),
            "minutes": round(sum(figures["seconds"] for figures in history) / 60.0, 2),
        },
        "metrics": _metrics(history[-1]),
        "novelty": dict(novelty or {}),
    }
    checkpoint.write_checkpoint(output, trainer.averaged.state_dict(), metadata)
    return metadata


def _metrics(figures: Figures) -> dict[str, float]:
    start = "validation/"
    return {name.removeprefix(start): value for name, value in figures.items() if name.startswith(start)}


def _report(epoch: int, settings: TrainSettings, history: list[dict[str, float]]) -> bytes:
    document = {"epoch": epoch, "epochs": settings.epochs, "arm": settings.arm, "history": history}
    return (json.dumps(document, indent=1) + "\n").encode()


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
