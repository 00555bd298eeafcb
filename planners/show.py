"""What a person sees of a result in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from trocar.planners.geometry import slab_volume_cc
from trocar.planners.types import ROLES, Case
from trocar.runtime.command import INTENDED_USE

# Column heading, key in the metrics, digits.
COLUMNS = (
    ("volume cc", "volume_cc", 1),
    ("V100 %", "v100_pct", 1),
    ("V150 %", "v150_pct", 1),
    ("V200 %", "v200_pct", 1),
    ("D90 Gy", "d90_gy", 1),
    ("D30 Gy", "d30_gy", 1),
    ("D10 Gy", "d10_gy", 1),
    ("D2cc Gy", "d2cc_gy", 1),
    ("D0.1cc Gy", "d0_1cc_gy", 1),
)
# What tells plans apart: heading, role, key in the metrics, digits.
COMPARED = (
    ("CTV V100 %", "ctv", "v100_pct", 1),
    ("V150 %", "ctv", "v150_pct", 1),
    ("D90 Gy", "ctv", "d90_gy", 1),
    ("urethra D10", "urethra", "d10_gy", 1),
    ("rectum D2cc", "rectum", "d2cc_gy", 1),
)
# In the order they run; a document from a server has them in any order.
STAGES = ("read", "generate", "refine", "dose", "dvh", "validity", "total")
STYLES = {"fail": "bold red", "warn": "yellow", "note": "dim", "pass": "green"}
PIPED_WIDTH = 120


def console() -> Console:
    """Return a console for stdout, on which text from files is text."""
    # A pipe has no width of its own, and the usual guess of 80 columns breaks the tables. Names come
    # from files: markup in them is text.
    return Console(
        width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False, markup=False, emoji=False
    )


@contextmanager
def progress_bar(text: str) -> Iterator[Callable[[float], None] | None]:
    """Show a bar on stderr while the body runs, where a person watches; yields what moves it."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(text, total=None)
        yield lambda share: progress.update(task, total=1.0, completed=share)


def show_plan(document: Mapping[str, Any], written: Sequence[Path]) -> None:
    """Print a plan's figures, findings and files."""
    out = console()
    plan = document["plan"]
    out.print(
        f"{document['seeds']} seeds in {document['needles']} needles, "
        f"{plan['source']} at {plan['strength_u']:g} U ({document['total_strength_u']:.1f} U in all), "
        f"prescription {plan['prescription_gy']:g} Gy"
    )
    out.print(_metrics_table(document["metrics"]))
    findings = document["validity"]["findings"]
    out.print(findings_table([finding for finding in findings if finding["severity"] != "note"]))
    for finding in findings:
        if finding["severity"] == "note":
            out.print(f"note: {_figure(finding['measured'])}", style=STYLES["note"])
    acceptable = document["validity"]["acceptable"]
    out.print(
        "acceptable" if acceptable else "NOT acceptable", style="bold green" if acceptable else "bold red"
    )
    if document["alternatives"]:
        out.print(_plans_table([document, *document["alternatives"]]))
    timing = document["timing_ms"]
    stages = [f"{stage} {timing[stage]:.0f} ms" for stage in STAGES if stage in timing]
    out.print(", ".join(stages), style="dim")
    for path in written:
        out.print(f"wrote {path}", soft_wrap=True)


def plain_table(title: str) -> Table:
    """Return a table without frames."""
    # Without frames both tables fit a terminal of 80 columns.
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def _metrics_table(metrics: Mapping[str, Mapping[str, float]]) -> Table:
    table = plain_table("dose and volume")
    table.add_column("structure", no_wrap=True)
    for heading, _, _ in COLUMNS:
        table.add_column(heading, justify="right")
    for role in (*(role for role in ROLES if role in metrics), *sorted(set(metrics) - set(ROLES))):
        figures = metrics[role]
        table.add_row(
            role, *(f"{figures[key]:.{digits}f}" if key in figures else "" for _, key, digits in COLUMNS)
        )
    return table


