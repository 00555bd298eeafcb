"""Is a plan still what was planned, and is it valid? Nothing that it says of itself is taken for granted."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np

from trocar.planners import intake, pipeline
from trocar.planners.approval.submission import PLAN_DCM, Submission
from trocar.planners.io.plans import plan_sha256
from trocar.planners.io.rtplan import read_rtplan
from trocar.planners.novelty import novelty_findings
from trocar.planners.pipeline import PlanRequest, PlanResult
from trocar.planners.protocol import protocol_keys
from trocar.planners.requests import CaseInput, Settings
from trocar.planners.types import Finding, Plan, Validity
from trocar.runtime.canonical import sha256_of
from trocar.runtime.errors import InvalidInput, TrocarError
from trocar.runtime.repository.store import Model, Repository

SAME_MM = 0.01
SAME_SHARE = 1e-6


@dataclass(frozen=True, slots=True)
class Change:
    """Something that is not what the plan was made from."""

    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.what}: expected {self.expected}, got {self.found}"


@dataclass(frozen=True, slots=True)
class Checked:
    """What changed since the plan was made; where nothing did, the plan's proof, computed anew."""

    changes: tuple[Change, ...]
    result: PlanResult | None

    @property
    def failed(self) -> tuple[Finding, ...]:
        """Findings that make the plan unacceptable."""
        findings = self.result.validity.findings if self.result else ()
        return tuple(finding for finding in findings if finding.severity == "fail")


def check(submission: Submission, case: CaseInput, settings: Settings, repository: Repository) -> Checked:
    """Check a plan against its own digests, then compute dose, DVHs and validity from its input.

    Parameters
    ----------
    case : from `find_case`.
    settings : protocol and source where they are a centre's own files; a protocol left open is the plan's.
    repository : where its model is.

    Raises
    ------
    InvalidInput, ModelNotFound
        The plan or the case cannot be read, or the protocol or source is not known.
    """
    model, model_changes = _model(submission, repository)
    changes = [*_plan_changes(submission), *_case_changes(submission, case), *model_changes]
    if changes:
        return Checked(tuple(changes), None)
    plan, request = _request(submission, settings)
    changes = [*_rule_changes(submission, request), *_dicom_changes(submission, plan)]
    if changes:
        return Checked(tuple(changes), None)
    read = intake.read_case(case)
    result = pipeline.evaluate_plan(read, plan, request)
    if model is not None:
        unlike = novelty_findings(result.anatomy, model.manifest.novelty)
        result = replace(result, validity=Validity((*result.validity.findings, *unlike)))
    return Checked((), result)


def _plan_changes(submission: Submission) -> Iterator[Change]:
    yield from _differs("plan", submission.stated("plan_sha256"), plan_sha256(submission.document))
    sealed = submission.dicom
    if sealed is None:
        return
    if not sealed.whole:
        yield Change(PLAN_DCM, f"the bytes of its seal {sealed.seal[:12]}", "others")
    if sha256_of(sealed.document) != sha256_of(submission.document):
        yield Change(PLAN_DCM, "the plan of the plan.json", "another")


def _case_changes(submission: Submission, case: CaseInput) -> Iterator[Change]:
    """A file is its digest, a phantom its number. Nothing else of a case's name goes to the log."""
    data, stated = case.nrrd or case.rtstruct, submission.stated("input_sha256")
    if data is not None:
        yield from _differs("input", stated, hashlib.sha256(data).hexdigest())
    elif stated or submission.stated("case") != case.name:
        yield Change("input", stated or "another phantom", f"phantom {case.phantom_seed}")


def _model(submission: Submission, repository: Repository) -> tuple[Model | None, list[Change]]:
    """The model that proposed the plan, checked against its manifest, and the manifest against the plan."""
    said = submission.stated("model")
    if not said:
        expected = "a model" if submission.stated("start") == "gan" else ""
        return None, list(_differs("model", expected, ""))
    name, _, version = said.partition("/")
    try:
        model = repository.open(name, int(version) if version.isdecimal() else 0)
    except TrocarError as error:
        return None, [Change("model", said, str(error))]
    found = model.manifest.files.get("model.onnx", "")
    return model, list(_differs("model", submission.stated("model_sha256"), found))


def _request(submission: Submission, settings: Settings) -> tuple[Plan, PlanRequest]:
    if not settings.protocol:
        key = submission.stated("protocol")
        if key not in protocol_keys():
            raise InvalidInput(
                f'the plan was made under "{key}", which is not shipped: give its file with --protocol'
            )
        settings = replace(settings, protocol=key)
    evaluation = intake.evaluation(settings, submission.document, index=0)
    return evaluation.plan, evaluation.request


def _rule_changes(submission: Submission, request: PlanRequest) -> Iterator[Change]:
    for what, used in (("protocol", request.protocol), ("source", request.source)):
        yield from _differs(what, submission.stated(f"{what}_sha256"), sha256_of(asdict(used)))


def _dicom_changes(submission: Submission, plan: Plan) -> Iterator[Change]:
    """Whether the RT Plan's own seeds, strength and prescription are those of its document."""
    if submission.dicom is None:
        return
    stated = read_rtplan(submission.dicom_bytes).seed_plan(plan.source)
    # An applicator's ID holds 16 characters of a label.
    ours, theirs = (
        sorted((one.label[:16], one.x_mm, one.y_mm, z) for one in needles for z in one.seeds_z_mm)
        for needles in (plan.needles, stated.needles)
    )
    same = len(ours) == len(theirs) and all(
        one[0] == other[0] and np.allclose(one[1:], other[1:], rtol=0, atol=SAME_MM)
        for one, other in zip(ours, theirs, strict=True)
    )
    same = same and math.isclose(stated.strength_u, plan.strength_u, rel_tol=SAME_SHARE)
    if not (same and math.isclose(stated.prescription_gy, plan.prescription_gy, rel_tol=SAME_SHARE)):
        yield Change(PLAN_DCM, "the seeds, strength and prescription of its plan", "others")


def _differs(what: str, expected: str, found: str) -> Iterator[Change]:
    if expected != found:
        yield Change(what, expected or "none", found or "none")
