"""ModelInfer: from the bytes of a request to the pieces of its reply."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from trocar.runtime.errors import InvalidInput, TrocarError
from trocar.runtime.server.inference import wire
from trocar.runtime.server.inference.bound import MAX_OWN_BYTES, Bound
from trocar.runtime.server.inference.models import Models
from trocar.runtime.server.inference.once import Held, Once
from trocar.runtime.server.inference.overseer import Overseer
from trocar.runtime.server.inference.plan import Plan, read
from trocar.runtime.server.inference.regions import Region, Regions
from trocar.runtime.telemetry import Record, current, ignore

# Plans that are kept, of heads no longer than this; and bytes that the bindings of all of them may hold.
MAX_PLANS, MAX_PLAN_BYTES, MAX_BOUND_BYTES = 256, 4096, 32 << 20

# Of a request, each from where the one before ends.
STAGES = ("input", "queue", "compute", "output")


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
        self._kept = _Kept()

    def answer(
        self,
        message: bytes,
        *,
        remaining_s: float | None,
        abandoned: Callable[[], bool],
        in_stream: bool = False,
    ) -> bytes:
        """Answer a ModelInferRequest.

        Parameters
        ----------
        message : its bytes, of which a large tensor may be moved: they are nobody else's.
        remaining_s : until the caller's deadline.
        abandoned : whether the caller went away.
        in_stream : whether the answer is wrapped as ModelStreamInferResponse.

        Returns
        -------
        The ModelInferResponse.

        Raises
        ------
        TrocarError
            The request is refused, or failed.
        """
        came = time.perf_counter_ns()
        kept = self._kept
        plan, request_id, raw = self._plan(message, kept)
        statistics = plan.loaded.statistics
        current().model = plan.loaded.name
        try:
            if len(raw) != plan.raw_count:
                raise InvalidInput(
                    f"expected {plan.raw_count} raw_input_contents, one an input that is neither in shared "
                    f"memory nor in contents, got {len(raw)}"
                )
            bound = kept.take(plan, self._regions)
            run = Once(plan, Held(self._regions)) if bound is None else bound
            try:
                asked = time.perf_counter_ns()
                slot = plan.loaded.queue.slot(
                    priority=plan.priority,
                    deadline_s=None if remaining_s is None else time.monotonic() + remaining_s,
                    begin_by_s=_begin_by_s(plan.timeout_ns, came),
                    abandoned=abandoned,
                )
                with slot, self._overseer.watch(plan.loaded.name, abandoned):
                    began = time.perf_counter_ns()
                    run.run(raw)
                    ran = time.perf_counter_ns()
                self._require_whole(run.held.all)
                pieces = run.reply(request_id)
                reply = wire.in_stream(pieces) if in_stream else b"".join(pieces)
            finally:
                if bound is not None:
                    plan.idle.append(bound)
        except TrocarError:
            statistics.failed(time.perf_counter_ns() - came)
            raise
        written = time.perf_counter_ns()
        statistics.succeeded((came, asked, began, ran, written))
        if self._record is not ignore:
            marks_s = [mark / 1e9 for mark in (came, asked, began, ran, written)]
            self._record(tuple(zip(STAGES, marks_s, marks_s[1:], strict=False)))
        return reply

    def _plan(self, message: bytes, kept: _Kept) -> tuple[Plan, bytes, Sequence[memoryview]]:
        """Return what a request asks for, its id and its raw tensors."""
        known = kept.find(message)
        if known is not None and self._is_current(known[0]):
            return known[0], b"", known[1]
        request = wire.split(message)
        plan = kept.plans.get(request.head)
        if plan is None or not self._is_current(plan):
            plan = read(request.head, self._models)
            if len(request.head) <= MAX_PLAN_BYTES and all(source.array is None for source in plan.sources):
                kept.keep(request.head, plan)
        if not request.id and len(request.raw) == 1:
            kept.keep_layout(message, request, plan)
        return plan, request.id, request.raw

    def _is_current(self, plan: Plan) -> bool:
        return self._models.get(plan.loaded.name, plan.version) is plan.loaded

    def _require_whole(self, regions: Iterable[Region]) -> None:
        """Refuse the answer where memory was lost under it; the region is forgotten."""
        for region in regions:
            try:
                region.require_whole()
            except InvalidInput:
                self._regions.drop(region)
                self.forget()
                raise

    def forget(self) -> None:
        """Let go of plans, which hold sessions of models and regions that are no longer served."""
        # Replaced as a whole: a request in flight keeps what it has, and gives nothing back to its successor.
        self._kept = _Kept()


class _Kept:
    """What is kept from request to request: plans by their heads, and the bindings that wait in them."""

    def __init__(self) -> None:
        self.plans: dict[bytes, Plan] = {}
        # By its length, how a message with one raw tensor at its end began.
        self._layouts: dict[int, tuple[bytes, Plan]] = {}
        self._own_bytes = 0
        self._lock = threading.Lock()

    def find(self, message: bytes) -> tuple[Plan, Sequence[memoryview]] | None:
        """Return the plan and the raw tensors of a message that differs from an earlier one only in these."""
        size = len(message)
        if size <= MAX_PLAN_BYTES and (plan := self.plans.get(message)) is not None:
            return plan, ()  # a head says it all
        layout = self._layouts.get(size)
        if layout is None or not message.startswith(layout[0]):
            return None
        return layout[1], (memoryview(message)[len(layout[0]) :],)

    def keep(self, head: bytes, plan: Plan) -> None:
        """Keep a plan, in the place of all others where they are too many."""
        if len(self.plans) >= MAX_PLANS:
            self._clear()
        self.plans[head] = plan

    def keep_layout(self, message: bytes, request: wire.Request, plan: Plan) -> None:
        """Keep how a message of one raw tensor and no id begins, if the tensor ends it."""
        prefix = request.head + wire.delimited(wire.RAW, len(request.raw[0]))
        if (
            self.plans.get(request.head) is plan
            and len(prefix) + len(request.raw[0]) == len(message)
            and message.startswith(prefix)
        ):
            if len(self._layouts) >= MAX_PLANS:
                self._layouts = {}
            self._layouts[len(message)] = (prefix, plan)

    def take(self, plan: Plan, regions: Regions) -> Bound | None:
        """Return a binding that nobody uses, or make one, if the plan came before and is worth it."""
        try:
            bound = plan.idle.pop()
        except IndexError:
            pass
        else:
            if bound.held.current:
                return bound
        if plan.shapes is None or plan.own_bytes > MAX_OWN_BYTES:
            return None
        with self._lock:
            if self._own_bytes + plan.own_bytes > MAX_BOUND_BYTES:
                self._clear()
                return None
            self._own_bytes += plan.own_bytes
        try:
            bound = Bound(plan, plan.shapes, Held(regions))
        except InvalidInput:  # of its own it will do, or say why not
            plan.bindable, plan.shapes = False, None
            return None
        with self._lock:  # what shared memory has copies of comes on top
            self._own_bytes += bound.own_bytes - plan.own_bytes
        return bound

    def _clear(self) -> None:
        self.plans, self._layouts, self._own_bytes = {}, {}, 0


def _begin_by_s(timeout_ns: int | None, came_ns: int) -> float | None:
    """Return the `time.monotonic()` by which the request asked to be run."""
    if timeout_ns is None:
        return None
    return time.monotonic() + (timeout_ns - (time.perf_counter_ns() - came_ns)) / 1e9
