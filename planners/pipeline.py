"""From a case to a checked plan: lattice -> volumes -> search -> dose -> DVH -> validity."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from trocar.planners.dose.engine import DoseEngine
from trocar.planners.dose.source import SourceModel
from trocar.planners.dvh import Dvh, dvh, role_metrics
from trocar.planners.generator import Generator
from trocar.planners.geometry import anatomy, coverage_notes, default_lattice, evaluation_grid
from trocar.planners.io.plans import plan_document, with_digest
from trocar.planners.novelty import novelty_findings
from trocar.planners.problem import build_problem
from trocar.planners.protocol import Protocol
from trocar.planners.refine import CPU_CHAINS, MAX_CHAINS, Effort, Found, Outcome, Progress, Stop, refine
from trocar.planners.starts import starts
from trocar.planners.types import (
    Anatomy,
    Case,
    Finding,
    Float32Array,
    Lattice,
    Plan,
    Planes,
    Template,
    Validity,
)
from trocar.planners.validity import check
from trocar.runtime.canonical import sha256_of
from trocar.runtime.repository.store import Repository

DEFAULT_MOVES = 500_000


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What is asked for. Without `moves` and `budget_ms` the search makes `DEFAULT_MOVES` a chain.

    `alternatives` are other plans wanted besides. `chains` and `device` are as in
    `trocar.planners.refine.Effort`, `start` is one of `trocar.planners.start_kinds.START_KINDS`.
    """

    protocol: Protocol
    source: SourceModel
    strength_u: float
    prescription_gy: float
    template: Template | None = None
    planes: Planes | None = None
    budget_ms: float | None = None
    moves: int | None = None
    seed: int = 0
    chains: int | None = None
    start: str = "gan"
    alternatives: int = 0
    device: str = "cpu"

    @property
    def effort(self) -> Effort:
        """How long the search may take."""
        unbounded = self.moves is None and self.budget_ms is None
        return Effort(DEFAULT_MOVES if unbounded else self.moves, self.budget_ms, self.chains, self.device)


@dataclass(frozen=True, slots=True)
class PlanResult:
    """A plan with its proof: the dose it was judged by, its DVHs and every rule checked.

    `alternatives` are the other plans that were asked for, proved alike.
    """

    case: Case
    plan: Plan
    anatomy: Anatomy
    dose_gy: Float32Array
    dvhs: Mapping[str, Dvh]
    metrics: Mapping[str, Mapping[str, float]]
    validity: Validity
    timing_ms: Mapping[str, float]
    provenance: Mapping[str, Any]
    protocol: Protocol
    source: SourceModel
    alternatives: tuple[PlanResult, ...] = ()

    def document(self) -> dict[str, Any]:
        """The document that `trocar plan --json` prints, in plain JSON types."""
        return {
            **self._judged(),
            "alternatives": [other._judged() for other in self.alternatives],
            "timing_ms": dict(self.timing_ms),
            "provenance": dict(self.provenance),
        }

    def _judged(self) -> dict[str, Any]:
        return {
            "plan": plan_document(self.plan),
            "metrics": {role: dict(values) for role, values in self.metrics.items()},
            "seeds": len(self.plan.seeds_xyz_mm),
            "needles": len(self.plan.needles),
            "total_strength_u": self.plan.total_strength_u,
            "validity": {
                "acceptable": self.validity.acceptable,
                "findings": [
                    {name: getattr(finding, name) for name in finding.__slots__}
                    for finding in self.validity.findings
                ],
            },
        }


class Stopwatch:
    """Stage times, ms, in the order the stages ran."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block under this name; blocks of one name add up."""
        began = time.perf_counter()
        try:
            yield
        finally:
            took = 1000.0 * (time.perf_counter() - began)
            self._stages[name] = self._stages.get(name, 0.0) + took

    def timing_ms(self) -> dict[str, float]:
        """All stages so far, and their total."""
        total = 1000.0 * (time.perf_counter() - self._start)
        return {**{name: round(took, 3) for name, took in self._stages.items()}, "total": round(total, 3)}


