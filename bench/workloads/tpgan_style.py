"""Whether a network that is trained on a centre's plans learns the centre's style.

A folder of phantoms is planned as a centre would that keeps its seeds near the PTV's surface, and `trocar
train tpgan --data` and `trocar export` make a network of it. On phantoms that it has not seen, the share of
its seeds that lie within 8 mm of the surface is held against the centre's own plans. A network trained
alike on plans of the same phantoms without that taste, and one from a repository, say how far training on
any plans gets there; `blind` is a network that wants a seed at every site alike.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from trocar.bench.styled import Planned, Setting
    from trocar.planners.generator import Generator

NAME = "tpgan-style"
HELP = "train on a folder of plans in another style and measure on unseen phantoms that it was learned"

CENTRE, CONTROL, GIVEN = "centre network", "control network", "given network"
# Held-out phantoms are numbered from so many after the first of the folder's.
HELD_OUT_AFTER = 50_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--cases", type=int, default=60, help="phantoms in the folder (default 60)")
    parser.add_argument("--held-out", type=int, default=20, help="phantoms measured on (default 20)")
    parser.add_argument("--seed", type=int, default=700_000, help="first phantom's number (default 700000)")
    parser.add_argument("--moves", type=int, default=400_000, help="search moves of a plan (default 400000)")
    parser.add_argument("--epochs", type=int, default=30, help="of training (default 30)")
    parser.add_argument("--batch-size", type=int, default=4, help="of training (default 4)")
    parser.add_argument("--workers", type=int, help="threads; all cores if absent")
    parser.add_argument("--protocol", default="ldr-i125-145")
    parser.add_argument(
        "--repository", metavar="DIR", help="a network to compare with; the shipped one if absent"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Plan the folder, train on it, and measure on other phantoms."""
    from trocar.bench.styled import RIM_MM, STYLES, Setting, write_folders
    from trocar.planners.dose.engine import DoseEngine
    from trocar.planners.dose.source import load_source
    from trocar.planners.protocol import load_protocol
    from trocar.planners.types import require

    require(2 <= args.cases <= HELD_OUT_AFTER, f"--cases: expected 2 to {HELD_OUT_AFTER}, got {args.cases}")
    require(args.held_out >= 1, f"--held-out: expected at least one phantom, got {args.held_out}")
    require(args.workers is None or args.workers >= 1, f"--workers: expected 1 or more, got {args.workers}")
    _require_packages()
    protocol = load_protocol(args.protocol)
    setting = Setting(protocol, DoseEngine(load_source(protocol.source)), args.moves)
    workers = args.workers or os.cpu_count() or 1
    networks, left_out = _given(args.repository)
    phantoms = range(args.seed, args.seed + args.cases)
    held_out = range(args.seed + HELD_OUT_AFTER, args.seed + HELD_OUT_AFTER + args.held_out)
    training: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="trocar-style-") as name:
        root = Path(name)
        written = write_folders(_planned(phantoms, setting, workers, "plans"), root, setting)
        for style, of in zip(STYLES, (CENTRE, CONTROL), strict=True):
            networks[of], training[style] = _trained(root / style, args, workers)
    rows: list[dict[str, Any]] = []
    for planned in _planned(held_out, setting, workers, "held out"):
        rows += measured(planned, networks)
    require(bool(rows), "expected a held-out phantom that the template covers, got none")
    summary = _summary(rows)
    return {
        "cases": written,
        "held_out": len({row["case"] for row in rows}),
        "left_out": left_out,
        **{f"training_minutes_{style}": facts["minutes"] for style, facts in training.items()},
        **_verdict(summary),
        "tables": {f"share of seeds within {RIM_MM:g} mm of the PTV's surface, %": summary},
        "case_rows": rows,
    }


def _require_packages() -> None:
    """Refuse what cannot work before minutes are spent on it."""
    from importlib.util import find_spec

    from trocar.export.cli import NEEDED
    from trocar.runtime.errors import InvalidInput

    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InvalidInput(
            f"{NAME} trains: it needs {', '.join(missing)}, not installed here: pip install 'trocar[train]'"
        )


def _given(repository: str | None) -> tuple[dict[str, Generator], str]:
    """The network to compare with, and why there is none."""
    from trocar.planners.generator import Generator
    from trocar.runtime.errors import ModelNotFound
    from trocar.runtime.repository.store import Repository

    try:
        found = Generator.open(None if repository is None else Repository(Path(repository)))
    except ModelNotFound as error:
        return {}, f"{GIVEN}: {error}"
    return {GIVEN: found}, ""


def _planned(phantoms: Sequence[int], setting: Setting, workers: int, what: str) -> Iterator[Planned]:
    """Plan phantoms with a progress bar, leaving out those too wide for the template."""
    from trocar.bench.progress import track
    from trocar.bench.styled import planned_phantom
    from trocar.runtime.errors import InvalidInput

    def plan(phantom: int) -> Planned | None:
        try:
            return planned_phantom(phantom, setting)
        except InvalidInput:
            return None

    with ThreadPoolExecutor(workers) as pool:
        found = track(pool.map(plan, phantoms), what, total=len(phantoms))
        yield from (planned for planned in found if planned is not None)


