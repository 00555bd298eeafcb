"""How a training run shows on the terminal: a bar, and a line an epoch, on stderr."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import rich.console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def training_lines(epochs: int, classes: tuple[str, ...]) -> Iterator[TrainingLines]:
    """Show epochs and their figures; without a terminal (a log file) only whole lines are written."""
    console = rich.console.Console(stderr=True, highlight=False)
    with Progress(
        TextColumn("training"),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        yield TrainingLines(bar, epochs, classes)


class TrainingLines:
    """Tells a run's progress; see `trocar.video.annotator.run.Watcher`."""

    def __init__(self, bar: Progress, epochs: int, classes: tuple[str, ...]) -> None:
        self._bar, self._epochs, self._classes, self._done = bar, epochs, classes, 0
        self._task = bar.add_task("epochs", total=epochs)

    def resumed(self, epoch: int) -> None:
        """Say from where the run goes on."""
        self._done = epoch
        self._bar.console.print(f"going on after epoch {epoch} of {self._epochs}")
        self._bar.update(self._task, completed=epoch)

    def batch(self, share: float) -> None:
        """Move the bar within an epoch."""
        self._bar.update(self._task, completed=self._done + share)

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """Print an epoch's line."""
        self._done = number
        dice = "  ".join(
            f"{name} {figures[f'validation/dice_{place}']:.3f}" for place, name in enumerate(self._classes)
        )
        loss, seconds = figures["loss/total"], figures["seconds"]
        line = f"epoch {number}/{self._epochs}  loss {loss:.3f}  Dice: {dice}  {seconds:.0f} s"
        self._bar.console.print(line, soft_wrap=True)
        self._bar.update(self._task, completed=number)
