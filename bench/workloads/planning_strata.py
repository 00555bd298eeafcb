"""Are some patients served worse? Planning reported by size, symmetry, median lobe and rectal gap."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trocar.planners.start_kinds import START_KINDS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from trocar.planners.generator import Generator
    from trocar.planners.phantom import PhantomShape
    from trocar.planners.pipeline import PlanResult

NAME = "planning-strata"
HELP = "criteria met and mean metrics by gland volume, asymmetry, median lobe and rectal gap"

# (name, attribute of the shape, unit): cut into thirds of the cases measured.
THIRDS = (
    ("volume", "volume_cc", "cc"),
    ("asymmetry", "asymmetry", ""),
    ("rectal gap", "rectal_gap_mm", "mm"),
)
MEANS = ("ctv_v100", "ptv_v100", "v150", "d90", "urethra_d10", "rectum_d2cc", "seeds", "needles")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--cases", type=int, default=90, help="phantoms (default 90)")
    parser.add_argument("--seed", type=int, default=5000, help="first phantom's number (default 5000)")
    parser.add_argument("--moves", type=int, default=20_000, help="moves a chain (default 20000)")
    parser.add_argument("--chains", type=int, default=1, help="(default 1)")
    parser.add_argument("--start", choices=START_KINDS, default="gan", help="(default gan)")
    parser.add_argument("--repository", metavar="DIR", help="of the network; the shipped one if absent")
    parser.add_argument("--protocol", default="ldr-i125-145")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Plan every phantom, then report by stratum."""
    from trocar.bench.progress import track
    from trocar.planners.dose.source import load_source
    from trocar.planners.phantom import phantom_case, phantom_shape
    from trocar.planners.pipeline import PlanRequest, plan_case
    from trocar.planners.protocol import load_protocol
    from trocar.planners.types import require

    require(args.cases >= 1, f"expected at least one case, got {args.cases}")
    protocol = load_protocol(args.protocol)
    request = PlanRequest(
        protocol=protocol,
        source=load_source(protocol.source),
        strength_u=protocol.strength_u,
        prescription_gy=protocol.prescription_gy,
        moves=args.moves,
        chains=args.chains,
        start=args.start,
    )
    generator = _generator(args.repository) if args.start == "gan" else None
    seeds = range(args.seed, args.seed + args.cases)
    rows = [
        _row(plan_case(phantom_case(seed), request, generator=generator), protocol.prescription_gy)
        for seed in track(seeds, "planning")
    ]
    strata = [_stratum("all", "", rows)]
    for group, name, chosen in _strata([phantom_shape(seed) for seed in seeds[: len(rows)]]):
        strata.append(_stratum(group, name, [rows[i] for i in chosen]))
    return {
        "cases": len(rows),
        "model": generator.name if generator is not None else "",
        "criteria_met": strata[0]["met"],
        "least_met": _least_met(strata),
        "tables": {"strata": strata},
        "case_rows": rows,
    }


def _generator(repository: str | None) -> Generator:
    from trocar.planners.generator import Generator
    from trocar.runtime.repository.store import Repository

    return Generator.open(Repository(Path(repository)) if repository is not None else None)


def _row(result: PlanResult, prescription_gy: float) -> dict[str, Any]:
    from trocar.bench.workloads.planning import missed_criteria

    metrics, per_cent = result.metrics, 100.0 / prescription_gy
    ctv = metrics["ctv"]
    return {
        "case": result.case.name,
        "ctv_v100": ctv["v100_pct"],
        "ptv_v100": metrics["ptv"]["v100_pct"],
        "v150": ctv["v150_pct"],
        "d90": ctv["d90_gy"] * per_cent,
        "urethra_d10": metrics["urethra"]["d10_gy"] * per_cent,
        "rectum_d2cc": metrics["rectum"]["d2cc_gy"] * per_cent,
        "seeds": len(result.plan.seeds_xyz_mm),
        "needles": len(result.plan.needles),
        "missed": missed_criteria(metrics, prescription_gy),
    }


def _strata(shapes: Sequence[PhantomShape]) -> Iterator[tuple[str, str, npt.NDArray[np.intp]]]:
    """Group, name and the cases of every stratum; asymmetry counts by its size."""
    import numpy as np

    for group, attribute, unit in THIRDS:
        values = np.abs([getattr(shape, attribute) for shape in shapes])
        # Ranks, not quantiles: equal thirds whatever the number of cases.
        for part in np.array_split(np.argsort(values, kind="stable"), 3):
            if len(part):
                low, high = values[part].min(), values[part].max()
                yield group, f"{low:.3g} to {high:.3g} {unit}".rstrip(), part
    lobed = np.array([shape.median_lobe > 0.0 for shape in shapes])
    for name, chosen in (("yes", lobed), ("no", ~lobed)):
        if chosen.any():
            yield "median lobe", name, np.flatnonzero(chosen)


def _stratum(group: str, name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    met = sum(not row["missed"] for row in rows)
    missed = sorted({criterion for row in rows for criterion in row["missed"]})
    means = {key: round(sum(float(row[key]) for row in rows) / len(rows), 2) for key in MEANS}
    share = round(100.0 * met / len(rows), 1)
    return (
        {"by": group, "stratum": name, "cases": len(rows), "met": met, "met_pct": share}
        | means
        | {"missed": " ".join(missed)}
    )


def _least_met(strata: Sequence[Mapping[str, Any]]) -> str:
    worst = min(strata, key=lambda row: float(row["met_pct"]))
    name = f"{worst['by']} {worst['stratum']}".rstrip()
    return f"{name}: {worst['met']} of {worst['cases']}"
