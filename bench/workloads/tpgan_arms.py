"""Does the network help? The same search from different starts, at equal moves and at equal CPU time.

Every arm searches the same problem with one chain and the same seed. CPU time is that of all threads of the
process and includes features, inference and decoding; setting up the problem is the same for all arms and
is left out. Arms that are not networks: `empty` (anneal from nothing, hot), `random` (candidates in random
order, each taken if it lowers the cost) and `greedy` (the best candidate again and again).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from trocar.planners.dose.engine import DoseEngine
    from trocar.planners.generator import Generator
    from trocar.planners.problem import SearchProblem
    from trocar.planners.protocol import Protocol
    from trocar.planners.refine import Outcome
    from trocar.planners.types import Anatomy

NAME = "tpgan-arms"
HELP = "random, greedy and network starts: criteria met and cost at equal moves and at equal CPU time"

PLAIN_ARMS = ("empty", "random", "greedy")
SHIPPED_ARM = "gan"
_REPEATS = 3  # of what is timed; the least counts, for other work on the machine only adds

# What the full network is held to: (moves, figure, operator, limit); passes are shares of the cases.
TARGETS = (
    (0, "mean_ratio", "<=", 1.35),
    (1000, "pass_share", ">=", 0.5),
    (5000, "pass_share", ">=", 25 / 30),
)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Setting:
    """What is the same for every case."""

    protocol: Protocol
    engine: DoseEngine
    networks: Mapping[str, Generator]
    moves: tuple[int, ...]
    cpu_ms: tuple[float, ...]
    expert_moves: int

    @property
    def dose(self) -> dict[str, float]:
        return {"strength_u": self.protocol.strength_u, "prescription_gy": self.protocol.prescription_gy}


@dataclass(frozen=True, slots=True)
class _Case:
    """A case set up for the search, and the cost of the best plan that a long search found."""

    seed: int
    volumes: Anatomy
    problem: SearchProblem
    expert_cost: float


@dataclass(frozen=True, slots=True)
class _Start:
    """Where an arm begins, and the CPU time that it took to know, by stage, ms."""

    order: tuple[list[int], ...]
    stages_ms: dict[str, float] = field(default_factory=dict)

    @property
    def cpu_ms(self) -> float:
        return sum(self.stages_ms.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--cases", type=int, default=30, help="phantoms (default 30)")
    parser.add_argument("--seed", type=int, default=3000, help="first phantom's number (default 3000)")
    parser.add_argument("--moves", default="0,1000,5000,20000", help="equal moves (default %(default)s)")
    parser.add_argument("--cpu-ms", default="10,25,50,100", help="equal CPU time, ms (default %(default)s)")
    parser.add_argument("--arms", default="empty,random,greedy,bce,gan", help="(default %(default)s)")
    parser.add_argument(
        "--models",
        default="",
        metavar="ARM=PATH,...",
        help="the network of an arm: a repository, or an ONNX file; gan is the shipped one if not given",
    )
    parser.add_argument("--expert-moves", type=int, default=1_000_000, help="(default %(default)s)")
    parser.add_argument("--protocol", default="ldr-i125-145")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Plan every phantom from every start."""
    from trocar.bench.progress import track
    from trocar.planners.dose.engine import DoseEngine
    from trocar.planners.dose.source import load_source
    from trocar.planners.protocol import load_protocol
    from trocar.planners.types import require

    require(args.cases >= 1, f"expected at least one case, got {args.cases}")
    protocol = load_protocol(args.protocol)
    wanted = [arm.strip() for arm in args.arms.split(",") if arm.strip()]
    networks, left_out = _networks(wanted, _paths(args.models))
    arms = [arm for arm in wanted if arm in PLAIN_ARMS or arm in networks]
    require(bool(arms), f"expected at least one arm that can run, got {args.arms!r}")
    setting = _Setting(
        protocol,
        DoseEngine(load_source(protocol.source)),
        networks,
        tuple(int(value) for value in _numbers("--moves", args.moves)),
        tuple(_numbers("--cpu-ms", args.cpu_ms)),
        args.expert_moves,
    )
    rows: list[dict[str, Any]] = []
    for seed in track(range(args.seed, args.seed + args.cases), "arms"):
        rows += _measured(seed, arms, setting)
    tables = {
        "at equal moves": _summary(rows, "moves"),
        "at equal CPU": _summary(rows, "budget_cpu_ms"),
        "starts, CPU ms": _start_table(rows),
    }
    targets = _targets(tables["at equal moves"], len({row["case"] for row in rows}))
    return {
        "cases": args.cases,
        "left_out": "; ".join(left_out),
        "networks": {arm: {"name": net.name, "sha256": net.sha256} for arm, net in networks.items()},
        **{f"target: {name}": said for name, (_, said) in targets.items()},
        "tables": tables,
        "case_rows": rows,
        "passed": all(met for met, _ in targets.values()),
    }


def _numbers(option: str, text: str) -> list[float]:
    from trocar.runtime.errors import InvalidInput

    try:
        values = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        values = []
    if not values or not all(0.0 <= value <= 1e9 for value in values):
        raise InvalidInput(f"{option}: expected numbers from 0 to 1e9 separated by commas, got {text!r}")
    return values


