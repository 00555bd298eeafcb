"""What a person sees of a decision and of the audit log in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trocar.planners.approval.decision import OVERRIDE, REFUSE
from trocar.planners.show import console, findings_table, plain_table
from trocar.runtime.audit import Entry, Verdict

DIGEST_SHOWN = 12
STYLES = {"approve": "green", "override": "yellow", "refuse": "bold red"}


def show_decision(
    entry: Entry, findings: Sequence[Mapping[str, Any]], written: Sequence[Path], log: Path
) -> None:
    """Print a plan's findings and what was decided."""
    out = console()
    out.print(findings_table([finding for finding in findings if finding["severity"] != "note"]))
    said = entry.document
    words = {
        OVERRIDE: f"approved although rules fail: {said['override']}",
        REFUSE: "NOT approved: a rule fails",
    }
    out.print(words.get(said["action"], "approved"), style=STYLES[said["action"]])
    for path in written:
        out.print(f"wrote {path}", soft_wrap=True)
    out.print(f"entry {entry.number} of {log}: {entry.sha256}", style="dim", soft_wrap=True)


def show_entries(entries: Sequence[Entry]) -> None:
    """Print the log, a line a decision."""
    table = plain_table("decisions")
    for heading in ("", "at", "decision", "by", "account", "plan", "why"):
        table.add_column(heading)
    for entry in entries:
        said = entry.document
        action = str(said.get("action", ""))
        table.add_row(
            str(entry.number),
            *(_line(said.get(key)) for key in ("at", "action", "by", "account")),
            _line(said.get("plan_sha256"))[:DIGEST_SHOWN],
            _why(said),
            style=STYLES.get(action, ""),
        )
    console().print(table)


def show_verdict(path: Path, verdict: Verdict, problems: Sequence[str]) -> None:
    """Print whether the log holds, and the hash to keep."""
    out = console()
    for problem in problems:
        out.print(f"NOT VALID: {_line(problem)}", style=STYLES[REFUSE], soft_wrap=True)
    if not problems:
        out.print(f"{path}, entries: {len(verdict.entries)}, each as written", soft_wrap=True)
        out.print(f"newest: {verdict.head}", soft_wrap=True)


def _why(said: Mapping[str, Any]) -> str:
    failed, changed = said.get("failed"), said.get("changed")
    rules = [str(one.get("rule")) for one in failed or () if isinstance(one, Mapping)]
    parts = [f"changed: {', '.join(map(str, changed))}"] if isinstance(changed, Mapping) and changed else []
    parts += [f"failed: {', '.join(rules)}"] if rules else []
    parts += [str(said["override"])] if said.get("override") else []
    return _line("; ".join(parts))


def _line(value: object) -> str:
    """Anything from the log as one printable line: a damaged one may hold anything."""
    return "".join(letter if letter.isprintable() else " " for letter in str(value or ""))