def plan_case(
    case: Case,
    request: PlanRequest,
    *,
    generator: Generator | None = None,
    repository: Repository | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
    read_ms: float = 0.0,
) -> PlanResult:
    """Plan a case and prove the plan.

    Parameters
    ----------
    generator : where the request starts with `gan`; where none is given, that of the repository is opened.
    repository : where models come from; the shipped ones where it is None.
    progress, stop : as in `trocar.planners.refine.refine`.
    read_ms : how long reading the case took, for the timing.

    Raises
    ------
    InvalidInput
        The case or the request cannot be used. A poor plan is no error: see `PlanResult.validity`.
    """
    request.protocol.require_sane(strength_u=request.strength_u, prescription_gy=request.prescription_gy)
    watch = Stopwatch()
    engine = DoseEngine(request.source)
    with watch.stage("generate"):
        lattice, assumed = default_lattice(case, request.template, request.planes)
        volumes = anatomy(case, evaluation_grid(case, lattice))
        problem = build_problem(
            volumes,
            lattice,
            engine,
            request.protocol,
            strength_u=request.strength_u,
            prescription_gy=request.prescription_gy,
            seed=request.seed,
        )
        if request.start == "gan" and generator is None:
            generator = Generator.open(repository)
        begin = starts(
            request.start,
            problem,
            volumes,
            engine,
            strength_u=request.strength_u,
            prescription_gy=request.prescription_gy,
            seed=request.seed,
            count=min(request.chains or CPU_CHAINS, MAX_CHAINS["cpu"]),
            generator=generator,
        )
    with watch.stage("refine"):
        outcome = refine(
            problem,
            request.effort,
            seed=request.seed,
            starts=begin,
            keep=1 + request.alternatives,
            progress=progress,
            stop=stop,
        )
    used = generator if request.start == "gan" else None
    provenance = _provenance(case, request, used) | _search_record(request, outcome)
    case = replace(case, assumptions=(*case.assumptions, *assumed))
    unlike = novelty_findings(volumes, used.novelty) if used is not None else ()

    def prove(found: Found) -> PlanResult:
        record = provenance | {"cost": found.cost}
        plan = _plan(request, found, lattice, record)
        return _proven(case, plan, volumes, engine, request, watch, plan.provenance, read_ms, unlike)

    # The best plan comes last, so that its times hold all of them.
    others = tuple(prove(found) for found in outcome.plans[1:])
    return replace(prove(outcome.plans[0]), alternatives=others)


def evaluate_plan(
    case: Case,
    plan: Plan,
    request: PlanRequest,
    *,
    dose_grid_mm: float = 1.0,
    read_ms: float = 0.0,
    more: tuple[Finding, ...] = (),
) -> PlanResult:
    """Dose, DVH and validity of a plan that exists, computed anew from its seeds.

    Parameters
    ----------
    dose_grid_mm : voxel of the evaluation grid.
    more : what else was found while reading the plan.
    """
    request.protocol.require_sane(strength_u=plan.strength_u, prescription_gy=plan.prescription_gy)
    watch = Stopwatch()
    engine = DoseEngine(request.source)
    with watch.stage("generate"):
        held = plan.lattice
        lattice, assumed = (
            (held, []) if held is not None else default_lattice(case, request.template, request.planes)
        )
        volumes = anatomy(case, evaluation_grid(case, lattice, spacing_mm=dose_grid_mm))
    case = replace(case, assumptions=(*case.assumptions, *assumed))
    record = _provenance(case, request)
    return _proven(case, plan, volumes, engine, request, watch, record, read_ms, more)


def _proven(
    case: Case,
    plan: Plan,
    volumes: Anatomy,
    engine: DoseEngine,
    request: PlanRequest,
    watch: Stopwatch,
    provenance: Mapping[str, Any],
    read_ms: float,
    more: tuple[Finding, ...] = (),
) -> PlanResult:
    with watch.stage("dose"):
        dose_gy = engine.grid_gy(plan.seeds_xyz_mm, plan.strength_u, volumes.grid)
    with watch.stage("dvh"):
        dvhs = dvh(dose_gy, volumes, prescription_gy=plan.prescription_gy)
        metrics = role_metrics(dvhs, plan.prescription_gy)
    with watch.stage("validity"):
        case = replace(case, assumptions=(*case.assumptions, *coverage_notes(case, volumes)))
        validity = check(
            plan, case, volumes, dvhs, dose_gy, request.source, request.protocol, seed=request.seed
        )
        validity = Validity((*validity.findings, *more))
    timing = watch.timing_ms()
    timing = {"read": round(read_ms, 3), **timing, "total": round(timing["total"] + read_ms, 3)}
    return PlanResult(
        case,
        plan,
        volumes,
        dose_gy,
        dvhs,
        metrics,
        validity,
        timing,
        provenance,
        request.protocol,
        request.source,
    )


def _plan(request: PlanRequest, found: Found, lattice: Lattice, provenance: Mapping[str, Any]) -> Plan:
    return with_digest(
        Plan(
            source=request.source.key,
            strength_u=request.strength_u,
            prescription_gy=request.prescription_gy,
            needles=found.needles,
            lattice=lattice,
            provenance=provenance,
        )
    )


def _provenance(case: Case, request: PlanRequest, generator: Generator | None = None) -> dict[str, Any]:
    asked = {"labels": dict(case.labels), "roles": dict(case.roles)}
    return {name: value for name, value in asked.items() if value} | {
        "version": version("trocar"),
        "case": case.name,
        "input_sha256": case.input_sha256,
        "model": generator.name if generator else "",
        "model_sha256": generator.sha256 if generator else "",
        "device": "cpu",
        "protocol": request.protocol.key,
        "protocol_sha256": sha256_of(asdict(request.protocol)),
        "source_sha256": sha256_of(asdict(request.source)),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _search_record(request: PlanRequest, outcome: Outcome) -> dict[str, Any]:
    return {
        "start": request.start,
        "seed": request.seed,
        "chains": outcome.chains,
        "device": outcome.device,
        "moves": outcome.moves,
        "stopped_early": outcome.stopped,
    }
