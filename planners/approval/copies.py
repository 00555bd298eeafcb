"""Approved copies, held against the audit log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trocar.planners.approval.decision import APPROVE, OVERRIDE, approval_block
from trocar.planners.approval.submission import PLAN_DCM, PLAN_JSON
from trocar.planners.files import MAX_TEXT_BYTES, read_bytes
from trocar.planners.io.dicom import is_dicom
from trocar.planners.io.plans import parse_plan, plan_sha256
from trocar.planners.io.sealed import digest, read_sealed
from trocar.runtime.audit import Entry
from trocar.runtime.canonical import canonical_json
from trocar.runtime.errors import InvalidInput


def copy_problems(path: Path, entries: Mapping[str, Entry]) -> list[str]:
    """Return what is wrong with an approved copy: a folder, a plan.json or a plan.dcm.

    Parameters
    ----------
    entries : the log's, by hash.

    Raises
    ------
    InvalidInput
        It cannot be read, or it is no approved copy.
    """
    names = (PLAN_JSON, PLAN_DCM) if path.is_dir() else ("",)
    files = [path / name for name in names if (path / name).exists() or name in ("", PLAN_JSON)]
    found: list[str] = []
    for file in files:
        data = read_bytes(file, "plan", MAX_TEXT_BYTES)
        wrong = _dicom_problems(data, entries) if is_dicom(data) else _json_problems(data, entries)
        found += [f"{file}: {problem}" for problem in wrong]
    return found


def _json_problems(data: bytes, entries: Mapping[str, Entry]) -> Iterator[str]:
    document = parse_plan(data)
    block = document.get("approval")
    audit = block.get("audit") if isinstance(block, Mapping) else None
    if not isinstance(audit, Mapping):
        raise InvalidInput("plan: expected an approved copy, got a plan without an approval")
    entry = _entry(str(audit.get("sha256")), entries)
    if entry is None:
        yield f"no entry has the hash {audit.get('sha256')}"
    elif not _same(block, approval_block(entry)):
        yield f"its approval is not that of entry {entry.number}"
    elif plan_sha256(document) != entry.document["plan_sha256"]:
        yield f"its plan is not that of entry {entry.number}"


def _dicom_problems(data: bytes, entries: Mapping[str, Entry]) -> Iterator[str]:
    sealed = read_sealed(data)
    if not sealed.entry:
        raise InvalidInput("plan: expected an approved copy, got an RT Plan without an audit entry")
    entry = _entry(sealed.entry, entries)
    if entry is None:
        yield f"no entry has the hash {sealed.entry}"
    # The log holds the digest itself: sealing an edited copy again does not help.
    elif not sealed.whole or digest(data) != entry.document.get("approved_sha256"):
        yield f"its bytes are not those of entry {entry.number}"


def _entry(sha256: str, entries: Mapping[str, Entry]) -> Entry | None:
    entry = entries.get(sha256)
    return entry if entry is not None and entry.document.get("action") in (APPROVE, OVERRIDE) else None


def _same(one: Any, other: Any) -> bool:
    try:
        return canonical_json(one) == canonical_json(other)
    except ValueError:
        return False
