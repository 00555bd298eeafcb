"""How a training run shows on the terminal: progress bars and a line an epoch, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import rich.console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_SHOWN = (("dice", "Dice"), ("bce", "BCE"), ("dose", "dose misfit"), ("variety", "variety"))


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
    def training(self, epochs: int) -> Iterator[TrainingLines]:
        """Show epochs and their figures."""
        with self._bar("training") as bar:
            yield TrainingLines(bar, epochs)

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
    """Tells a run's progress; see `trocar.planners.tpgan.run.Watcher`."""

    def __init__(self, bar: Progress, epochs: int) -> None:
        self._bar, self._epochs, self._done = bar, epochs, 0
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
        shown = "  ".join(f"{label} {figures[f'validation/{name}']:.3f}" for name, label in _SHOWN)
        self._bar.console.print(
            f"epoch {number}/{self._epochs}  loss {figures['loss/total']:.3f}  {shown}  "
            f"{figures['seconds']:.1f} s"
        )
        self._bar.update(self._task, completed=number)
