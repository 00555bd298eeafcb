"""`trocar approve` and `trocar audit`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trocar.planners import options
from trocar.runtime.command import Command
from trocar.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from trocar.planners.approval.check import Checked
    from trocar.planners.approval.decision import Reviewer
    from trocar.runtime.audit import AuditLog, Entry, Verdict

# A DICOM person name's component group; a description holds the other beside the findings.
MAX_NAME, MAX_REASON = 64, 200
AUDIT_HELP = "the audit log (default: audit.sqlite in $XDG_STATE_HOME/trocar or ~/.local/state/trocar)"

APPROVE_EXAMPLES = """\
examples:
  trocar approve out/ --by "Curie^Marie"                 out/approved/plan.json, and plan.dcm if there is one
  trocar approve out/plan.dcm --by "Curie^Marie" --case RTSTRUCT.dcm
  trocar approve out/ --by "Curie^Marie" --override "rectum D2cc accepted: salvage case"

The plan's dose, DVHs and findings are computed anew from its input. It is not approved if input, model, plan,
protocol or source are not what it was made from, or if a rule fails without --override. Every decision
goes to the audit log.
exit codes: 0 approved, 1 a rule fails (the findings say which), 2 bad input, or something changed
"""

AUDIT_EXAMPLES = """\
examples:
  trocar audit list
  trocar audit verify                                    prints the newest entry's hash: keep it elsewhere
  trocar audit verify --expect HASH                      that entry is still there
  trocar audit verify --plan out/approved                the approved copy is what its entry says

