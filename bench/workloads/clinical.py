"""Real cases beside the plans that people made for them, evaluated by the same engine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trocar.planners.pipeline import PlanResult

NAME = "clinical"
HELP = "plan real cases and set each beside the clinical plan in the same folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument(
        "--folder",
        required=True,
        help="holds NAME.seg.nrrd and NAME_seeds.json (the first plan is the clinical one)",
    )
    parser.add_argument("--strength-u", type=float, default=0.42)
    parser.add_argument("--prescription-gy", type=float, default=144.0)
    parser.add_argument("--template", default="2.5,2.5,5,13,10", help="O_X,O_Y,PITCH,COLS,ROWS")
    parser.add_argument("--planes", default="0,5,14", help="Z0,PITCH,N")
    parser.add_argument("--moves", type=int, default=500_000, help="moves a chain (default 500000)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate the clinical plan, plan the case anew, compare."""
    from trocar.planners.case import load_case
    from trocar.planners.dose.source import load_source
    from trocar.planners.io.plans import read_plan
    from trocar.planners.options import parse_planes, parse_template
    from trocar.planners.pipeline import PlanRequest, evaluate_plan, plan_case
    from trocar.planners.protocol import load_protocol
    from trocar.planners.types import require

    folder = Path(args.folder)
    contours = sorted(folder.glob("*.seg.nrrd"))
    require(bool(contours), f"expected NAME.seg.nrrd files in {folder}, found none")
    protocol = load_protocol("ldr-i125-145")
    request = PlanRequest(
        protocol=protocol,
        source=load_source(protocol.source),
        strength_u=args.strength_u,
        prescription_gy=args.prescription_gy,
        template=parse_template(args.template),
        planes=parse_planes(args.planes),
        moves=args.moves,
    )
    rows, better = [], True
    for path in contours:
        case = load_case(str(path))
        clinical = read_plan(
            path.with_name(path.name.replace(".seg.nrrd", "_seeds.json")),
            index=0,
            source=protocol.source,
            strength_u=args.strength_u,
            prescription_gy=args.prescription_gy,
        )
        theirs = evaluate_plan(case, clinical, request)
        ours = plan_case(case, request)
        rows += [_row(path, "clinical", theirs), _row(path, "trocar", ours)]
        better = better and _no_worse(ours, theirs)
    return {"tables": {"plans": rows}, "passed": better}


def _no_worse(ours: PlanResult, theirs: PlanResult) -> bool:
    """Coverage at least theirs, no more needles, V200 no more than 2 % higher."""
    mine, other = ours.metrics["ctv"], theirs.metrics["ctv"]
    return (
        mine["v100_pct"] >= other["v100_pct"]
        and len(ours.plan.needles) <= len(theirs.plan.needles)
        and mine["v200_pct"] <= other["v200_pct"] + 2.0
    )


def _row(path: Path, made_by: str, result: PlanResult) -> dict[str, Any]:
    ctv, per_cent = result.metrics["ctv"], 100.0 / result.plan.prescription_gy
    return {
        "case": path.name.removesuffix(".seg.nrrd"),
        "plan": made_by,
        "ctv_v100": round(ctv["v100_pct"], 2),
        "ptv_v100": round(result.metrics["ptv"]["v100_pct"], 2),
        "v150": round(ctv["v150_pct"], 1),
        "v200": round(ctv["v200_pct"], 1),
        "d90": round(ctv["d90_gy"] * per_cent, 1),
        "urethra_d10": round(result.metrics["urethra"]["d10_gy"] * per_cent, 1),
        "seeds": len(result.plan.seeds_xyz_mm),
        "needles": len(result.plan.needles),
        "failed_rules": " ".join(f.rule for f in result.validity.findings if f.severity == "fail"),
    }
