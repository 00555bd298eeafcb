"""The end of a run from outside: a thread that is inside a backend cannot look for itself."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from trocar.runtime.errors import TrocarError

FATAL_ONLY = 4
# No CUDA graph is captured or replayed in a run.
GRAPH_ID, NO_GRAPH = "gpu_graph_id", "-1"
_HERE = threading.local()
# Options of runs that were not ended, for the next ones: to make them anew is a tenth of a small run.
_KEPT: list[Any] = []


class Interrupt:
    """Lets another thread end the runs that this one begins in the body of a `with`.

    ONNX Runtime looks between two operations of a graph, in the body of a loop too: one long operation is
    finished first. What TensorRT runs is not ended at all.
    """

    __slots__ = ("_options", "why")

    def __init__(self) -> None:
        self.why: TrocarError | None = None
        self._options: Any = None

    def __enter__(self) -> None:
        """Begin."""
        _HERE.current = self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Runs that begin from now on are nobody's to end."""
        _HERE.current = None
        options, self._options = self._options, None
        # In this order: whoever ends this meanwhile has said so by now, or finds no options.
        if options is not None and self.why is None:
            _KEPT.append(options)

    def end(self, why: TrocarError) -> None:
        """End what runs, and what would; the run raises `why`. Of several, the first holds."""
        if self.why is None:
            self.why = why
        options = self._options
        if options is not None:
            options.terminate = True

    def run_options(self) -> Any:
        """Return the options of a run that is about to begin.

        Raises
        ------
        TrocarError
            It was ended before.
        """
        options = self._options
        if options is None:
            try:
                options = _KEPT.pop()
            except IndexError:
                options = _fresh()
            self._options = options
        # Looked at after the options are there: whoever ends this meanwhile finds one or the other.
        if self.why is not None:
            raise self.why
        return options


def _fresh() -> Any:
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = FATAL_ONLY
    # Said, because ONNX Runtime takes 35 us to find out that it is not: it throws, and catches.
    options.add_run_config_entry(GRAPH_ID, NO_GRAPH)
    return options


def current() -> Interrupt | None:
    """Return what may end the runs of this thread."""
    return getattr(_HERE, "current", None)
