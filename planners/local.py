"""Planning in this process; the same calls and answers as `trocar.planners.servicer.client`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trocar.planners import intake, pipeline
from trocar.planners.io.identity import read_identity
from trocar.planners.io.rtdose import read_rtdose
from trocar.planners.io.rtplan import read_rtplan
from trocar.planners.report import render_artifacts
from trocar.planners.requests import CaseInput, Search, Settings
from trocar.planners.stated import evaluate_stated
from trocar.runtime.errors import InvalidInput
from trocar.runtime.repository.store import open_repository

Answer = tuple[dict[str, Any], dict[str, bytes]]


def plan(
    case: CaseInput,
    settings: Settings,
    search: Search,
    *,
    repository: str | Path = "",
    require_signature: str | Path = "",
    artifacts: Sequence[str] = (),
    progress: Callable[[float], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Answer:
    """Search for a plan and prove it.

    Parameters
    ----------
    repository, require_signature : where the network comes from, and whose signature it needs; as in
        `trocar.runtime.repository.store.open_repository`.
    artifacts : names of the files to render.
    progress : told the finished share of the search, 0 to 1.
    stop : asked every few ms; once true the best plan so far is proved.

    Returns
    -------
    The `plan --json` document, and the artifacts by name.
    """
    request = intake.plan_request(settings, search)
    models = open_repository(repository, require_signature=require_signature)
    read, read_ms = intake.timed_case(case)
    result = pipeline.plan_case(
        read, request, repository=models, progress=progress, stop=stop, read_ms=read_ms
    )
    return _answer(result, artifacts)


def evaluate(
    case: CaseInput,
    settings: Settings,
    plan_file: bytes,
    *,
    index: int = 0,
    dose_grid_mm: float | None = None,
    artifacts: Sequence[str] = (),
) -> Answer:
    """Prove a plan that exists: the content of a plan.json, a `*_seeds.json` or an RT Plan."""
    grid_mm = intake.check_dose_grid_mm(1.0 if dose_grid_mm is None else dose_grid_mm)
    given = intake.evaluation(settings, plan_file, index=index)
    read, read_ms = intake.timed_case(case)
    result = pipeline.evaluate_plan(
        read, given.plan, given.request, dose_grid_mm=grid_mm, read_ms=read_ms, more=given.findings(read)
    )
    return _answer(result, artifacts)


def evaluate_rtdose(
    case: CaseInput,
    settings: Settings,
    plan_file: bytes,
    dose_file: bytes,
    *,
    treated: str = "",
) -> dict[str, Any]:
    """Prove an HDR RT Plan against the RT Dose that came with it; see `trocar.planners.stated`.

    Parameters
    ----------
    settings : source and prescription count; the rest is the plan's own.
    treated : local date and time that the source decays to; empty for the plan's own.

    Returns
    -------
    The `evaluate --rtdose --json` document.
    """
    source, moment = intake.hdr_source(settings), intake.treated_at(treated)
    if case.rtstruct is None:
        raise InvalidInput("expected a DICOM RTSTRUCT as the case of an RTDOSE, got another kind of case")
    plan, dose = read_rtplan(plan_file), read_rtdose(dose_file)
    return evaluate_stated(
        intake.read_case(case),
        read_identity(case.rtstruct),
        plan,
        dose,
        source,
        prescription_gy=settings.prescription_gy,
        treated=moment,
    )


def _answer(result: pipeline.PlanResult, artifacts: Sequence[str]) -> Answer:
    return result.document(), render_artifacts(result, artifacts) if artifacts else {}