def _paths(text: str) -> dict[str, Path]:
    from trocar.runtime.errors import InvalidInput

    paths = {}
    for part in filter(None, text.split(",")):
        arm, separator, path = part.partition("=")
        if not separator or not path or arm in PLAIN_ARMS:
            raise InvalidInput(f"--models: expected ARM=PATH, got {part!r}")
        paths[arm.strip()] = Path(path)
    return paths


def _networks(arms: Sequence[str], paths: Mapping[str, Path]) -> tuple[dict[str, Generator], list[str]]:
    """The networks of the arms that have one, and why the others are left out."""
    from trocar.planners.generator import Generator
    from trocar.runtime.errors import ModelNotFound

    networks, left_out = {}, []
    for arm in arms:
        if arm in PLAIN_ARMS:
            continue
        try:
            if arm in paths:
                networks[arm] = _open(paths[arm])
            elif arm == SHIPPED_ARM:
                networks[arm] = Generator.open()
            else:
                left_out.append(f"{arm}: no --models {arm}=PATH")
        except ModelNotFound as error:
            left_out.append(f"{arm}: {error}")
    return networks, left_out


def _open(path: Path) -> Generator:
    """A network from a repository, or from an ONNX file that is in none."""
    import hashlib

    from trocar.planners.generator import Generator
    from trocar.runtime.repository.store import Repository
    from trocar.runtime.session.ort import open_session

    if path.is_file():
        data = path.read_bytes()
        return Generator(
            open_session(data, threads=1, device="cpu"), path.name, hashlib.sha256(data).hexdigest(), {}
        )
    return Generator.open(Repository(path))


def _measured(seed: int, arms: Sequence[str], setting: _Setting) -> list[dict[str, Any]]:
    """Rows of one case: the long search's plan, then every arm at every effort."""
    case, best = _prepared(seed, setting)
    rows = [_row(case, "expert", best, setting, moves=setting.expert_moves, cpu_ms=0.0)]
    for arm in arms:
        start = _started(arm, case, setting)
        for moves in setting.moves:
            found, took_ms = _searched(case, start, moves)
            rows.append(_row(case, arm, found, setting, moves=moves, cpu_ms=start.cpu_ms + took_ms))
            if moves == 0:
                rows[-1]["stages_cpu_ms"] = {**start.stages_ms, "decode": took_ms}
        rows += _at_equal_cpu(case, arm, start, setting)
    return rows


def _prepared(seed: int, setting: _Setting) -> tuple[_Case, Outcome]:
    from trocar.planners.expert import canonical
    from trocar.planners.features import window_of
    from trocar.planners.geometry import anatomy, default_lattice, evaluation_grid
    from trocar.planners.phantom import phantom_case
    from trocar.planners.problem import build_problem
    from trocar.planners.refine import Effort, refine

    case = phantom_case(seed)
    lattice, _ = default_lattice(case, None, None)
    volumes = anatomy(case, evaluation_grid(case, lattice))
    problem = build_problem(volumes, lattice, setting.engine, setting.protocol, **setting.dose, seed=0)
    effort = Effort(moves=setting.expert_moves, chains=1)
    tasteful = canonical(problem, window_of(problem.candidates, lattice))
    found = [refine(search, effort, seed=0) for search in (problem, tasteful)]
    # What a plan costs without the taste for a canonical style.
    costs = [problem.cost_of(outcome.chosen) for outcome in found]
    cost, best = min(zip(costs, found, strict=True), key=lambda pair: pair[0])
    return _Case(seed, volumes, problem, cost), best


def _started(arm: str, case: _Case, setting: _Setting) -> _Start:
    from trocar.planners.features import features, window_of
    from trocar.planners.starts import order_of, starts

    problem = case.problem
    if arm == "empty":
        return _Start(())
    if arm in PLAIN_ARMS:
        order, took_ms = _least_cpu(
            lambda: starts(
                arm,
                problem,
                case.volumes,
                setting.engine,
                **setting.dose,
                seed=case.seed,
                count=1,
                generator=None,
            )
        )
        return _Start(order, {"order": took_ms})
    window = window_of(problem.candidates, problem.lattice)
    seen, features_ms = _least_cpu(
        lambda: features(case.volumes, problem, window, setting.engine, **setting.dose)
    )
    proposed, inference_ms = _least_cpu(lambda: setting.networks[arm].propose(seen, count=1, seed=case.seed))
    order, order_ms = _least_cpu(lambda: (order_of(proposed[0], window, problem),))
    return _Start(order, {"features": features_ms, "inference": inference_ms, "order": order_ms})


def _searched(case: _Case, start: _Start, moves: int) -> tuple[Outcome, float]:
    """The plan after decoding the start and so many moves, and the CPU time of both, ms."""
    from trocar.planners.refine import Effort, refine

    effort = Effort(moves=moves, chains=1)
    return _least_cpu(lambda: refine(case.problem, effort, seed=case.seed, starts=start.order))


