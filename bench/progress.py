"""Progress on stderr, and a Ctrl-C that keeps what was measured."""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

_REFRESH_S = 0.2
_COLLECT_S = 1.0


@dataclass(slots=True)
class Stop:
    """Whether the user asked a measurement to end."""

    asked: bool = False


_STOP: ContextVar[Stop | None] = ContextVar("stop", default=None)


def current_stop() -> Stop:
    """What says whether Ctrl-C came; a thread has to be given the one of the thread that started it."""
    return _STOP.get() or Stop()


def stop_was_asked() -> bool:
    """Whether Ctrl-C came; what loops by `track` need not ask."""
    return current_stop().asked


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Within it the first Ctrl-C ends every loop of `track` after its current item; a second one raises."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            signal.default_int_handler(number, frame)
        stop.asked = True
        print("keeping what was measured; Ctrl-C again to drop it", file=sys.stderr, flush=True)

    token = _STOP.set(stop)
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
        _STOP.reset(token)


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Go through the items with a progress bar; after Ctrl-C no further one, but always the first.

    The bar is drawn between items by this thread, and garbage is collected there: nothing of it falls into
    what the loop's body times.

    Parameters
    ----------
    total : how many there are, where the items do not know.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    if total is None and isinstance(items, Sized):
        total = len(items)
    console = Console(stderr=True)
    quiet = not console.is_terminal
    drawn_s = collected_s = time.monotonic()
    with Progress(*columns, console=console, auto_refresh=False, transient=True, disable=quiet) as bar:
        task = bar.add_task(label, total=total)
        for done, item in enumerate(items):
            if done and stop_was_asked():
                break
            yield item
            bar.advance(task)
            now_s = time.monotonic()
            if now_s - drawn_s > _REFRESH_S:
                bar.refresh()
                drawn_s = now_s
            if now_s - collected_s > _COLLECT_S:
                gc.collect()
                collected_s = now_s
