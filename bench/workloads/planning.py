"""Fresh phantoms planned one after another: how many meet every criterion, and where the time goes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trocar.planners.start_kinds import START_KINDS

if TYPE_CHECKING:
    from trocar.planners.generator import Generator
    from trocar.planners.pipeline import PlanRequest, PlanResult

NAME = "planning"
HELP = "plan fresh phantoms: criteria met, time by stage, microseconds a move"

# (role, metric, operator, limit, unit): doses in % of the prescription, volumes in % of the structure.
CRITERIA = (
    ("ctv", "v100_pct", ">=", 99.0, "%"),
    ("ptv", "v100_pct", ">=", 98.0, "%"),
    ("ctv", "v150_pct", "<=", 65.0, "%"),
    ("ctv", "v200_pct", "<=", 20.0, "%"),
    ("ctv", "d90_gy", ">=", 100.0, "% of prescription"),
    ("urethra", "d10_gy", "<=", 150.0, "% of prescription"),
    ("urethra", "d30_gy", "<=", 130.0, "% of prescription"),
    ("rectum", "d2cc_gy", "<=", 100.0, "% of prescription"),
    ("rectum", "d0_1cc_gy", "<=", 150.0, "% of prescription"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--cases", type=int, default=50, help="phantoms (default 50)")
    parser.add_argument("--seed", type=int, default=1000, help="first phantom's number (default 1000)")
    parser.add_argument("--protocol", default="ldr-i125-145")
    parser.add_argument(
        "--budget-ms", type=float, default=500.0, help="wall time of each search (default 500)"
    )
    parser.add_argument("--moves", type=int, help="or an exact number of moves a chain")
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--start", choices=START_KINDS, default="gan")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Plan every phantom and hold it against the criteria."""
    import numpy as np

    from trocar.bench.progress import track
    from trocar.bench.timing import Timing
    from trocar.planners.dose.source import load_source
    from trocar.planners.generator import Generator
    from trocar.planners.pipeline import PlanRequest
    from trocar.planners.protocol import load_protocol
    from trocar.planners.types import require

    require(args.cases >= 1, f"expected at least one case, got {args.cases}")
    protocol = load_protocol(args.protocol)
    request = PlanRequest(
        protocol=protocol,
        source=load_source(protocol.source),
        strength_u=protocol.strength_u,
        prescription_gy=protocol.prescription_gy,
        budget_ms=None if args.moves else args.budget_ms,
        moves=args.moves,
        chains=args.chains,
        start=args.start,
    )
    generator = Generator.open() if args.start == "gan" else None
    seeds = range(args.seed, args.seed + args.cases)
    results = [plan_file(seed, request, generator) for seed in track(seeds, "planning")]
    rows = [_row(result, protocol.prescription_gy) for result in results]
    stages = {
        name: Timing(tuple(result.timing_ms[name] for result in results)).document()
        for name in results[0].timing_ms
    }
    moves = sum(int(result.provenance["moves"]) for result in results)
    busy_ms = sum(result.timing_ms["refine"] for result in results)
    met = sum(not row["missed"] for row in rows)
    return {
        "cases": len(results),
        "criteria_met": met,
        "acceptable": sum(result.validity.acceptable for result in results),
        "mean_ptv_v100_pct": float(np.mean([row["ptv_v100"] for row in rows])),
        "mean_needles": float(np.mean([row["needles"] for row in rows])),
        "max_needles": max(row["needles"] for row in rows),
        "mean_seeds": float(np.mean([row["seeds"] for row in rows])),
        "us_per_move_per_chain": 1000.0 * busy_ms * args.chains / moves,
        "timings": stages,
        "tables": {"cases": rows},
        "passed": met >= round(0.96 * len(results)),
    }


def plan_file(seed: int, request: PlanRequest, generator: Generator | None) -> PlanResult:
    """Plan a phantom from the bytes of its segmentation file."""
    from trocar.planners.io.seg_writer import write_seg_nrrd
    from trocar.planners.phantom import phantom_case

    return plan_bytes(write_seg_nrrd(phantom_case(seed)), request, generator, name=f"phantom-{seed}.seg.nrrd")


def plan_bytes(
    data: bytes, request: PlanRequest, generator: Generator | None, *, name: str = "case.seg.nrrd"
) -> PlanResult:
    """Plan from the bytes of a segmentation file, as a case comes in; reading is timed too."""
    from trocar.planners.case import case_from_bytes
    from trocar.planners.pipeline import plan_case

    began = time.perf_counter()
    case = case_from_bytes(data, filename_hint=name)
    read_ms = 1000.0 * (time.perf_counter() - began)
    return plan_case(case, request, generator=generator, read_ms=read_ms)


def missed_criteria(metrics: Mapping[str, Mapping[str, float]], prescription_gy: float) -> list[str]:
    """Names of the criteria that are not met."""
    missed = []
    for role, metric, operator, limit, unit in CRITERIA:
        if role not in metrics:
            continue
        measured = metrics[role][metric]
        if unit == "% of prescription":
            measured *= 100.0 / prescription_gy
        if not (measured >= limit if operator == ">=" else measured <= limit):
            missed.append(f"{role}_{metric}")
    return missed


def _row(result: PlanResult, prescription_gy: float) -> dict[str, Any]:
    metrics, per_cent = result.metrics, 100.0 / prescription_gy
    return {
        "case": result.case.name,
        "ctv_cc": round(metrics["ctv"]["volume_cc"], 1),
        "ctv_v100": round(metrics["ctv"]["v100_pct"], 2),
        "ptv_v100": round(metrics["ptv"]["v100_pct"], 2),
        "v150": round(metrics["ctv"]["v150_pct"], 1),
        "v200": round(metrics["ctv"]["v200_pct"], 1),
        "d90": round(metrics["ctv"]["d90_gy"] * per_cent, 1),
        "urethra_d10": round(metrics["urethra"]["d10_gy"] * per_cent, 1),
        "urethra_d30": round(metrics["urethra"]["d30_gy"] * per_cent, 1),
        "rectum_d2cc": round(metrics["rectum"]["d2cc_gy"] * per_cent, 1) if "rectum" in metrics else "",
        "seeds": len(result.plan.seeds_xyz_mm),
        "needles": len(result.plan.needles),
        "missed": " ".join(missed_criteria(metrics, prescription_gy)),
    }
