"""Runs that take too long, or that nobody waits for any more, are ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType

from trocar.runtime.errors import Cancelled, DeadlineExceeded
from trocar.runtime.session.interrupt import Interrupt

LOG = logging.getLogger("trocar.server")
# How often it looks; after how much longer a run that was told to end hangs.
LOOK_S, GRACE_S = 0.1, 2.0


class Overseer:
    """Looks after the runs of a server's models, in a thread of its own.

    `hung` names the models of which a run neither ended by itself nor could be ended, and says why they take
    no requests. It goes as soon as the run does end.

    Parameters
    ----------
    limit_s : how long a run may take.
    look_s, grace_s : as `LOOK_S` and `GRACE_S`, for tests.
    """

    def __init__(self, limit_s: float, *, look_s: float = LOOK_S, grace_s: float = GRACE_S) -> None:
        self._limit_s, self._look_s, self._grace_s = limit_s, look_s, grace_s
        self.hung: dict[str, str] = {}
        self._runs: dict[int, Run] = {}
        threading.Thread(target=self._look, name="overseer", daemon=True).start()

    def watch(self, model: str, abandoned: Callable[[], bool]) -> Run:
        """Return the run of a request, to be held while its model runs.

        Parameters
        ----------
        model : its name.
        abandoned : whether the caller went away, or its deadline passed.
        """
        return Run(self._runs, model, abandoned)

    def _look(self) -> None:
        while True:
            time.sleep(self._look_s)
            now_s = time.monotonic()
            # A copy: runs begin and end meanwhile.
            runs = list(self._runs.copy().values())
            for run in runs:
                self._judge(run, now_s)
            hung = {
                run.model: f"a run of it does not end, after {now_s - run.began_s:.0f} s"
                for run in runs
                if run.told_s is not None and now_s - run.told_s > self._grace_s
            }
            for name in hung.keys() - self.hung.keys():
                LOG.error("model %s is not ready: %s", name, hung[name])
            for name in self.hung.keys() - hung.keys():
                LOG.warning("model %s is ready again: its run has ended", name)
            self.hung = hung

    def _judge(self, run: Run, now_s: float) -> None:
        if run.told_s is not None:
            return
        if now_s - run.began_s > self._limit_s:
            LOG.error("model %s: a run of more than %g s is ended", run.model, self._limit_s)
            run.interrupt.end(
                DeadlineExceeded(
                    f"model {run.model!r}: expected a run of at most {self._limit_s:g} s, "
                    "got one that was ended"
                )
            )
        elif _gone(run):
            run.interrupt.end(Cancelled("the caller went away while its request ran"))
        else:
            return
        run.told_s = now_s


class Run:
    """A run that is looked after for the body of a `with`. `Overseer.watch` makes it."""

    __slots__ = ("_runs", "abandoned", "began_s", "interrupt", "model", "told_s")

    def __init__(self, runs: dict[int, Run], model: str, abandoned: Callable[[], bool]) -> None:
        self._runs, self.model, self.abandoned = runs, model, abandoned
        self.interrupt = Interrupt()
        self.told_s: float | None = None

    def __enter__(self) -> None:
        """Begin."""
        self.began_s = time.monotonic()
        self.interrupt.__enter__()
        self._runs[id(self)] = self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        del self._runs[id(self)]
        self.interrupt.__exit__(kind, error, trace)


def _gone(run: Run) -> bool:
    """Whether its caller went away; where that cannot be told, the limit is what is left."""
    try:
        return run.abandoned()
    except Exception:
        LOG.exception("model %s: cannot tell whether a run's caller is there", run.model)
        return False
