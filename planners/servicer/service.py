"""`PlanningService`: reads a request, holds it to its deadline, hands it to a process that plans."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from trocar.planners import intake, pipeline
from trocar.planners.generator import MODEL
from trocar.planners.report import ARTIFACTS
from trocar.planners.requests import Search
from trocar.planners.servicer import messages
from trocar.planners.servicer.work import dose_grid_mm
from trocar.runtime.config import limits, parse_table
from trocar.runtime.errors import DeadlineExceeded, InvalidInput
from trocar.runtime.server.pool import Job, Pool, PoolSpec
from trocar.runtime.server.scheduler import Priority, Queue
from trocar.runtime.server.services import ServiceContext
from trocar.runtime.server.worker import CPU_CLAIMS
from trocar.runtime.telemetry import Record, current, end_to_end, ignore, served_models
from trocar.v1 import planning_pb2

# What a reply's `timing_ms` has, less the total.
STAGES = ("read", "generate", "refine", "dose", "dvh", "validity")
SERVICE_NAME = planning_pb2.DESCRIPTOR.services_by_name["PlanningService"].full_name


@dataclass(frozen=True, slots=True)
class PlanningConfig:
    """The `[services.planning]` table.

    Parameters
    ----------
    processes : plans computed at once, each in a process of its own; 0 is `max_running` of `[server]`.
    cpu : what those processes claim of a core that others want, such as a stream: `idle` next to nothing,
        `low` a tenth, `normal` as much as they.
    max_budget_ms : the longest search a caller may ask for.
    max_moves : the same as a number of moves over all chains.
    reserve_ms : of a caller's deadline, what is kept for dose, DVH and validity of each plan; the search gets
        the rest, and a deadline that leaves it nothing is refused at once.
    render_ms : what is kept besides where artifacts are asked for.
    """

    processes: int = field(default=0, metadata=limits(0, 64))
    cpu: str = field(default="idle", metadata=limits(choices=CPU_CLAIMS))
    max_budget_ms: float = field(default=60_000.0, metadata=limits(1, 3_600_000))
    max_moves: int = field(default=50_000_000, metadata=limits(1, 1_000_000_000))
    reserve_ms: float = field(default=400.0, metadata=limits(0, 60_000))
    render_ms: float = field(default=800.0, metadata=limits(0, 60_000))

    def kept_ms(self, artifacts: Sequence[str], plans: int = 1) -> float:
        """Time after the search, ms."""
        return self.reserve_ms * plans + (self.render_ms if artifacts else 0.0)


class Call:
    """One call's patience: its deadline, and whether its caller is still there."""

    def __init__(self, context: grpc.ServicerContext, reserve_ms: float) -> None:
        remaining_s = context.time_remaining()
        self.job = Job()
        if not context.add_callback(self.job.cancel):
            self.job.cancel()
        self.reserve_s = reserve_ms / 1000.0
        self.end_s = None if remaining_s is None else time.monotonic() + remaining_s

    @property
    def search_until_s(self) -> float | None:
        """`time.monotonic()` by which the search has to end."""
        return None if self.end_s is None else self.end_s - self.reserve_s

    def gone(self) -> bool:
        """Whether the caller cancelled, left, or its deadline passed."""
        return self.job.cancelled.is_set()

    def search_left_ms(self) -> float | None:
        """Time the search may take now, or None without a deadline.

        Raises
        ------
        DeadlineExceeded
            Nothing is left.
        """
        if self.search_until_s is None:
            return None
        left_ms = 1000.0 * (self.search_until_s - time.monotonic())
        if left_ms <= 0:
            raise DeadlineExceeded(
                f"expected a deadline of more than {1000 * self.reserve_s:.0f} ms, "
                f"got {max(0.0, left_ms + 1000 * self.reserve_s):.0f} ms"
            )
        return left_ms


