"""From what a caller gives to what the pipeline takes; the one way in, for the command line and for gRPC.

Nothing here reads a path: bytes and texts come in, so that a remote caller cannot name a file of the
server's, and the same request means the same thing on both ways.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from trocar.planners.case import case_from_bytes, case_from_contours, load_case
from trocar.planners.dose.source import (
    SourceModel,
    load_source,
    require_strength_u,
    source_from_document,
    source_keys,
)
from trocar.planners.geometry.lattice import check_planes, check_template
from trocar.planners.io.dicom import is_dicom
from trocar.planners.io.named import clean_name
from trocar.planners.io.plans import read_plan
from trocar.planners.io.rtplan import BrachyPlan, read_rtplan
from trocar.planners.pipeline import PlanRequest
from trocar.planners.protocol import Protocol, load_protocol, parse_protocol, protocol_keys
from trocar.planners.refine import require_chains
from trocar.planners.requests import CaseInput, Search, Settings
from trocar.planners.rtplan_check import named_source, rtplan_findings
from trocar.planners.start_kinds import START_KINDS
from trocar.planners.types import Case, Finding, Plan, require
from trocar.runtime.errors import InvalidInput, ModelNotFound

MAX_ALTERNATIVES = 8
MAX_DOCUMENT_CHARS = 4 << 20
PITCH_RANGE_MM = (1.0, 20.0)
DOSE_GRID_RANGE_MM = (0.5, 5.0)


def timed_case(given: CaseInput) -> tuple[Case, float]:
    """Read the case; also how long that took, ms."""
    start = time.perf_counter()
    case = read_case(given)
    return case, 1000.0 * (time.perf_counter() - start)


def read_case(given: CaseInput) -> Case:
    """Read the case.

    Raises
    ------
    InvalidInput
        Nothing or something unusable was given; nothing was computed.
    """
    return replace(_read_case(given), labels=dict(given.labels), roles=dict(given.roles))


def _read_case(given: CaseInput) -> Case:
    labels, roles = given.labels or None, given.roles or None
    if given.nrrd is not None:
        return case_from_bytes(
            given.nrrd, filename_hint=given.name or "case.nrrd", labels=labels, roles=roles
        )
    if given.rtstruct is not None:
        return case_from_bytes(
            given.rtstruct, filename_hint=given.name or "case.dcm", labels=labels, roles=roles
        )
    if given.contours is not None:
        return case_from_contours(given.contours, name=given.name or "contours", roles=roles)
    if given.phantom_seed is not None:
        return load_case(f"phantom:{given.phantom_seed}", labels=labels, roles=roles)
    raise InvalidInput("expected a case (NRRD, RTSTRUCT, contours or a phantom's seed), got none")


def plan_request(settings: Settings, search: Search) -> PlanRequest:
    """Resolve names, texts and defaults into the pipeline's request.

    Raises
    ------
    ModelNotFound
        No protocol or source of that name.
    InvalidInput
        A figure or a text cannot be used.
    """
    protocol = _protocol(settings)
    source = _source(settings, protocol.source)
    strength_u = protocol.strength_u if settings.strength_u is None else settings.strength_u
    prescription_gy = (
        protocol.prescription_gy if settings.prescription_gy is None else settings.prescription_gy
    )
    require_strength_u(source, strength_u)
    protocol.require_sane(strength_u=strength_u, prescription_gy=prescription_gy)
    if settings.template is not None:
        check_template(settings.template)
    if settings.planes is not None:
        check_planes(settings.planes)
    _check_search(search)
    request = PlanRequest(
        protocol=protocol,
        source=source,
        strength_u=strength_u,
        prescription_gy=prescription_gy,
        template=settings.template,
        planes=settings.planes,
        budget_ms=search.budget_ms,
        moves=search.moves,
        seed=search.seed,
        chains=search.chains,
        alternatives=search.alternatives,
        device=search.device,
    )
    return replace(request, start=search.start or request.start)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A plan that exists and how to evaluate it; `rtplan` is the DICOM file that it came from, if it did."""

    plan: Plan
    request: PlanRequest
    rtplan: BrachyPlan | None

    def findings(self, case: Case) -> tuple[Finding, ...]:
        """What the plan's file says of itself, held against the case and the source.

        Raises
        ------
        InvalidInput
            They do not belong together; see `trocar.planners.rtplan_check`.
        """
        return rtplan_findings(case, self.rtplan, self.request.source) if self.rtplan else ()


