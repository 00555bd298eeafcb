"""What is submitted for approval: a plan as `trocar plan -o` wrote it, and the case it was made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trocar.planners.files import MAX_TEXT_BYTES, case_from_spec, read_bytes
from trocar.planners.io.dicom import is_dicom
from trocar.planners.io.named import clean_name
from trocar.planners.io.plans import parse_plan
from trocar.planners.io.sealed import SealedPlan, read_sealed
from trocar.planners.requests import CaseInput
from trocar.runtime.errors import InvalidInput

PLAN_JSON, PLAN_DCM = "plan.json", "plan.dcm"
_CASE_SUFFIXES = (".seg.nrrd", ".nrrd", ".dcm", "")


@dataclass(frozen=True, slots=True)
class Submission:
    """A plan, from a folder, a plan.json or a plan.dcm.

    Parameters
    ----------
    document : the plan document of the plan.json; without one, that of the plan.dcm.
    dicom, dicom_bytes : the RT Plan, where there is one.
    folder : where it lies.
    """

    document: Mapping[str, Any]
    dicom: SealedPlan | None
    dicom_bytes: bytes
    folder: Path

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What the plan says it was made from."""
        found = self.document.get("provenance")
        return found if isinstance(found, Mapping) else {}

    def stated(self, key: str) -> str:
        """Return a text of the provenance as one line; empty where there is none."""
        return clean_name(str(self.provenance.get(key) or ""))


def read_submission(path: Path) -> Submission:
    """Read a plan.

    Raises
    ------
    InvalidInput
        No such file, or no plan.
    """
    folder, json_bytes, dicom_bytes = path, b"", b""
    if path.is_dir():
        json_bytes = read_bytes(path / PLAN_JSON, "plan", MAX_TEXT_BYTES)
        if (path / PLAN_DCM).exists():
            dicom_bytes = read_bytes(path / PLAN_DCM, "plan", MAX_TEXT_BYTES)
    else:
        folder = path.absolute().parent
        data = read_bytes(path, "plan", MAX_TEXT_BYTES)
        json_bytes, dicom_bytes = (b"", data) if is_dicom(data) else (data, b"")
    sealed = read_sealed(dicom_bytes) if dicom_bytes else None
    document = parse_plan(json_bytes) if sealed is None or json_bytes else sealed.document
    if "approval" in document or (sealed is not None and sealed.entry):
        raise InvalidInput(f"expected a plan that nobody approved yet, got an approved copy: {path}")
    return Submission(document, sealed, dicom_bytes, folder)


def find_case(submission: Submission, spec: str | None) -> CaseInput:
    """Read the case of a plan, asked of its reader as the plan says it was.

    Parameters
    ----------
    spec : what `trocar plan` calls CASE; absent, a file of the case's name in the plan's folder, in the
        folder that holds it, or in the current one.

    Raises
    ------
    InvalidInput
        There is none, or it cannot be read.
    """
    name = submission.stated("case")
    if spec is None and not name.startswith("phantom:"):
        places = (submission.folder, submission.folder.absolute().parent, Path())
        paths = [place / f"{name}{suffix}" for place in places for suffix in _CASE_SUFFIXES]
        if not name or Path(name).name != name or not any(path.is_file() for path in paths):
            raise InvalidInput(
                f'expected the case "{name}" beside the plan or in the current folder, found none: '
                "say where it is with --case"
            )
        spec = str(next(path for path in paths if path.is_file()))
    labels, roles = (submission.provenance.get(key) or {} for key in ("labels", "roles"))
    if not isinstance(labels, Mapping) or not isinstance(roles, Mapping):
        raise InvalidInput("plan: provenance: expected labels and roles by name, got something else")
    given = case_from_spec(spec or name, labels={}, roles={})
    try:
        return replace(
            given,
            labels={str(role): int(value) for role, value in labels.items()},
            roles={str(role): str(value) for role, value in roles.items()},
        )
    except (TypeError, ValueError):
        raise InvalidInput("plan: provenance: expected labels that are whole numbers") from None