def _at_equal_cpu(case: _Case, arm: str, start: _Start, setting: _Setting) -> list[dict[str, Any]]:
    """Rows of an arm that gets as many moves as the CPU time left after its start allows."""
    most = max(max(setting.moves), 2000)
    _, decoded_ms = _searched(case, start, 0)
    _, searched_ms = _searched(case, start, most)
    ms_a_move = max(searched_ms - decoded_ms, 1e-6) / most
    rows = []
    for budget_ms in setting.cpu_ms:
        left_ms = budget_ms - start.cpu_ms - decoded_ms
        moves = max(0, int(left_ms / ms_a_move))
        found, took_ms = _searched(case, start, moves)
        row = _row(case, arm, found, setting, moves=None, cpu_ms=start.cpu_ms + took_ms)
        rows.append({**row, "budget_cpu_ms": budget_ms, "moves_made": moves, "late": left_ms < 0.0})
    return rows


def _least_cpu(call: Callable[[], Result]) -> tuple[Result, float]:
    """A call's result, and the least CPU time that it took, ms."""
    took = []
    for _ in range(_REPEATS):
        began = time.process_time()
        result = call()
        took.append(1000.0 * (time.process_time() - began))
    return result, min(took)


def _row(
    case: _Case, arm: str, found: Outcome, setting: _Setting, *, moves: int | None, cpu_ms: float
) -> dict[str, Any]:
    """A plan held against the criteria on the evaluation grid."""
    from trocar.bench.workloads.planning import missed_criteria
    from trocar.planners.dvh import dvh, role_metrics
    from trocar.planners.types import Plan

    protocol = setting.protocol
    gy = protocol.prescription_gy
    plan = Plan(setting.engine.source.key, protocol.strength_u, gy, found.needles)
    row: dict[str, Any] = {"case": f"phantom:{case.seed}", "arm": arm, "moves": moves}
    cost = case.problem.cost_of(found.chosen)
    row |= {"cost": cost, "ratio": cost / case.expert_cost, "seeds": len(found.chosen)}
    row |= {"needles": len(plan.needles), "cpu_ms": cpu_ms}
    if not found.chosen:
        return row | {"ctv_v100": 0.0, "ptv_v100": 0.0, "missed": ["no seed"]}
    dose_gy = setting.engine.grid_gy(plan.seeds_xyz_mm, plan.strength_u, case.volumes.grid)
    metrics = role_metrics(dvh(dose_gy, case.volumes, prescription_gy=gy), gy)
    return row | {
        "ctv_v100": metrics["ctv"]["v100_pct"],
        "ptv_v100": metrics["ptv"]["v100_pct"],
        "missed": missed_criteria(metrics, gy),
    }


def _summary(rows: Sequence[Mapping[str, Any]], by: str) -> list[dict[str, Any]]:
    """A row per arm and effort, ordered as they ran."""
    import numpy as np

    groups: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row.get(by) is not None:
            groups.setdefault((row["arm"], row[by]), []).append(row)
    table = []
    for (arm, effort), held in groups.items():
        ratio = [row["ratio"] for row in held]
        found = {
            "arm": arm,
            by: effort,
            "passes": sum(not row["missed"] for row in held),
            "mean_ratio": round(float(np.mean(ratio)), 3),
            "median_ratio": round(float(np.median(ratio)), 3),
            "mean_ctv_v100": round(float(np.mean([row["ctv_v100"] for row in held])), 2),
            "mean_ptv_v100": round(float(np.mean([row["ptv_v100"] for row in held])), 2),
            "mean_needles": round(float(np.mean([row["needles"] for row in held])), 1),
            "median_cpu_ms": round(float(np.median([row["cpu_ms"] for row in held])), 1),
        }
        if by == "budget_cpu_ms":
            found["median_moves"] = int(np.median([row["moves_made"] for row in held]))
            found["late"] = sum(row["late"] for row in held)
        table.append(found)
    return table


def _start_table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Median CPU time of each stage before the first move, by arm."""
    import numpy as np

    started: dict[str, list[Mapping[str, float]]] = {}
    for row in rows:
        if "stages_cpu_ms" in row:
            started.setdefault(row["arm"], []).append(row["stages_cpu_ms"])
    return [
        {
            "arm": arm,
            **{name: round(float(np.median([one[name] for one in held])), 2) for name in held[0]},
            "all": round(float(np.median([sum(one.values()) for one in held])), 2),
        }
        for arm, held in started.items()
    ]


def _targets(table: Sequence[Mapping[str, Any]], cases: int) -> dict[str, tuple[bool, str]]:
    """The full network's targets: met or not, and in words; none where it did not run."""
    found = {}
    for moves, figure, operator, limit in TARGETS:
        for row in table:
            if row["arm"] != SHIPPED_ARM or row["moves"] != moves:
                continue
            value = row["passes"] / cases if figure == "pass_share" else row[figure]
            met = value >= limit if operator == ">=" else value <= limit
            said = f"{value:.3g} {operator} {limit:.3g}: {'met' if met else 'missed'}"
            found[f"{figure} at {moves} moves"] = (bool(met), said)
    return found
