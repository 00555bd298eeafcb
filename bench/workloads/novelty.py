"""Which cases are called unlike a model's training cases: ordinary phantoms, odd ones, broken contours."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trocar.planners.novelty import Novelty
    from trocar.planners.types import Case, Float64Array

NAME = "novelty"
HELP = "share of ordinary, out-of-range and corrupted cases flagged as unlike the training cases"

FIRST_FITTED = 10_000
LIMIT_MS = 5.0
ORDINARY_AT_MOST_PCT = 5.0
UNLIKE_AT_LEAST_PCT = 90.0
_STREAM = 0x0DD

MakeCase = Callable[[int], "Case"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--cases", type=int, default=30, help="cases of each kind (default 30)")
    parser.add_argument("--seed", type=int, default=500_000, help="first phantom's number (default 500000)")
    parser.add_argument(
        "--fit", type=int, default=400, help=f"phantoms fitted on, from {FIRST_FITTED} (default 400)"
    )
    parser.add_argument("--statistics", metavar="FILE.json", help="use these statistics instead of a fit")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Fit, then score every kind of case."""
    from trocar.bench.progress import track
    from trocar.planners.novelty import Novelty, fit, phantom_table, table_of
    from trocar.planners.types import require

    require(args.cases >= 1, f"expected at least one case, got {args.cases}")
    fitted = range(FIRST_FITTED, FIRST_FITTED + args.fit)
    seeds = range(args.seed, args.seed + args.cases)
    require(
        args.statistics is not None or not set(fitted) & set(seeds), "expected other phantoms than are fitted"
    )
    statistics = (
        _read(args.statistics)
        if args.statistics is not None
        else fit(phantom_table(track(fitted, "fitting")))
    )
    novelty = Novelty(statistics)
    rows = []
    for group, kind, make in track(list(_kinds()), "scoring"):
        table = table_of(make(seed) for seed in seeds)
        rows.append({"group": group, "kind": kind, **_scored(novelty, table)})
    shares = {
        group: 100.0 * sum(row["flagged"] for row in mine) / sum(row["cases"] for row in mine)
        for group, mine in (
            (group, [row for row in rows if row["group"] == group])
            for group in dict.fromkeys(row["group"] for row in rows)
        )
    }
    least = min(rows, key=lambda row: row["flagged"] if row["group"] != "ordinary" else row["cases"] + 1)
    return {
        "fitted": statistics["cases"],
        "flagged_held_out_pct": statistics["flagged_held_out_pct"],
        **{f"flagged_{group.replace(' ', '_')}_pct": share for group, share in shares.items()},
        "least_flagged": f"{least['kind']}: {least['flagged']} of {least['cases']}",
        "timings": {"descriptors": _timing(seeds) | {"limit_ms": LIMIT_MS}},
        "tables": {"kinds": rows},
        "passed": all(
            share <= ORDINARY_AT_MOST_PCT if group == "ordinary" else share >= UNLIKE_AT_LEAST_PCT
            for group, share in shares.items()
        ),
    }


def _kinds() -> Iterator[tuple[str, str, MakeCase]]:
    """Group, name and maker of every kind of case; corruptions on 1 mm and on 5 mm slices."""
    from functools import partial

    from trocar.bench.unlike import CORRUPTED, MISSHAPEN

    for slice_mm in (1.0, 3.0, 5.0):
        yield "ordinary", f"contours {slice_mm:g} mm apart", partial(_ordinary, slice_mm=slice_mm)
    for name in MISSHAPEN:
        yield "out of range", name, partial(_misshapen, name)
    for name in CORRUPTED:
        for slice_mm in (1.0, 5.0):
            yield "corrupted", f"{name}, {slice_mm:g} mm", partial(_corrupted, name, slice_mm=slice_mm)


def _ordinary(seed: int, *, slice_mm: float) -> Case:
    from trocar.planners.phantom import phantom_case

    return phantom_case(seed, slice_mm=slice_mm)


def _misshapen(name: str, seed: int) -> Case:
    import numpy as np

    from trocar.bench.unlike import MISSHAPEN
    from trocar.planners.phantom import phantom_from_shape, phantom_shape

    random = np.random.default_rng([_STREAM, seed])
    return phantom_from_shape(MISSHAPEN[name](phantom_shape(seed), random), f"{name} of phantom:{seed}")


def _corrupted(name: str, seed: int, *, slice_mm: float) -> Case:
    import numpy as np

    from trocar.bench.unlike import CORRUPTED

    return CORRUPTED[name](_ordinary(seed, slice_mm=slice_mm), np.random.default_rng([_STREAM, seed]))


def _scored(novelty: Novelty, table: Float64Array) -> dict[str, Any]:
    import numpy as np

    scores = [novelty.score(described) for described in table]
    blamed = Counter(novelty.worst(described).split()[0] for described in table)
    return {
        "cases": len(scores),
        "flagged": sum(score > 1.0 for score in scores),
        "least_score": round(min(scores), 2),
        "median_score": round(float(np.median(scores)), 2),
        "greatest_score": round(max(scores), 2),
        "most_often_in": blamed.most_common(1)[0][0],
    }


def _timing(seeds: range) -> dict[str, float]:
    """Time of the descriptors of a case on its evaluation grid, over up to ten cases."""
    from trocar.bench.timing import Timing, interleave
    from trocar.planners.geometry import anatomy, default_lattice, evaluation_grid
    from trocar.planners.novelty import descriptors

    calls = {}
    for seed in seeds[:10]:
        case = _ordinary(seed, slice_mm=1.0)
        volumes = anatomy(case, evaluation_grid(case, default_lattice(case, None, None)[0]))
        calls[str(seed)] = lambda volumes=volumes: descriptors(volumes)
    times = interleave(calls, 20).values()
    return Timing(tuple(sample for timing in times for sample in timing.samples_ms)).document()


def _read(path: str) -> dict[str, Any]:
    import json
    from pathlib import Path

    from trocar.runtime.errors import InvalidInput

    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: expected novelty statistics in JSON: {error}") from None
    # A manifest of a model holds them under this name.
    found = document.get("novelty", document) if isinstance(document, dict) else {}
    return dict(found)