class PlanningServicer:
    """The service. What is refused is refused here; plans are computed in the pool.

    Parameters
    ----------
    config : its limits.
    queue : who may compute.
    pool : its processes.
    model : the name and version that they start plans with.
    record : takes the stages of requests.
    """

    def __init__(
        self, config: PlanningConfig, queue: Queue, pool: Pool, model: str = "", record: Record = ignore
    ) -> None:
        self._config = config
        self._queue = queue
        self._pool = pool
        self.model = model
        self._record = record

    def plan(self, request: planning_pb2.PlanRequest, context: Any) -> bytes:
        """Search for a plan and prove it."""
        plans = 1 + min(request.search.alternatives, intake.MAX_ALTERNATIVES)
        call = Call(context, self._config.kept_ms(request.artifacts, plans))
        call.search_left_ms()
        _check_artifacts(request.artifacts)
        search = self._bounded(messages.search(request.search))
        asked = intake.plan_request(messages.settings(request.settings), search)
        left_ms = call.search_left_ms()
        slot = self._queue.slot(
            priority=Priority.BATCH,
            deadline_s=call.end_s,
            kind=_kind(asked, request.artifacts),
            # The search takes what the deadline leaves it.
            least_s=call.reserve_s,
            likely_s=None if asked.budget_ms is None else min(asked.budget_ms, left_ms or math.inf) / 1000.0,
            abandoned=call.gone,
        )
        with slot:
            if asked.start == "gan":
                current().model = self.model
            return self._run("Plan", request, call)

    def evaluate(self, request: planning_pb2.EvaluateRequest, context: Any) -> bytes:
        """Prove a plan that exists."""
        call = Call(context, self._config.kept_ms(request.artifacts))
        call.search_left_ms()
        _check_artifacts(request.artifacts)
        grid_mm = dose_grid_mm(request)
        intake.evaluation(
            messages.settings(request.settings), messages.plan_content(request), index=request.index
        )
        kind = f"evaluate {grid_mm:g} {sorted(set(request.artifacts))}"
        with self._queue.slot(deadline_s=call.end_s, kind=kind, abandoned=call.gone):
            return self._run("Evaluate", request, call)

    def evaluate_dose(self, request: planning_pb2.EvaluateDoseRequest, context: Any) -> bytes:
        """Compare an HDR plan's dose with the one that came with it."""
        call = Call(context, self._config.reserve_ms)
        call.search_left_ms()
        with self._queue.slot(deadline_s=call.end_s, kind="evaluate dose", abandoned=call.gone):
            return self._run("EvaluateDose", request, call)

    def _run(self, method: str, request: Any, call: Call) -> bytes:
        until_s, end_s = call.search_until_s, call.end_s
        began_s = time.monotonic()
        reply = self._pool.run(method, request.SerializeToString(), call.job, until_s=until_s, end_s=end_s)
        if self._record is not ignore and method != "EvaluateDose":
            took_ms = planning_pb2.PlanReply.FromString(reply).timing_ms
            self._record(end_to_end({name: took_ms[name] for name in STAGES if name in took_ms}, began_s))
        return reply

    def _bounded(self, search: Search) -> Search:
        config = self._config
        if search.budget_ms is not None and not search.budget_ms <= config.max_budget_ms:
            raise InvalidInput(
                f"budget: expected at most {config.max_budget_ms:g} ms, got {search.budget_ms:g}"
            )
        moves = (search.moves or 0) * (search.chains or 1 + search.alternatives)
        if moves > config.max_moves:
            raise InvalidInput(f"moves: expected at most {config.max_moves} over all chains, got {moves}")
        return search


def _kind(asked: pipeline.PlanRequest, artifacts: Sequence[str]) -> str:
    """Plans of one kind take about as long."""
    return f"plan {asked.effort} {asked.alternatives} {sorted(set(artifacts))}"


def _check_artifacts(names: Sequence[str]) -> None:
    for name in names:
        if name not in ARTIFACTS:
            raise InvalidInput(f"expected artifacts among {', '.join(ARTIFACTS)}, got {name!r}")


def _encoded(reply: bytes) -> bytes:
    return reply


def add_service(server: grpc.Server, context: ServiceContext) -> Sequence[str]:
    """Add the service; see `trocar.runtime.server.services`."""
    config = parse_table(PlanningConfig, context.settings, where="[services.planning]")

    def spec(version: int) -> PoolSpec:
        # The version by its number: a process that is started again must not take one that was refused.
        arguments = {**context.repository_options, "version": version}
        return PoolSpec("trocar.planners.servicer.work:open_planner", arguments, config.cpu)

    served = context.repository.open(MODEL)
    pool = Pool(spec(served.manifest.version))
    pool.start()
    slots = config.processes or context.scheduler.max_running
    queue = context.scheduler.queue("planning", max_queued=context.max_queued, slots=slots)
    record = context.telemetry.stages("planning", STAGES)
    servicer = PlanningServicer(config, queue, pool, f"{MODEL}/{served.manifest.version}", record)

    def take(name: str) -> str | None:
        nonlocal served
        newest = context.repository.open(name)
        if newest.manifest_bytes == served.manifest_bytes:
            return None
        pool.renew(spec(newest.manifest.version))
        served, servicer.model = newest, f"{name}/{newest.manifest.version}"
        return str(newest.manifest.version)

    context.watch.follow("planning", context.repository, lambda: (MODEL,), take)
    context.telemetry.collect(lambda: [served_models("planning", [servicer.model])])
    handlers: dict[str, Any] = {
        "Plan": grpc.unary_unary_rpc_method_handler(
            servicer.plan, planning_pb2.PlanRequest.FromString, _encoded
        ),
        "Evaluate": grpc.unary_unary_rpc_method_handler(
            servicer.evaluate, planning_pb2.EvaluateRequest.FromString, _encoded
        ),
        "EvaluateDose": grpc.unary_unary_rpc_method_handler(
            servicer.evaluate_dose, planning_pb2.EvaluateDoseRequest.FromString, _encoded
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))
    return (SERVICE_NAME,)
