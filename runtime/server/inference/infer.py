"""ModelInfer: from the bytes of a request to the pieces of its reply."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from trocar.runtime.errors import InvalidInput, TrocarError
from trocar.runtime.server.inference import wire
from trocar.runtime.server.inference.models import Models
from trocar.runtime.server.inference.overseer import Overseer
from trocar.runtime.server.inference.plan import Plan, Source, Target, read
from trocar.runtime.server.inference.regions import Region, Regions
from trocar.runtime.session.base import Array
from trocar.runtime.telemetry import Record, current, ignore

# Plans that are kept, of heads no longer than this.
MAX_PLANS, MAX_PLAN_BYTES = 256, 4096
# A client may change shared memory while it is read. Indices and sizes are read twice by some operators, and
# must not differ the second time; they are integers, or small.
_SNAPSHOT_DTYPES, _SNAPSHOT_BYTES = ("int32", "int64", "bool"), 1 << 16

# Of a request, each from where the one before ends.
STAGES = ("input", "queue", "compute", "output")

Pieces = list[bytes | memoryview]


class Inference:
    """Runs requests.

    Parameters
    ----------
    models : what is loaded.
    regions : what clients registered.
    overseer : ends runs.
    record : takes `STAGES` of each request that was answered.
    """

    def __init__(self, models: Models, regions: Regions, overseer: Overseer, record: Record = ignore) -> None:
        self._models = models
        self._regions = regions
        self._overseer = overseer
        self._record = record
        self._plans: dict[bytes, Plan] = {}

    def answer(self, message: bytes, *, remaining_s: float | None, abandoned: Callable[[], bool]) -> Pieces:
        """Answer a ModelInferRequest.

        Parameters
        ----------
        message : its bytes.
        remaining_s : until the caller's deadline.
        abandoned : whether the caller went away.

        Returns
        -------
        The ModelInferResponse, to be joined.

        Raises
        ------
        TrocarError
            The request is refused, or failed.
        """
        came = time.perf_counter_ns()
        request = wire.split(message)
        plan = self._plan(request.head)
        statistics = plan.loaded.statistics
        current().model = plan.loaded.name
        try:
            if len(request.raw) != plan.raw_count:
                raise InvalidInput(
                    f"expected {plan.raw_count} raw_input_contents, one an input that is neither in shared "
                    f"memory nor in contents, got {len(request.raw)}"
                )
            used = _Used(self._regions)
            raw = iter(request.raw)
            feeds = {source.spec.name: used.feed(source, raw) for source in plan.sources}
            asked = time.perf_counter_ns()
            slot = plan.loaded.queue.slot(
                priority=plan.priority,
                deadline_s=None if remaining_s is None else time.monotonic() + remaining_s,
                begin_by_s=_begin_by_s(plan.timeout_ns, came),
                abandoned=abandoned,
            )
            with slot, self._overseer.watch(plan.loaded.name, abandoned):
                began = time.perf_counter_ns()
                values = _run(plan, feeds, used)
                ran = time.perf_counter_ns()
            used.require_whole()
            head = plan.head(tuple(values[target.spec.name].shape for target in plan.targets))
            tensors = [_bytes(values[target.spec.name], target) for target in plan.targets]
            pieces = wire.reply(head, request.id, tensors)
        except TrocarError:
            statistics.failed(time.perf_counter_ns() - came)
            raise
        written = time.perf_counter_ns()
        statistics.succeeded((came, asked, began, ran, written))
        if self._record is not ignore:
            marks_s = [mark / 1e9 for mark in (came, asked, began, ran, written)]
            self._record(tuple(zip(STAGES, marks_s, marks_s[1:], strict=False)))
        return pieces

    def _plan(self, head: bytes) -> Plan:
        known = self._plans.get(head)
        if known is not None and self._models.get(known.loaded.name, known.version) is known.loaded:
            return known
        plan = read(head, self._models)
        if len(head) <= MAX_PLAN_BYTES and all(source.array is None for source in plan.sources):
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            self._plans[head] = plan
            # Whoever swapped the model meanwhile may have called `forget` before this was kept.
            if not self._serves(plan):
                self._plans.pop(head, None)
        return plan

    def _serves(self, plan: Plan) -> bool:
        try:
            return self._models.get(plan.loaded.name) is plan.loaded
        except TrocarError:
            return False

    def forget(self) -> None:
        """Let go of plans, which hold the sessions of models that are unloaded."""
        self._plans.clear()


class _Used:
    """The regions of one request, held until it is answered."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions
        self._held: dict[str, Region] = {}

    def region(self, name: str) -> Region:
        """Return a region; the same one all through the request."""
        if name not in self._held:
            self._held[name] = self._regions.get(name)
        return self._held[name]

    def require_whole(self) -> None:
        """Refuse the answer where memory was lost under it; the region is forgotten."""
        for region in self._held.values():
            try:
                region.require_whole()
            except InvalidInput:
                self._regions.drop(region)
                raise

    def feed(self, source: Source, raw: Any) -> Array:
        """Return an input's array, in place where it may be read there."""
        if source.array is not None:
            return source.array
        what, dtype = f"input {source.spec.name}", source.spec.dtype
        if source.span is not None:
            array = self.region(source.span.region).view(source.span, dtype, source.shape, what)
            if dtype in _SNAPSHOT_DTYPES or source.size_bytes <= _SNAPSHOT_BYTES:
                array = array.copy()
        else:
            view: memoryview = next(raw)
            if len(view) != source.size_bytes:
                raise InvalidInput(
                    f"{what}: expected {source.size_bytes} bytes in raw_input_contents for "
                    f"{dtype} {list(source.shape)}, got {len(view)}"
                )
            array = np.frombuffer(view, dtype).reshape(source.shape)
        if not array.flags.aligned:  # compiled code may take alignment for granted
            array = array.copy()
        if dtype == "bool" and array.view(np.uint8).max() > 1:
            raise InvalidInput(f"{what}: expected BOOL as bytes of 0 and 1, got others")
        return array


