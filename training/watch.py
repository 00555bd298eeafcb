"""How a training run shows on the terminal: progress bars and a line an epoch, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import rich.console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Console:
    """The terminal; without one (a log file) only whole lines are written."""

    def __init__(self) -> None:
        self._console = rich.console.Console(stderr=True, highlight=False)

    @contextmanager
    def making(self, total: int, what: str = "examples") -> Iterator[Callable[[int, int], None]]:
        """Show how many examples, or what else, are made."""
        with self._bar(what) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done, wanted: bar.update(task, completed=done, total=wanted)
        self._console.print(f"{total} {what}")

    @contextmanager
    def training(self, epochs: int, shown: Sequence[tuple[str, str]]) -> Iterator[TrainingLines]:
        """Show epochs and their figures.

        Parameters
        ----------
        shown : of each epoch's validation figures, name and label of those that go in its line.
        """
        with self._bar("training") as bar:
            yield TrainingLines(bar, epochs, shown)

    def _bar(self, text: str) -> Progress:
        return Progress(
            TextColumn(text),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )


class TrainingLines:
    """Tells a run's progress; see `trocar.training.run.Watcher`."""

    def __init__(self, bar: Progress, epochs: int, shown: Sequence[tuple[str, str]]) -> None:
        self._bar, self._epochs, self._shown, self._done = bar, epochs, shown, 0
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
        shown = "  ".join(f"{label} {figures[f'validation/{name}']:.3f}" for name, label in self._shown)
        loss, seconds = figures["loss/total"], figures["seconds"]
        line = f"epoch {number}/{self._epochs}  loss {loss:.3f}  {shown}  {seconds:.1f} s"
        self._bar.console.print(line, soft_wrap=True)
        self._bar.update(self._task, completed=number)
