"""A session that runs requests of one shape together, where they come at about the same time."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trocar.runtime.device import Device
from trocar.runtime.errors import DeviceError, InvalidInput, TrocarError
from trocar.runtime.session.base import (
    Array,
    Binding,
    Buffer,
    Session,
    TensorSpec,
    check_bound,
    check_feeds,
)

_Key = tuple[tuple[int, ...], ...]


@dataclass(slots=True)
class _Batch:
    """Requests that are run together. Its first request's thread leads it."""

    feeds: list[Mapping[str, Array]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    answers: list[dict[str, Array] | TrocarError] = field(default_factory=list)
    full: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)

    def add(self, feeds: Mapping[str, Array], rows: int) -> int:
        """Take a request; returns which one of the batch it is."""
        self.feeds.append(feeds)
        self.rows.append(rows)
        return len(self.feeds) - 1


class BatchingSession:
    """A session whose `run` merges what several threads ask for.

    An answer is that of the network for a larger batch, which need not be that of the request alone to the
    last bit: backends add in another order. Where a batch fails each of its requests is run alone, so that
    one does not fail the others.

    Parameters
    ----------
    session : the network. The first axis of all its tensors has one name, and is of any size.
    max_batch : rows of a batch; a request of as many or more is run as it is.
    window_s : how long the first request of a batch waits for others.

    Raises
    ------
    InvalidInput
        The network's tensors have no such axis.
    """

    def __init__(self, session: Session, *, max_batch: int, window_s: float) -> None:
        self.inputs, self.outputs = session.inputs, session.outputs
        _require_batch_axis((*self.inputs, *self.outputs))
        self._session, self._max_batch, self._window_s = session, max_batch, window_s
        self._lock = threading.Lock()
        # While a batch runs the next one gathers.
        self._running = threading.Lock()
        self._gathering: dict[_Key, _Batch] = {}

    @property
    def provider(self) -> str:
        """See `Session.provider`."""
        return self._session.provider

    @property
    def device(self) -> Device:
        """See `Session.device`."""
        return self._session.device

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network once, together with others; see `Session.run`."""
        # Here, and not in the batch: what is refused must not fail its neighbours.
        check_feeds(self.inputs, feeds)
        rows = feeds[self.inputs[0].name].shape[0]
        if rows >= self._max_batch:
            return self._session.run(feeds)
        key = tuple(feeds[spec.name].shape[1:] for spec in self.inputs)
        batch, index = self._join(key, feeds, rows)
        if index == 0:
            self._lead(key, batch)
        batch.done.wait()
        answer = batch.answers[index]
        if isinstance(answer, TrocarError):
            raise answer
        return answer

    def bind(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Binding:
        """Take the caller's buffers, which are run alone; see `Session.bind`."""
        return self._session.bind(feeds, outputs)

    def run_into(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        """Run once, together with others, into the caller's buffers; see `Session.run_into`."""
        check_bound(self.inputs, self.outputs, feeds, outputs, device=self.device)
        here = {name: buffer for name, buffer in feeds.items() if isinstance(buffer, np.ndarray)}
        targets = {name: buffer for name, buffer in outputs.items() if isinstance(buffer, np.ndarray)}
        if len(here) < len(feeds) or len(targets) < len(outputs):
            self._session.run_into(feeds, outputs)
            return
        for name, value in self.run(here).items():
            if value.shape != targets[name].shape:
                raise DeviceError(
                    f"output {name}: expected {list(targets[name].shape)}, got {list(value.shape)}"
                )
            np.copyto(targets[name], value)

    def _join(self, key: _Key, feeds: Mapping[str, Array], rows: int) -> tuple[_Batch, int]:
        with self._lock:
            batch = self._gathering.get(key)
            if batch is not None and sum(batch.rows) + rows > self._max_batch:
                batch.full.set()
                batch = None
            if batch is None:
                batch = self._gathering[key] = _Batch()
            index = batch.add(feeds, rows)
            if sum(batch.rows) >= self._max_batch:
                batch.full.set()
                del self._gathering[key]
            return batch, index

    def _lead(self, key: _Key, batch: _Batch) -> None:
        batch.full.wait(self._window_s)
        try:
            with self._running:
                with self._lock:
                    if self._gathering.get(key) is batch:
                        del self._gathering[key]
                self._answer(batch)
        finally:
            # Whatever happened here, nobody waits for ever.
            lost = DeviceError("the batch was not run")
            batch.answers += [lost] * (len(batch.feeds) - len(batch.answers))
            batch.done.set()

    def _answer(self, batch: _Batch) -> None:
        if len(batch.feeds) > 1:
            try:
                batch.answers = self._together(batch)
                return
            except TrocarError:
                pass  # whose fault it is shows alone
        batch.answers = [self._alone(feeds) for feeds in batch.feeds]

    def _together(self, batch: _Batch) -> list[dict[str, Array] | TrocarError]:
        merged = {
            spec.name: np.concatenate([feeds[spec.name] for feeds in batch.feeds]) for spec in self.inputs
        }
        values = self._session.run(merged)
        total = sum(batch.rows)
        for name, value in values.items():
            if value.shape[:1] != (total,):
                raise DeviceError(f"output {name}: expected {total} rows, got {list(value.shape)}")
        ends = np.cumsum(batch.rows)
        return [
            {name: value[end - rows : end] for name, value in values.items()}
            for rows, end in zip(batch.rows, ends, strict=True)
        ]

    def _alone(self, feeds: Mapping[str, Array]) -> dict[str, Array] | TrocarError:
        try:
            return self._session.run(feeds)
        except TrocarError as error:
            return error


def _require_batch_axis(specs: Sequence[TensorSpec]) -> None:
    names = {spec.shape[0] if spec.shape else 0 for spec in specs}
    if len(names) != 1 or not isinstance(next(iter(names)), str):
        raise InvalidInput(
            "batching: expected one named axis, the first of every tensor, got "
            + ", ".join(f"{spec.name} {spec}" for spec in specs)
        )
