"""Moves a second of the annealing search: one CPU thread, two, and a GPU where there is one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trocar.planners.problem import SearchProblem
    from trocar.runtime.kernels.anneal import Annealer

NAME = "anneal"
HELP = "annealing: moves a second on one CPU thread, on two, and on a GPU where there is one"

_PARITY_MOVES = 20_000  # of each of two chains, on both devices


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--phantom", type=int, default=1000, help="phantom's number (default 1000)")
    parser.add_argument("--moves", type=int, default=50_000, help="of a CPU's chain, a round (default 50000)")
    parser.add_argument(
        "--gpu-moves", type=int, default=4096, help="of a GPU's chain, a round (default 4096)"
    )
    parser.add_argument("--gpu-chains", type=int, help="as many as run at once if absent")
    parser.add_argument("--repeats", type=int, default=15)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Cool the same problem down from hot to cold, round after round."""
    from trocar.bench.gpu import describe
    from trocar.bench.timing import interleave
    from trocar.planners.types import require
    from trocar.runtime.device import kernel_device
    from trocar.runtime.kernels import cuda

    require(
        args.moves >= 1 and args.gpu_moves >= 1 and args.repeats >= 1,
        "expected moves, GPU moves and repeats >= 1",
    )
    problem = problem_of(args.phantom)
    one, *two = (problem.chain(seed=1, stream=stream) for stream in range(3))
    device = kernel_device("auto")
    with ThreadPoolExecutor(2) as pool:
        cases: dict[str, Callable[[], object]] = {
            "cpu_1_thread": lambda: _cool(one, args.moves),
            "cpu_2_threads": lambda: list(pool.map(lambda chain: _cool(chain, args.moves), two)),
        }
        moves = {"cpu_1_thread": args.moves, "cpu_2_threads": 2 * args.moves}
        if device.kind == "cuda":
            cases["cuda"], chains = gpu_case(problem, args.gpu_moves, args.gpu_chains)
            moves["cuda"] = chains * args.gpu_moves
        times = interleave(cases, args.repeats)
    rates = {name: 1000.0 * moves[name] / timing.percentile_ms(50.0) for name, timing in times.items()}
    document: dict[str, Any] = {
        "candidates": len(problem.matrix),
        "points": problem.matrix.shape[1],
        "timings": {name: timing.document() for name, timing in times.items()},
        "moves_per_s": rates,
        "gpu": f"not measured: {device.why}",
    }
    if device.kind == "cuda":
        document["gpu"] = describe(cuda.Stream())
        document["gpu_chains"] = chains
        document["gpu_over_2_threads"] = rates["cuda"] / rates["cpu_2_threads"]
        document["passed"] = same_plans(problem)
    return document


def problem_of(phantom: int) -> SearchProblem:
    """The search of a phantom under the default protocol."""
    from trocar.planners.dose.engine import DoseEngine
    from trocar.planners.dose.source import load_source
    from trocar.planners.geometry import anatomy, default_lattice, evaluation_grid
    from trocar.planners.phantom import phantom_case
    from trocar.planners.problem import build_problem
    from trocar.planners.protocol import load_protocol
    from trocar.planners.requests import DEFAULT_PROTOCOL

    protocol = load_protocol(DEFAULT_PROTOCOL)
    case = phantom_case(phantom)
    lattice, _ = default_lattice(case, None, None)
    return build_problem(
        anatomy(case, evaluation_grid(case, lattice)),
        lattice,
        DoseEngine(load_source(protocol.source)),
        protocol,
        strength_u=protocol.strength_u,
        prescription_gy=protocol.prescription_gy,
        seed=0,
    )


def gpu_case(problem: SearchProblem, moves: int, count: int | None) -> tuple[Callable[[], object], int]:
    """A call that cools `count` chains on a GPU by `moves` moves each and waits; and how many there are."""
    from trocar.planners.refine import COLD, HOT

    chains = problem.chains_on_gpu([problem.chain(seed=1, stream=0)], seed=1, count=count)
    return lambda: chains.run(moves, HOT, COLD), chains.count


def same_plans(problem: SearchProblem) -> bool:
    """Whether two chains find the same plan on the GPU and on the CPU, to the bit of its cost."""
    from trocar.planners.refine import Effort, refine

    on_cpu, on_gpu = (
        refine(problem, Effort(moves=_PARITY_MOVES, chains=2, device=device), seed=3, keep=2).plans
        for device in ("cpu", "cuda")
    )
    return on_cpu == on_gpu


def _cool(chain: Annealer, moves: int) -> None:
    from trocar.planners.refine import COLD, HOT

    chain.run(moves, HOT, COLD)