def _begin_by_s(timeout_ns: int | None, came_ns: int) -> float | None:
    """Return the `time.monotonic()` by which the request asked to be run."""
    if timeout_ns is None:
        return None
    return time.monotonic() + (timeout_ns - (time.perf_counter_ns() - came_ns)) / 1e9


def _run(plan: Plan, feeds: dict[str, Array], used: _Used) -> dict[str, Array]:
    """Run the network; outputs for shared memory are written there, by the network itself where it can."""
    session = plan.loaded.session
    if not plan.shared:
        return session.run(feeds)
    spans = {target.spec.name: target.span for target in plan.targets if target.span is not None}
    outputs: dict[str, Array] = {}
    for spec in session.outputs:
        shape = plan.output_shape(spec)
        if shape is None:
            break
        array = _shared(Target(spec, spans.get(spec.name)), shape, used)
        outputs[spec.name] = np.empty(shape, spec.dtype) if array is None else array
    if len(outputs) == len(session.outputs) and all(array.flags.aligned for array in outputs.values()):
        session.run_into(feeds, outputs)
        return outputs
    values = session.run(feeds)
    for target in plan.targets:
        array = _shared(target, values[target.spec.name].shape, used)
        if array is not None:
            np.copyto(array, values[target.spec.name])
    return values


def _shared(target: Target, shape: tuple[int, ...], used: _Used) -> Array | None:
    """Return where an output lies in shared memory, if it does."""
    span = target.span
    if span is None:
        return None
    what = f"output {target.spec.name}"
    size = int(np.prod(shape, dtype=object)) * np.dtype(target.spec.dtype).itemsize
    if span.size_bytes < size:
        raise InvalidInput(
            f"{what}: expected {size} bytes of shared memory or more for {target.spec.dtype} {list(shape)}, "
            f"got {span.size_bytes}"
        )
    exact = type(span)(span.region, span.offset, size)
    return used.region(span.region).view(exact, target.spec.dtype, shape, what)


def _bytes(array: Array, target: Target) -> memoryview | bytes:
    if target.span is not None:
        return b""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
