"""What a planning process runs: the bytes of a request in, those of its reply out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from trocar.planners import intake, local, pipeline
from trocar.planners.generator import Generator
from trocar.planners.report import render_artifacts
from trocar.planners.servicer import messages
from trocar.runtime.errors import DeadlineExceeded
from trocar.runtime.repository.store import open_repository
from trocar.runtime.server.allocator import keep_large_buffers
from trocar.runtime.server.worker import Patience
from trocar.v1 import planning_pb2

# Less than this may not hold a search of the default number of moves.
TIGHT_MS = 2_000.0
DEFAULT_DOSE_GRID_MM = 1.0


def open_planner(folder: str, require_signature: str, version: int | None = None) -> Planner:
    """Open a planner as a worker runs it; arguments as of `open_repository`, and the network's version."""
    keep_large_buffers()
    return Planner(
        Generator.open(open_repository(folder, require_signature=require_signature), version=version)
    )


class Planner:
    """Plans and evaluates.

    Parameters
    ----------
    generator : ready for requests that start with its proposal.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def __call__(self, method: str, request: bytes, patience: Patience) -> bytes:
        """Answer a method of the service; see `trocar.runtime.server.worker.Handler`."""
        if method == "Plan":
            asked = planning_pb2.PlanRequest.FromString(request)
            return _reply(self._plan(asked, patience), asked.artifacts, patience)
        if method == "EvaluateDose":
            return _evaluate_dose(planning_pb2.EvaluateDoseRequest.FromString(request))
        given = planning_pb2.EvaluateRequest.FromString(request)
        return _reply(_evaluate(given), given.artifacts, patience)

    def _plan(self, request: planning_pb2.PlanRequest, patience: Patience) -> pipeline.PlanResult:
        asked = intake.plan_request(messages.settings(request.settings), messages.search(request.search))
        case, read_ms = intake.timed_case(messages.case_input(request.case))
        asked = within(asked, patience.left_ms())
        return pipeline.plan_case(case, asked, generator=self._generator, stop=patience.stop, read_ms=read_ms)


def _evaluate(request: planning_pb2.EvaluateRequest) -> pipeline.PlanResult:
    given = intake.evaluation(
        messages.settings(request.settings), messages.plan_content(request), index=request.index
    )
    case, read_ms = intake.timed_case(messages.case_input(request.case))
    return pipeline.evaluate_plan(
        case,
        given.plan,
        given.request,
        dose_grid_mm=dose_grid_mm(request),
        read_ms=read_ms,
        more=given.findings(case),
    )


def _evaluate_dose(request: planning_pb2.EvaluateDoseRequest) -> bytes:
    document = local.evaluate_rtdose(
        messages.case_input(request.case),
        messages.dose_settings(request),
        request.rtplan,
        request.rtdose,
        treated=request.treated,
    )
    encoded: bytes = messages.dose_reply_message(document).SerializeToString()
    return encoded


def dose_grid_mm(request: planning_pb2.EvaluateRequest) -> float:
    """Return the voxel of the evaluation grid, checked."""
    given = request.dose_grid_mm if request.HasField("dose_grid_mm") else DEFAULT_DOSE_GRID_MM
    return intake.check_dose_grid_mm(given)


def within(asked: pipeline.PlanRequest, left_ms: float | None) -> pipeline.PlanRequest:
    """Fit the search into what the deadline leaves.

    An exact number of moves stays one, and is cut short if need be. A default search under a tight
    deadline anneals within what is left, because a search cut short while hot is a poor plan.

    Raises
    ------
    DeadlineExceeded
        Reading the case took all of it.
    """
    if left_ms is None:
        return asked
    if left_ms <= 0:
        raise DeadlineExceeded("the deadline left no time for the search after the case was read")
    if asked.moves is not None:
        return asked
    if asked.budget_ms is None:
        return replace(asked, budget_ms=left_ms) if left_ms < TIGHT_MS else asked
    return replace(asked, budget_ms=min(asked.budget_ms, left_ms))


def _reply(result: pipeline.PlanResult, names: Sequence[str], patience: Patience) -> bytes:
    # Rendering takes longer than a dose; nobody may be waiting any more.
    patience.require_caller()
    artifacts = render_artifacts(result, tuple(names)) if names else {}
    encoded: bytes = messages.reply_message(result.document(), artifacts).SerializeToString()
    return encoded