def _trained(folder: Path, args: argparse.Namespace, workers: int) -> tuple[Generator, dict[str, Any]]:
    """Train on a folder and export, by the two commands that a centre would use."""
    from trocar.export.cli import COMMAND as EXPORT
    from trocar.planners.generator import Generator
    from trocar.planners.tpgan.cli import COMMAND as TRAIN
    from trocar.planners.types import require
    from trocar.runtime.repository.store import Repository

    checkpoint, repository = folder / "network.safetensors", folder / "repository"
    words = ["--data", folder, "-o", checkpoint, "--json", "--protocol", args.protocol]
    words += ["--epochs", args.epochs, "--batch-size", args.batch_size, "--workers", workers]
    code, said = _command(TRAIN, words)
    require(code == 0, f"expected trocar train to succeed, got {code}: {said.strip()}")
    code, published = _command(EXPORT, ["tpgan", "--checkpoint", checkpoint, "--repository", repository])
    require(code == 0, f"expected trocar export to succeed, got {code}: {published.strip()}")
    return Generator.open(Repository(repository)), json.loads(said.splitlines()[-1])["training"]


def _command(command: Any, words: Sequence[object]) -> tuple[int, str]:
    """Run a command in this process; its exit code and what it would have written to stdout."""
    parser = argparse.ArgumentParser()
    command.configure(parser)
    with redirect_stdout(io.StringIO()) as said:
        code = command.run(parser.parse_args([str(word) for word in words]))
    return code, said.getvalue()


def measured(planned: Planned, networks: Mapping[str, Generator]) -> list[dict[str, Any]]:
    """Rows of a held-out case: each style's plan, then every network as it proposes and as decoded."""
    import numpy as np

    from trocar.bench.styled import STYLES, at_candidates, rim_share
    from trocar.planners.refine import Effort, refine
    from trocar.planners.starts import order_of

    problem, depth_mm = planned.problem, planned.depth_mm
    own = planned.chosen[STYLES[0]]
    own_share, own_cost = 100.0 * rim_share(np.ones(len(own)), depth_mm[own]), problem.cost_of(own.tolist())

    def row(of: str, expected: float, seeds: float, chosen: npt.NDArray[np.int64]) -> dict[str, Any]:
        decoded = 100.0 * rim_share(np.ones(len(chosen)), depth_mm[chosen]) if len(chosen) else None
        found = {"case": planned.case.name, "of": of, "expected": 100.0 * expected, "decoded": decoded}
        found |= {"off_centre": abs(100.0 * expected - own_share), "expected_seeds": seeds}
        cost = problem.cost_of(chosen.tolist()) / own_cost if len(chosen) else None
        return found | {"seeds": len(chosen) or None, "cost_ratio": cost}

    rows = []
    for style, chosen in planned.chosen.items():
        of = "centre's plans" if style == STYLES[0] else f"{style} plans"
        rows.append(row(of, rim_share(np.ones(len(chosen)), depth_mm[chosen]), len(chosen), chosen))
    for of, network in networks.items():
        (probability,) = network.propose(planned.seen, count=1, seed=0)
        wanted = at_candidates(probability, problem, planned.window)
        start = order_of(probability, planned.window, problem)
        outcome = refine(problem, Effort(moves=0, chains=1), seed=0, starts=(start,))
        chosen = np.array(outcome.chosen, dtype=np.int64)
        rows.append(row(of, rim_share(wanted, depth_mm), float(wanted.sum()), chosen))
    nothing = np.zeros(0, dtype=np.int64)
    rows.append(row("blind", rim_share(np.ones(len(depth_mm)), depth_mm), float(len(depth_mm)), nothing))
    return rows


def _summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Means over cases, and in how many of them the centre's network is nearer to the centre's plans."""
    import numpy as np

    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["of"], []).append(row)
    table = []
    for of, held in groups.items():
        found: dict[str, Any] = {"of": of}
        for name in ("expected", "decoded", "off_centre", "expected_seeds", "seeds", "cost_ratio"):
            values = [row[name] for row in held if row[name] is not None]
            found[name] = round(float(np.mean(values)), 2) if values else None
        if of in (CONTROL, GIVEN):
            pairs = zip(groups[CENTRE], held, strict=True)
            nearer = sum(mine["off_centre"] < other["off_centre"] for mine, other in pairs)
            found["centre_network_nearer_in"] = nearer
        table.append(found)
    return table


def _verdict(table: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Whether the centre's network is nearer to the centre's plans than every other network, in the mean."""
    mean = {row["of"]: row["expected"] for row in table}
    off = {of: abs(mean[of] - mean["centre's plans"]) for of in mean if of in (CENTRE, CONTROL, GIVEN)}
    own = off.pop(CENTRE)
    said = {f"points_off_{of.replace(' ', '_')}": round(value, 2) for of, value in off.items()}
    return {
        "points_off_centre_network": round(own, 2),
        **said,
        "passed": all(own < other for other in off.values()),
    }
