"""One training run on disk: it resumes, logs, and saves after every epoch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from trocar.runtime.files import write_file
from trocar.training.trainer import AdversarialTrainer

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


def run_epochs(
    trainer: AdversarialTrainer[Any],
    epochs: int,
    *,
    output: Path,
    watcher: Watcher,
    start: Path | None = None,
    log_folder: Path | None = None,
) -> list[dict[str, float]]:
    """Train, or go on with a run that was killed.

    Parameters
    ----------
    output : the network that the run is for, `.safetensors`; the run's state stands beside it, and its
        history as JSON.
    start : a trained network whose weights to begin with.
    log_folder : for TensorBoard; nothing is logged where it is not installed.

    Returns
    -------
    Every epoch's figures.
    """
    state = state_path(output)
    history: list[dict[str, float]] = []
    if state.exists():
        history = trainer.load(state)["history"]
        watcher.resumed(trainer.epoch)
    elif start is not None:
        trainer.begin_from(start)
    log = _event_log(log_folder, trainer.epoch)
    try:
        while trainer.epoch < epochs:
            figures = trainer.run_epoch(watcher.batch)
            history.append({name: round(value, 6) for name, value in figures.items()})
            trainer.save(state, {"history": history})
            write_file(state.with_suffix(".json"), _report(trainer.epoch, epochs, history))
            log(trainer.epoch, figures)
            watcher.epoch(trainer.epoch, figures)
    finally:
        log(None, {})
    return history


def minutes(history: list[dict[str, float]]) -> float:
    """How long the epochs took."""
    return round(sum(figures["seconds"] for figures in history) / 60.0, 2)


def _report(epoch: int, epochs: int, history: list[dict[str, float]]) -> bytes:
    document: dict[str, Any] = {"epoch": epoch, "epochs": epochs, "history": history}
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
