"""The client: one call to a `trocar serve`, its errors as the project's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grpc

from trocar.planners.requests import CaseInput, Search, Settings
from trocar.planners.servicer import messages
from trocar.runtime.channel import Access, open_channel
from trocar.runtime.errors import Unavailable
from trocar.runtime.server.interceptors import error_of
from trocar.v1 import planning_pb2, planning_pb2_grpc

Answer = tuple[dict[str, Any], dict[str, bytes]]
Reply = TypeVar("Reply")


def plan(
    server: Access,
    case: CaseInput,
    settings: Settings,
    search: Search,
    *,
    artifacts: Sequence[str] = (),
    timeout_s: float | None = None,
) -> Answer:
    """Call `PlanningService.Plan`.

    Parameters
    ----------
    server : where it is, and what it takes to be let in.
    artifacts : names of the files to render.
    timeout_s : the call's deadline; it bounds the search.

    Returns
    -------
    The `plan --json` document, and the artifacts by name.

    Raises
    ------
    TrocarError
        What the server refused or failed at; `Unavailable` where there is none.
    """
    request = planning_pb2.PlanRequest(
        case=messages.case_message(case),
        settings=messages.settings_message(settings),
        search=messages.search_message(search),
        artifacts=artifacts,
    )
    reply = _call(server, lambda stub: stub.Plan(request, timeout=timeout_s))
    return messages.read_reply(reply, artifacts)


def evaluate(
    server: Access,
    case: CaseInput,
    settings: Settings,
    plan_file: bytes,
    *,
    index: int = 0,
    dose_grid_mm: float | None = None,
    artifacts: Sequence[str] = (),
    timeout_s: float | None = None,
) -> Answer:
    """Call `PlanningService.Evaluate`; as `plan`, for the content of a plan file."""
    request = planning_pb2.EvaluateRequest(
        case=messages.case_message(case),
        settings=messages.settings_message(settings),
        plan_file=plan_file,
        index=index,
        dose_grid_mm=dose_grid_mm,
        artifacts=artifacts,
    )
    reply = _call(server, lambda stub: stub.Evaluate(request, timeout=timeout_s))
    return messages.read_reply(reply, artifacts)


def evaluate_rtdose(
    server: Access,
    case: CaseInput,
    settings: Settings,
    plan_file: bytes,
    dose_file: bytes,
    *,
    treated: str = "",
    timeout_s: float | None = None,
) -> dict[str, Any]:
    """Call `PlanningService.EvaluateDose`; as `trocar.planners.local.evaluate_rtdose`."""
    request = messages.dose_message(case, settings, plan_file, dose_file, treated)
    return messages.document_of(_call(server, lambda stub: stub.EvaluateDose(request, timeout=timeout_s)))


def _call(server: Access, call: Callable[[planning_pb2_grpc.PlanningServiceStub], Reply]) -> Reply:
    with open_channel(server) as channel:
        try:
            return call(planning_pb2_grpc.PlanningServiceStub(channel))
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
            raised = error_of(code, details)
            if isinstance(raised, Unavailable):
                raised = Unavailable(f"no server at {server.address}: {details}")
            raise raised from error
