"""A decision on a plan: its entry in the audit log, and the approved copy that the entry vouches for."""

from __future__ import annotations

import getpass
import io
import json
import os
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from trocar.planners.approval.check import Checked
from trocar.planners.approval.submission import PLAN_DCM, PLAN_JSON, Submission
from trocar.planners.io.dicom import RT_PLAN
from trocar.planners.io.dicom_out import plan_description
from trocar.planners.io.dicom_write import UUID_ROOT, encoded, reference
from trocar.planners.io.plans import plan_sha256
from trocar.planners.io.sealed import add_entry, digest, enter, seal
from trocar.runtime.audit import AuditLog, Entry

APPROVE, OVERRIDE, REFUSE = "approve", "override", "refuse"


@dataclass(frozen=True, slots=True)
class Reviewer:
    """Who decides, and why a plan that fails is to be used all the same; empty where it is not."""

    name: str
    override: str


def refuse(log: AuditLog, submission: Submission, checked: Checked, reviewer: Reviewer) -> Entry:
    """Record that a plan was not approved, and why."""
    changed = {change.what: [change.expected, change.found] for change in checked.changes}
    return log.append(_decided(REFUSE, submission, checked, reviewer) | {"changed": changed})


def approve(
    log: AuditLog, submission: Submission, checked: Checked, reviewer: Reviewer
) -> tuple[Entry, dict[str, bytes]]:
    """Record an approval; return its entry and the files of the approved copy.

    The entry comes first: an approval without a copy does no harm, a copy without an entry would.
    """
    at = datetime.now(UTC).replace(microsecond=0)
    uid = dicom = None
    if submission.dicom is not None:
        uid = f"{UUID_ROOT}{uuid.uuid4().int}"
        dicom = _approved_dicom(submission, checked, reviewer, uid, at)
    entry = log.append(
        _decided(OVERRIDE if checked.failed else APPROVE, submission, checked, reviewer)
        | {"approved_uid": uid or "", "approved_sha256": digest(dicom) if dicom else ""},
        at=at,
    )
    document = {**submission.document, "approval": approval_block(entry)}
    files = {PLAN_JSON: (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()}
    if dicom:
        files[PLAN_DCM] = enter(seal(dicom), entry.sha256)
    return entry, files


def approval_block(entry: Entry) -> dict[str, Any]:
    """Return what an approved plan.json says of its approval: all of it is in the entry."""
    said = entry.document
    kept = ("by", "at", "override", "plan_sha256", "input_sha256", "model_sha256", "approved_uid")
    return {
        "status": "APPROVED",
        **{key: said.get(key) for key in kept},
        "failed": said.get("failed"),
        "audit": {"number": entry.number, "sha256": entry.sha256},
    }


def _decided(action: str, submission: Submission, checked: Checked, reviewer: Reviewer) -> dict[str, Any]:
    """An entry's content: digests and identifiers, no patient and no file name."""
    stated = ("input_sha256", "model", "model_sha256", "protocol", "protocol_sha256", "source_sha256")
    sealed = submission.dicom
    return {
        "action": action,
        "by": reviewer.name,
        "account": _account(),
        "override": reviewer.override if action == OVERRIDE else "",
        "plan_sha256": plan_sha256(submission.document),
        **{key: submission.stated(key) for key in stated},
        "plan_uid": str(sealed.dataset.get("SOPInstanceUID", "")) if sealed else "",
        "failed": [
            {"rule": one.rule, "measured": _text(one.measured), "limit": _text(one.limit), "unit": one.unit}
            for one in checked.failed
        ],
        "version": version("trocar"),
    }


def _text(value: float | str) -> str:
    """A figure as text: one that is not finite fails its rule, and JSON has none."""
    return value if isinstance(value, str) else f"{value:.6g}"


def _account() -> str:
    """Return the account that ran the command: a reviewer's name is what somebody typed."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


def _approved_dicom(
    submission: Submission, checked: Checked, reviewer: Reviewer, uid: str, at: datetime
) -> bytes:
    """The RT Plan as a new instance that says who approved it and which it follows; seal and entry blank."""
    import pydicom

    assert checked.result is not None
    dataset = pydicom.dcmread(io.BytesIO(submission.dicom_bytes))
    original = reference(RT_PLAN, dataset.SOPInstanceUID)
    original.RTPlanRelationship = "PREDECESSOR"
    dataset.ReferencedRTPlanSequence = [original]
    dataset.SOPInstanceUID = uid
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = f"{at:%Y%m%d}", f"{at:%H%M%S}"
    dataset.TimezoneOffsetFromUTC = "+0000"
    dataset.ApprovalStatus = "APPROVED"
    dataset.ReviewDate, dataset.ReviewTime = f"{at:%Y%m%d}", f"{at:%H%M%S}"
    dataset.ReviewerName = reviewer.name
    approval = f"approved in spite of failures: {reviewer.override}" if checked.failed else "approved"
    dataset.RTPlanDescription = plan_description(checked.result, approval)
    add_entry(dataset)
    return encoded(dataset)
