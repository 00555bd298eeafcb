"""What can be seen of a running server, said in words of its own: nothing else knows who looks.

Whoever has something to show takes a `Telemetry`. Who looks (Prometheus, OpenTelemetry) is a module beside
this one, imported only where it is asked for; with nobody looking every call here does next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

# Name of a stage, when it began and when it ended: seconds on `time.monotonic`, which `time.perf_counter` is
# too on Linux.
Stage = tuple[str, float, float]
# Takes stages that a request, or a frame, went through.
Record = Callable[[Sequence[Stage]], None]


def end_to_end(times_ms: Mapping[str, float], began_s: float) -> list[Stage]:
    """Return stages of which only the lengths are known, one after the other.

    Parameters
    ----------
    times_ms : how long each took, in their order.
    began_s : when the first began.
    """
    stages: list[Stage] = []
    for name, took_ms in times_ms.items():
        stages.append((name, began_s, began_s + took_ms / 1000))
        began_s = stages[-1][2]
    return stages


def ignore(_: Sequence[Stage]) -> None:
    """Record nothing."""


@dataclass(slots=True)
class Request:
    """The request that a thread is at.

    Parameters
    ----------
    id : the caller's name for it, or ours; see `trocar.runtime.telemetry.requests`.
    model : the server's own name of the model that it used, never a name that came with it.
    trace : where its spans belong, of whoever traces.
    """

    id: str = ""
    model: str = ""
    trace: Any = None


_CURRENT: ContextVar[Request] = ContextVar("trocar-request")


def current() -> Request:
    """Return this thread's request, or one of nobody."""
    return _CURRENT.get(None) or Request()


def enter(request: Request) -> None:
    """Make a request this thread's, until the next."""
    _CURRENT.set(request)


@dataclass(frozen=True, slots=True)
class Family:
    """Values of one kind, read when somebody looks.

    Parameters
    ----------
    name : as Prometheus names them, without `_total`.
    kind : `counter`, `gauge` or `summary`.
    help : what it is, in a line.
    labels : their names. Values come from the server: its models, its tables; never from a client.
    rows : values of the labels, and the number; of a summary, how often and how much altogether.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    rows: list[tuple[tuple[str, ...], float | tuple[float, float]]] = field(default_factory=list)


def served_models(service: str, names: Iterable[str]) -> Family:
    """Return which models a service has open; a name is `model/version`."""
    return Family(
        "trocar_model_loaded",
        "gauge",
        "1 for each model that is served.",
        ("service", "model", "version"),
        [((service, *name.split("/")), 1.0) for name in names],
    )


Read = Callable[[], Iterable[Family]]


class Listener(Protocol):
    """Who looks."""

    def stages(self, part: str, names: Sequence[str], *, timed: bool, alone: bool) -> Record | None:
        """See `Telemetry.stages`; None where it has no use for them."""

    def collect(self, read: Read) -> None:
        """See `Telemetry.collect`."""

    def begin(self, method: str, kind: str, traceparent: str, request: Request) -> Ended:
        """See `Telemetry.begin`."""

    def close(self) -> None:
        """See `Telemetry.close`."""


# Told the status code's name and how long the request took, s.
Ended = Callable[[str, float], None]


class _Nobody:
    """Who looks where nobody does."""

    def begin(self, *_: object) -> Ended:
        return _end_of_nothing


def _end_of_nothing(_: str, __: float) -> None:
    pass


_NOBODY = _Nobody()


class Telemetry:
    """Tells whoever listens; without arguments, nobody.

    Parameters
    ----------
    listeners : who looks.
    address : where metrics can be read, `host:port`; empty where they cannot.
    """

    def __init__(self, listeners: Sequence[Listener] = (), *, address: str = "") -> None:
        self._listeners = tuple(listeners)
        self.address = address

    def stages(self, part: str, names: Sequence[str], *, timed: bool = True, alone: bool = False) -> Record:
        """Return what takes the times of a part's stages.

        Parameters
        ----------
        part : whose they are, such as `planning`.
        names : all that there can be; another one is not recorded.
        timed : whether each has a histogram; else they are seen in traces only.
        alone : whether what is recorded at once is a trace of its own, such as a frame of a stream that may
            last for hours, linked to the request that it came with.
        """
        found = [one.stages(part, names, timed=timed, alone=alone) for one in self._listeners]
        records = [record for record in found if record is not None]
        if len(records) <= 1:
            return records[0] if records else ignore

        def record_all(stages: Sequence[Stage]) -> None:
            for record in records:
                record(stages)

        return record_all

    def collect(self, read: Read) -> None:
        """Have values read whenever somebody looks; from any thread, and soon done."""
        for one in self._listeners:
            one.collect(read)

    def begin(self, method: str, kind: str, traceparent: str, request: Request) -> Ended:
        """Say that a request came.

        Parameters
        ----------
        method : `/package.Service/Method`, one that the server has.
        kind : such as `unary_stream`.
        traceparent : W3C's header, empty where none came.
        request : may be given a trace.

        Returns
        -------
        What is to be called at its end.
        """
        if len(self._listeners) <= 1:
            one = self._listeners[0] if self._listeners else _NOBODY
            return one.begin(method, kind, traceparent, request)
        ended = [one.begin(method, kind, traceparent, request) for one in self._listeners]

        def end_all(code: str, took_s: float) -> None:
            for end in ended:
                end(code, took_s)

        return end_all

    def close(self) -> None:
        """Send what is still to be sent, and end."""
        for one in self._listeners:
            one.close()