A log can show that it was edited, not that its end was cut off or that all of it was written anew: that takes
a hash kept elsewhere, and every approved copy holds one.
exit codes: 0 ok, 1 the log or a copy is not what was written, 2 bad input
"""


def _configure_approve(parser: argparse.ArgumentParser) -> None:
    parser.epilog = APPROVE_EXAMPLES
    parser.add_argument(
        "plan",
        metavar="PLAN",
        type=Path,
        help="what `trocar plan -o DIR` wrote: DIR, its plan.json or its plan.dcm",
    )
    parser.add_argument("--by", metavar="NAME", required=True, help="who approves, such as Curie^Marie")
    parser.add_argument(
        "--override",
        metavar="REASON",
        help="approve although a rule fails, and say why; it is recorded, so name no patient",
    )
    parser.add_argument(
        "--case",
        metavar="CASE",
        help="the plan's input, as `trocar plan` takes it (default: the file of its name beside the plan)",
    )
    options.add_rules(
        parser, "the protocol of the plan, where it is a centre's own (default: the plan's)", "the plan's"
    )
    parser.add_argument(
        "--repository",
        metavar="DIR",
        default="",
        help="where the plan's model is (default: the shipped ones)",
    )
    parser.add_argument("--audit", metavar="FILE", type=Path, help=AUDIT_HELP)
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, help="the approved copy (default: approved/ by the plan)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _run_approve(args: argparse.Namespace) -> int:
    from trocar.planners.approval import decision
    from trocar.planners.approval.check import check
    from trocar.planners.approval.submission import find_case, read_submission
    from trocar.planners.files import write_all
    from trocar.planners.show import progress_bar
    from trocar.runtime.repository.store import open_repository

    reviewer = _reviewer(args)
    submission = read_submission(args.plan)
    output = args.output or submission.folder / "approved"
    _check_output(output)
    case = find_case(submission, args.case)
    with progress_bar("checking"):
        checked = check(submission, case, options.rules_of(args, ""), open_repository(args.repository))
    log = _log(args)
    if checked.changes or (checked.failed and not reviewer.override):
        entry = decision.refuse(log, submission, checked, reviewer)
        if checked.changes:
            raise InvalidInput(f"not approved: {'; '.join(map(str, checked.changes))}")
        return _answer(args, log, entry, checked, [])
    entry, files = decision.approve(log, submission, checked, reviewer)
    return _answer(args, log, entry, checked, write_all(output, files))


def _reviewer(args: argparse.Namespace) -> Reviewer:
    from trocar.planners.approval.decision import Reviewer

    name = _line("--by", "a name", args.by, MAX_NAME)
    if "\\" in name or "=" in name:
        raise InvalidInput(f"--by: expected a name without \\ and =, got {name!r}")
    reason = "" if args.override is None else _line("--override", "a reason", args.override, MAX_REASON)
    return Reviewer(name, reason)


def _line(option: str, what: str, text: str, most: int) -> str:
    found = text.strip()
    if not (found and len(found) <= most and found.isprintable()):
        raise InvalidInput(
            f"{option}: expected {what} in one line of 1 to {most} characters, got {text!r:.80}"
        )
    return found


def _check_output(output: Path) -> None:
    from trocar.planners.files import check_folder

    check_folder(output)
    if output.is_dir() and any(output.iterdir()):
        raise InvalidInput(f"expected a new or empty folder for the approved copy, got {output}; give -o DIR")


def _log(args: argparse.Namespace) -> AuditLog:
    from trocar.runtime.audit import AuditLog, default_path

    return AuditLog(args.audit or default_path())


def _answer(
    args: argparse.Namespace, log: AuditLog, entry: Entry, checked: Checked, written: list[Path]
) -> int:
    from trocar.planners.approval.show import show_decision

    assert checked.result is not None
    proof = checked.result.document()
    if args.json:
        document = {
            "approved": bool(written),
            "entry": dict(entry.document),
            "audit": {"file": str(log.path), "number": entry.number, "sha256": entry.sha256},
            "files": [str(path) for path in written],
            "metrics": proof["metrics"],
            "validity": proof["validity"],
        }
        json.dump(document, sys.stdout, allow_nan=False)
        print()
    else:
        show_decision(entry, proof["validity"]["findings"], written, log.path)
    return 0 if written else 1


def _configure_audit(parser: argparse.ArgumentParser) -> None:
    parser.epilog = AUDIT_EXAMPLES
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|verify")
    listing = verbs.add_parser("list", help="every decision, oldest first", allow_abbrev=False)
    verify = verbs.add_parser(
        "verify", help="find any edit, deletion or reordering of the log", allow_abbrev=False
    )
    verify.add_argument(
        "--expect",
        metavar="HASH",
        action="append",
        default=[],
        help="a hash kept elsewhere, whose entry must be there; repeatable",
    )
    verify.add_argument(
        "--plan",
        metavar="PLAN",
        type=Path,
        action="append",
        default=[],
        help="an approved copy, which must be what its entry says; repeatable",
    )
    for verb in (listing, verify):
        verb.add_argument("--audit", metavar="FILE", type=Path, help=AUDIT_HELP)
        verb.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _run_audit(args: argparse.Namespace) -> int:
    log = _log(args)
    if args.verb == "list":
        verdict, problems = log.verify(), []
    else:
        from trocar.planners.approval.copies import copy_problems

        verdict = log.verify(expect=tuple(text.strip().lower() for text in args.expect))
        entries = {entry.sha256: entry for entry in verdict.entries}
        problems = [problem for path in args.plan for problem in copy_problems(path, entries)]
    return _show_log(args, log, verdict, [*verdict.problems, *problems])


def _show_log(args: argparse.Namespace, log: AuditLog, verdict: Verdict, problems: list[str]) -> int:
    from trocar.planners.approval.show import show_entries, show_verdict

    if args.json:
        document: dict[str, Any] = {
            "file": str(log.path),
            "valid": not problems,
            "problems": problems,
            "count": len(verdict.entries),
            "head": verdict.head,
        }
        if args.verb == "list":
            document["entries"] = [{**one.document, "sha256": one.sha256} for one in verdict.entries]
        json.dump(document, sys.stdout, allow_nan=False)
        print()
    else:
        if args.verb == "list":
            show_entries(verdict.entries)
        show_verdict(log.path, verdict, problems)
    return 1 if problems else 0


APPROVE = Command(
    name="approve",
    help="Approve a plan: prove it anew, write an approved copy, record the decision.",
    configure=_configure_approve,
    run=_run_approve,
)
AUDIT = Command(
    name="audit",
    help="Show the decisions on plans, and check that nobody changed their record.",
    configure=_configure_audit,
    run=_run_audit,
)