def evaluation(settings: Settings, plan_file: bytes | Mapping[str, Any], *, index: int) -> Evaluation:
    """Read a plan and the request to evaluate it under.

    Source, strength and prescription are those of the settings; where the settings leave one open,
    those of the plan file; where it says nothing either, those of the protocol.

    Parameters
    ----------
    plan_file : content of a plan.json, a `*_seeds.json` or an RT Plan of permanent seeds, or the parsed
        document of the first.
    index : which plan of a file with several.
    """
    protocol = _protocol(settings)
    rtplan = read_rtplan(plan_file) if isinstance(plan_file, bytes) and is_dicom(plan_file) else None
    plan = (
        rtplan.seed_plan(settings.source or named_source(rtplan.source) or protocol.source)
        if rtplan
        else read_plan(
            plan_file,
            index=index,
            source=settings.source or protocol.source,
            strength_u=settings.strength_u or protocol.strength_u,
            prescription_gy=settings.prescription_gy or protocol.prescription_gy,
        )
    )
    said = replace(
        settings,
        source=settings.source or plan.source,
        strength_u=plan.strength_u if settings.strength_u is None else settings.strength_u,
        prescription_gy=plan.prescription_gy
        if settings.prescription_gy is None
        else settings.prescription_gy,
    )
    request = plan_request(said, Search())
    plan = replace(
        plan,
        source=request.source.key,
        strength_u=request.strength_u,
        prescription_gy=request.prescription_gy,
    )
    return Evaluation(plan, request, rtplan)


def hdr_source(settings: Settings) -> SourceModel:
    """Return the HDR source of the settings; a plan's own file does not say whose table it used.

    Raises
    ------
    InvalidInput
        None was named, or it is not an HDR source.
    """
    if settings.source is None and settings.source_json is None:
        raise InvalidInput("expected --source with an HDR plan, such as ir192-gammamedplus, got none")
    source = _source(settings, "")
    require(source.isotope == "Ir-192", f"--source: expected an Ir-192 source, got {source.key}")
    return source


def treated_at(text: str) -> datetime | None:
    """Read when a plan was treated; None where nothing was said.

    Raises
    ------
    InvalidInput
        Not a date and time, or one with a time zone.
    """
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError as error:
        raise InvalidInput(
            f"--treated: expected a date such as 2026-01-31T12:00, got {clean_name(text)!r}"
        ) from error
    require(
        moment is None or moment.tzinfo is None,
        "--treated: expected a local time, as DICOM has it, got one with a time zone",
    )
    return moment


def check_dose_grid_mm(value: float) -> float:
    """Return the voxel size, or refuse one that cannot be meant."""
    low, high = DOSE_GRID_RANGE_MM
    require(low <= value <= high, f"dose grid: expected {low:g} to {high:g} mm, got {value:g}")
    return value


def _protocol(settings: Settings) -> Protocol:
    if settings.protocol_toml is not None:
        _check_length("protocol", settings.protocol_toml)
        return parse_protocol(settings.protocol_toml)
    # Only shipped keys: `load_protocol` would also take a path.
    if settings.protocol not in protocol_keys():
        known = ", ".join(protocol_keys())
        raise ModelNotFound(f"expected one of the protocols {known}, got {settings.protocol!r}")
    return load_protocol(settings.protocol)


def _source(settings: Settings, default: str) -> SourceModel:
    if settings.source_json is not None:
        _check_length("source", settings.source_json)
        try:
            document = json.loads(settings.source_json)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"source: expected JSON, got {error}") from error
        return source_from_document(document)
    name = settings.source or default
    # Only shipped names: `load_source` would also take a path.
    if name.lower().endswith(".json"):
        raise ModelNotFound(f"expected one of the sources {', '.join(source_keys())}, got {name!r}")
    return load_source(name)


def _check_length(what: str, text: str) -> None:
    require(
        len(text) <= MAX_DOCUMENT_CHARS,
        f"{what}: expected at most {MAX_DOCUMENT_CHARS} characters, got {len(text)}",
    )


def _check_search(search: Search) -> None:
    require(
        search.budget_ms is None or search.moves is None, "expected a budget or a number of moves, got both"
    )
    if search.budget_ms is not None:
        _check_range("budget", search.budget_ms, 1, 3_600_000, "ms")
    if search.moves is not None:
        _check_range("moves", search.moves, 1, 1_000_000_000)
    if search.start is not None:
        known = ", ".join(START_KINDS)
        require(search.start in START_KINDS, f"start: expected one of {known}, got {search.start!r}")
    require_chains(search.chains, search.device)
    _check_range("alternatives", search.alternatives, 0, MAX_ALTERNATIVES)
    require(
        search.chains is None or search.alternatives < search.chains,
        f"alternatives: expected fewer than the {search.chains} chains, got {search.alternatives}",
    )
    _check_range("seed", search.seed, 0, 2**63 - 1)


def _check_range(what: str, value: float, low: float, high: float, unit: str = "") -> None:
    # A NaN fails the comparison too.
    require(
        low <= value <= high, f"{what}: expected {low:g} to {high:g} {unit}".rstrip() + f", got {value:g}"
    )
