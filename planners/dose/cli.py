"""`trocar dose`: dose rates of a source, or the dose of an implant, at points from a CSV file."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from trocar.runtime.command import Command

if TYPE_CHECKING:
    from trocar.planners.types import Float64Array

RATE_COLUMNS = ("away_cm", "along_cm")
DOSE_COLUMNS = ("x_mm", "y_mm", "z_mm")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `trocar dose`."""
    parser.description = "Dose of a source or an implant at points (TG-43U1, 2D line source)."
    parser.add_argument(
        "--source",
        required=True,
        metavar="MODEL|FILE.json",
        help="a shipped source, such as i125-6711, or a file",
    )
    parser.add_argument(
        "--points",
        required=True,
        metavar="FILE.csv",
        help="header away_cm,along_cm (gives cGy/h/U) or, with --seeds, x_mm,y_mm,z_mm (gives Gy)",
    )
    parser.add_argument(
        "--seeds",
        metavar="FILE.json",
        help="a list of [x, y, z] in mm, {seeds_xyz_mm, directions_xyz}, or a plan.json",
    )
    parser.add_argument(
        "--strength-u",
        type=float,
        metavar="U",
        help="air-kerma strength of each seed (default: the plan's, else 1)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """Compute the values and print them."""
    from trocar.planners.dose.files import read_points, read_seeds
    from trocar.planners.dose.source import load_source, require_strength_u
    from trocar.runtime.errors import InvalidInput

    source = load_source(args.source)
    if args.strength_u is not None:
        require_strength_u(source, args.strength_u)
    columns, points = read_points(args.points, (RATE_COLUMNS, DOSE_COLUMNS))
    document: dict[str, Any] = {"source": source.key}
    if columns == RATE_COLUMNS:
        if args.seeds is not None:
            raise InvalidInput(f"--points {args.points}: expected header x_mm,y_mm,z_mm with --seeds")
        if args.strength_u is not None:
            print("trocar: note: the rates are per U; --strength-u is not used", file=sys.stderr)
        from trocar.planners.dose.reference import dose_rate_cgy_h_u

        document |= {
            "unit": "cGy/h/U",
            "values": dose_rate_cgy_h_u(source, points[:, 0], points[:, 1]).tolist(),
        }
    else:
        if args.seeds is None:
            raise InvalidInput("--seeds: expected a seeds file with x_mm,y_mm,z_mm points, got none")
        from trocar.planners.dose.engine import DoseEngine

        seeds = read_seeds(args.seeds)
        strength_u = args.strength_u if args.strength_u is not None else seeds.strength_u
        if strength_u is None:
            strength_u = 1.0
            print("trocar: note: no strength given; the doses are for 1 U a seed", file=sys.stderr)
        require_strength_u(source, strength_u)
        values = DoseEngine(source).points_gy(
            seeds.xyz_mm, strength_u, points, directions_xyz=seeds.directions_xyz
        )
        document |= {
            "unit": "Gy",
            "values": values.tolist(),
            "strength_u": strength_u,
            "seeds": len(seeds.xyz_mm),
        }
    if args.json:
        print(json.dumps(document))
    else:
        _print_table(columns, points, document)
    return 0


def _print_table(columns: tuple[str, ...], points: Float64Array, document: dict[str, Any]) -> None:
    quantity = "dose_rate_cgy_h_u" if document["unit"] == "cGy/h/U" else "dose_gy"
    print(",".join((*columns, quantity)))
    for point, value in zip(points.tolist(), document["values"], strict=True):
        print(",".join([*(f"{coordinate:g}" for coordinate in point), f"{value:.6g}"]))


COMMAND = Command(
    name="dose",
    help="dose rates of a source, or the dose of an implant, at points",
    configure=configure,
    run=run,
)
