"""`PlanningService`: reads a request, holds it to its deadline, hands it to the pipeline."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import grpc

from trocar.planners import intake, local, pipeline
from trocar.planners.generator import Generator
from trocar.planners.report import ARTIFACTS, render_artifacts
from trocar.planners.requests import Search
from trocar.planners.servicer import messages
from trocar.runtime.config import limits, parse_table
from trocar.runtime.errors import Cancelled, DeadlineExceeded, InvalidInput
from trocar.runtime.server.admission import Admission
from trocar.runtime.server.services import ServiceContext
from trocar.v1 import planning_pb2, planning_pb2_grpc

# Less than this may not hold a search of the default number of moves.
TIGHT_MS = 2_000.0
SERVICE_NAME = planning_pb2.DESCRIPTOR.services_by_name["PlanningService"].full_name


@dataclass(frozen=True, slots=True)
class PlanningConfig:
    """The `[services.planning]` table.

    Parameters
    ----------
    max_budget_ms : the longest search a caller may ask for.
    max_moves : the same as a number of moves over all chains.
    reserve_ms : of a caller's deadline, what is kept for dose, DVH and validity of each plan; the search gets
        the rest, and a deadline that leaves it nothing is refused at once.
    render_ms : what is kept besides where artifacts are asked for.
    """

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
        self._gone = threading.Event()
        if not context.add_callback(self._gone.set):
            self._gone.set()
        self._reserve_s = reserve_ms / 1000.0
        self.search_until_s = (
            None if remaining_s is None else time.monotonic() + remaining_s - self._reserve_s
        )

    def gone(self) -> bool:
        """Whether the caller cancelled, left, or its deadline passed."""
        return self._gone.is_set()

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
                f"expected a deadline of more than {1000 * self._reserve_s:.0f} ms, "
                f"got {max(0.0, left_ms + 1000 * self._reserve_s):.0f} ms"
            )
        return left_ms

    def stop(self) -> bool:
        """Whether the search has to end now."""
        late = self.search_until_s is not None and time.monotonic() >= self.search_until_s
        return late or self.gone()

    def require_caller(self) -> None:
        """Raise `Cancelled` where nobody waits for the result."""
        if self.gone():
            raise Cancelled("the caller went away")


class PlanningServicer(planning_pb2_grpc.PlanningServiceServicer):
    """The service.

    Parameters
    ----------
    config : its limits.
    admission : who may compute.
    generator : ready for requests that start with its proposal.
    """

    def __init__(self, config: PlanningConfig, admission: Admission, generator: Generator) -> None:
        self._config = config
        self._generator = generator
        self._admission = admission

    def Plan(  # noqa: N802
        self, request: planning_pb2.PlanRequest, context: Any
    ) -> planning_pb2.PlanReply:
        """Search for a plan and prove it."""
        plans = 1 + min(request.search.alternatives, intake.MAX_ALTERNATIVES)
        call = Call(context, self._config.kept_ms(request.artifacts, plans))
        call.search_left_ms()
        _check_artifacts(request.artifacts)
        search = self._bounded(messages.search(request.search))
        asked = intake.plan_request(messages.settings(request.settings), search)
        with self._admission.slot(start_by_s=call.search_until_s, abandoned=call.gone):
            case, read_ms = intake.timed_case(messages.case_input(request.case))
            asked = _within(asked, call.search_left_ms())
            result = pipeline.plan_case(
                case, asked, generator=self._generator, stop=call.stop, read_ms=read_ms
            )
            return _reply(result, request.artifacts, call)

    def Evaluate(  # noqa: N802
        self, request: planning_pb2.EvaluateRequest, context: Any
    ) -> planning_pb2.PlanReply:
        """Prove a plan that exists."""
        call = Call(context, self._config.kept_ms(request.artifacts))
        call.search_left_ms()
        _check_artifacts(request.artifacts)
        grid_mm = intake.check_dose_grid_mm(request.dose_grid_mm if request.HasField("dose_grid_mm") else 1.0)
        given = intake.evaluation(
            messages.settings(request.settings),
            messages.plan_content(request),
            index=request.index,
        )
        with self._admission.slot(start_by_s=call.search_until_s, abandoned=call.gone):
            case, read_ms = intake.timed_case(messages.case_input(request.case))
            result = pipeline.evaluate_plan(
                case,
                given.plan,
                given.request,
                dose_grid_mm=grid_mm,
                read_ms=read_ms,
                more=given.findings(case),
            )
            return _reply(result, request.artifacts, call)

    def EvaluateDose(  # noqa: N802
        self, request: planning_pb2.EvaluateDoseRequest, context: Any
    ) -> planning_pb2.EvaluateDoseReply:
        """Compare an HDR plan's dose with the one that came with it."""
        call = Call(context, self._config.reserve_ms)
        call.search_left_ms()
        with self._admission.slot(start_by_s=call.search_until_s, abandoned=call.gone):
            document = local.evaluate_rtdose(
                messages.case_input(request.case),
                messages.dose_settings(request),
                request.rtplan,
                request.rtdose,
                treated=request.treated,
            )
        return messages.dose_reply_message(document)

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


def _within(asked: pipeline.PlanRequest, left_ms: float | None) -> pipeline.PlanRequest:
    """Fit the search into what the deadline leaves.

    An exact number of moves stays one, and is cut short if need be. A default search under a tight
    deadline anneals within what is left, because a search cut short while hot is a poor plan.
    """
    if left_ms is None or asked.moves is not None:
        return asked
    if asked.budget_ms is None:
        return replace(asked, budget_ms=left_ms) if left_ms < TIGHT_MS else asked
    return replace(asked, budget_ms=min(asked.budget_ms, left_ms))


def _check_artifacts(names: Sequence[str]) -> None:
    for name in names:
        if name not in ARTIFACTS:
            raise InvalidInput(f"expected artifacts among {', '.join(ARTIFACTS)}, got {name!r}")


def _reply(result: pipeline.PlanResult, names: Sequence[str], call: Call) -> planning_pb2.PlanReply:
    # Rendering takes longer than a dose; nobody may be waiting any more.
    call.require_caller()
    artifacts = render_artifacts(result, tuple(names)) if names else {}
    return messages.reply_message(result.document(), artifacts)


def add_service(server: grpc.Server, context: ServiceContext) -> Sequence[str]:
    """Add the service; see `trocar.runtime.server.services`."""
    config = parse_table(PlanningConfig, context.settings, where="[services.planning]")
    servicer = PlanningServicer(config, context.admission, Generator.open(context.repository))
    planning_pb2_grpc.add_PlanningServiceServicer_to_server(servicer, server)
    return (SERVICE_NAME,)