def _plans_table(documents: Sequence[Mapping[str, Any]]) -> Table:
    """Return the plans beside each other, the cheapest first."""
    table = plain_table("plans by cost")
    table.add_column("plan")
    table.add_column("cost", justify="right")
    table.add_column("acceptable")
    table.add_column("seeds", justify="right")
    table.add_column("as in 1", justify="right")
    table.add_column("needles", justify="right")
    for heading, _, _, _ in COMPARED:
        table.add_column(heading, justify="right")
    first = _sites(documents[0])
    for number, document in enumerate(documents, start=1):
        validity, metrics = document["validity"], document["metrics"]
        table.add_row(
            str(number),
            f"{document['plan']['provenance']['cost']:.2f}",
            "yes" if validity["acceptable"] else "NO",
            str(document["seeds"]),
            str(len(first & _sites(document))),
            str(document["needles"]),
            *(
                f"{metrics[role][key]:.{digits}f}" if key in metrics.get(role, {}) else ""
                for _, role, key, digits in COMPARED
            ),
        )
    return table


def _sites(document: Mapping[str, Any]) -> set[tuple[str, float]]:
    """Where the seeds of a plan are."""
    return {
        (needle["label"], z_mm) for needle in document["plan"]["needles"] for z_mm in needle["seeds_z_mm"]
    }


def findings_table(findings: Sequence[Mapping[str, Any]]) -> Table:
    """Return what was checked, the worst first; the report says where each limit comes from."""
    table = plain_table("validity")
    table.add_column("")
    table.add_column("rule", no_wrap=True)
    table.add_column("measured", justify="right")
    table.add_column("limit", justify="right")
    table.add_column("unit")
    order = list(STYLES)
    for finding in sorted(findings, key=lambda finding: order.index(finding["severity"])):
        severity = finding["severity"]
        cells = (finding["rule"], _figure(finding["measured"]), _figure(finding["limit"]))
        table.add_row(severity, *cells, finding["unit"], style=STYLES[severity])
    return table


def _figure(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"


def show_stated(document: Mapping[str, Any]) -> None:
    """Print how an HDR plan's dose compares with the one that came with it."""
    print("\n".join(_stated_lines(document)))


def _stated_lines(document: Mapping[str, Any]) -> Iterator[str]:
    plan, found = document["plan"], document["comparison"]
    yield (
        f"{plan['label']}: {plan['dwells']} dwells in {plan['channels']} channels, {plan['time_s']:.1f} s, "
        f"{plan['source']} of {plan['strength_u']:g} U, {plan['prescription_gy']:g} Gy prescribed"
    )
    yield (
        f"dose against the stated one at {found['points']} voxels: median {found['median_pct']:+.2f} %, "
        f"5 to 95 % {found['p5_pct']:+.2f} to {found['p95_pct']:+.2f} %"
    )
    for one in document["stated_dvhs"]:
        name = " without ".join([one["role"], *one["without"]])
        for metric, value in one["stated"].items():
            yield f"  {name:24} {metric:10} {one['computed'][metric]:9.2f}   stated {value:9.2f}"
    for finding in document["validity"]["findings"]:
        measured = finding["measured"]
        shown = f"{measured:.3g} {finding['unit']}" if isinstance(measured, float) else measured
        yield f"{finding['severity']:5} {finding['rule']}: {shown}"


def case_document(case: Case) -> dict[str, Any]:
    """Return what there is to say of a case, as plain JSON types."""
    return {
        "name": case.name,
        "structures": {
            role: {
                "name": structure.name,
                "volume_cc": round(slab_volume_cc(structure), 3),
                "slices": int(structure.z_mm.size),
            }
            for role, structure in case.structures.items()
        },
        "assumptions": list(case.assumptions),
    }


def show_case(case: Case, written: Path | None) -> None:
    """Print a case's structures and volumes."""
    out = console()
    out.print(INTENDED_USE, style="dim")
    table = plain_table(case.name)
    table.add_column("structure")
    table.add_column("volume cc", justify="right")
    table.add_column("slices", justify="right")
    for role, structure in case.structures.items():
        table.add_row(role, f"{slab_volume_cc(structure):.1f}", str(structure.z_mm.size))
    out.print(table)
    for assumption in case.assumptions:
        out.print(f"assumed: {assumption}")
    if written is not None:
        out.print(f"wrote {written}", soft_wrap=True)
