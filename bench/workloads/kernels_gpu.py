"""The CUDA kernels: the CPU's results, and each kernel's bandwidth beside a copy within the device."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from trocar.runtime.kernels.cuda import DeviceArray, Stream

NAME = "kernels-gpu"
HELP = "the CUDA kernels: parity with the CPU, and bandwidth against a copy's (needs a GPU)"

GOAL = 0.7
"""The part of the copy's bandwidth that a memory-bound kernel should reach."""

FRAME = (1080, 1920)
COLOURS = {1: (80, 200, 80), 2: (200, 160, 40), 3: (40, 40, 230), 4: (200, 40, 200)}


@dataclass(frozen=True)
class Case:
    """One kernel on one set of arrays.

    Parameters
    ----------
    inputs, outputs : NumPy arrays by name; outputs as they are before the call.
    call : runs the kernel on arrays of these names, with `stream=`.
    bytes_moved : every input read once, every output written once.
    memory_bound : whether memory is what limits it; the goal is for those.
    tolerance : relative, of the GPU's results; 0 where they have the CPU's bits.
    """

    name: str
    inputs: dict[str, npt.NDArray[Any]]
    outputs: dict[str, npt.NDArray[Any]]
    call: Callable[..., None]
    memory_bound: bool = True
    bytes_moved: int | None = None
    tolerance: float = 0.0

    @property
    def traffic(self) -> int:
        """Bytes that nothing avoids."""
        arrays = [*self.inputs.values(), *self.outputs.values()]
        return self.bytes_moved or sum(array.nbytes for array in arrays)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--repeats", type=int, default=50, help="timed rounds of each kernel")
    parser.add_argument("--cpu-repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure every kernel on arrays that no cache holds, and compare its results with the CPU's."""
    from trocar.bench import gpu
    from trocar.runtime.errors import InvalidInput

    if args.repeats < 1 or args.cpu_repeats < 1:
        raise InvalidInput(f"expected repeats of at least 1, got {args.repeats} and {args.cpu_repeats}")
    stream = gpu.require_gpu()
    ceiling_gb_s = gpu.copy_ceiling_gb_s(stream)
    rows = [_measure(case, stream, ceiling_gb_s, args) for case in cases(args.seed)]
    timings = {row["kernel"]: row.pop("timing") for row in rows}
    return {
        "device": gpu.describe(stream),
        "copy_ceiling_gb_s": ceiling_gb_s,
        "goal_share": GOAL,
        "below_goal": ", ".join(
            row["kernel"] for row in rows if row["memory_bound"] and row["share_of_copy"] < GOAL
        )
        or "none",
        "timings": timings,
        "tables": {"bandwidth": rows},
        "passed": all(row["parity"] for row in rows),
    }


def cases(seed: int) -> Iterator[Case]:
    """Every kernel that runs on both devices, one after another: their arrays are large."""
    yield from _video(seed)
    yield from _histograms(seed)
    yield from _dose(seed)


def run_case(case: Case, put: Callable[[Any], Any], stream: int | None) -> dict[str, Any]:
    """Run once on arrays where `put` puts them; the outputs, there."""
    arrays = {name: put(array) for name, array in case.inputs.items()}
    outputs = {name: put(array.copy()) for name, array in case.outputs.items()}
    case.call(**arrays, **outputs, stream=stream)
    return outputs


def agree(case: Case, found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether the outputs are the CPU's, but for the case's tolerance; scratch memory is not compared."""
    import numpy as np

    return all(
        np.allclose(found[name], expected[name], rtol=case.tolerance, atol=0.0, equal_nan=True)
        if case.tolerance
        else found[name].tobytes() == expected[name].tobytes()
        for name in case.outputs
        if name != "workspace"
    )


def _measure(case: Case, stream: Stream, ceiling_gb_s: float, args: argparse.Namespace) -> dict[str, Any]:
    from trocar.bench import gpu
    from trocar.bench.timing import interleave

    on_cpu = run_case(case, lambda array: array, None)
    on_gpu = {name: stream.get(array) for name, array in run_case(case, stream.put, stream.handle).items()}
    sets = [_placed(case, stream) for _ in range(gpu.sets_for(case.traffic))]
    timing = gpu.time_calls(
        stream,
        [partial(case.call, **arrays, stream=stream.handle) for arrays in sets],
        args.repeats,
    )
    arrays = case.inputs | case.outputs
    cpu = interleave({"cpu": lambda: case.call(**arrays, stream=None)}, args.cpu_repeats)["cpu"]
    p50_ms = timing.percentile_ms(50.0)
    achieved_gb_s = case.traffic / (p50_ms * 1e6)
    return {
        "kernel": case.name,
        "parity": agree(case, on_gpu, on_cpu),
        "memory_bound": case.memory_bound,
        "megabytes": case.traffic / 1e6,
        "gpu_p50_ms": p50_ms,
        "gb_s": achieved_gb_s,
        "share_of_copy": achieved_gb_s / ceiling_gb_s,
        "cpu_1_thread_p50_ms": cpu.percentile_ms(50.0),
        "timing": timing.document(),
    }


def _placed(case: Case, stream: Stream) -> dict[str, DeviceArray]:
    return {name: stream.put(array) for name, array in (case.inputs | case.outputs).items()}


def _video(seed: int) -> Iterator[Case]:
    import numpy as np

    from trocar.runtime.kernels.overlay import overlay, palette
    from trocar.runtime.kernels.postprocess import postprocess
    from trocar.runtime.kernels.preprocess import preprocess

    rng = np.random.default_rng(seed)
    bgr = rng.integers(0, 256, (*FRAME, 3), dtype=np.uint8)
    nv12 = rng.integers(0, 256, (FRAME[0] * 3 // 2, FRAME[1]), dtype=np.uint8)
    for name, src, options in (
        ("preprocess_bgr", bgr, {"pixel_format": "bgr"}),
        ("preprocess_bgr_area", bgr, {"pixel_format": "bgr", "resize": "area"}),
        ("preprocess_nv12", nv12, {"pixel_format": "nv12"}),
    ):
        for dtype in (np.float32, np.float16):
            out = np.zeros((3, 512, 512), dtype)
            yield Case(f"{name}_{out.dtype.name}", {"src": src}, {"out": out}, _with(preprocess, **options))
    logits = _blobs(rng, (5, 256, 448))
    labels = np.full(FRAME, 255, np.uint8)
    found: dict[str, npt.NDArray[Any]] = {
        "labels": labels,
        "confidence": labels.copy(),
        "areas": np.zeros(5, np.int32),
        "boxes": np.zeros((5, 4), np.int32),
        "faults": np.zeros(1, np.int32),
    }
    for dtype in (np.float32, np.float16):
        yield Case(
            f"postprocess_{np.dtype(dtype).name}", {"logits": logits.astype(dtype)}, found, postprocess
        )
    everywhere = rng.integers(1, 5, (FRAME[0] // 40, FRAME[1] // 40)).astype(np.uint8)
    everywhere = everywhere.repeat(40, axis=0).repeat(40, axis=1)
    yield Case(
        "overlay",
        {"labels": everywhere},
        {"frame": bgr},
        _with(overlay, palette=palette(COLOURS, alpha=0.4), contour=2),
        bytes_moved=everywhere.nbytes + 2 * bgr.nbytes,
    )


def _histograms(seed: int) -> Iterator[Case]:
    import numpy as np

    from trocar.runtime.kernels.dvh import cumulative_histograms_into, workspace_values

    side, regions, bins = 200, 5, 40_000
    rng = np.random.default_rng(seed)
    axis = np.linspace(-1, 1, side)
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    dose = (145.0 / (distance + 0.3) + rng.uniform(0, 5, distance.shape)).astype(np.float32)
    radii = (0.21, 0.24, 0.3, 0.15, 0.25)
    fractions = [np.clip((2 * r - distance) * side / 4, 0, 1).astype(np.float32) for r in radii]

    def call(dose: Any, above: Any, sums: Any, workspace: Any, stream: int | None, **named: Any) -> None:
        cumulative_histograms_into(
            dose,
            list(named.values()),
            above,
            sums,
            unit=145.0,
            bins_per_unit=8000,
            workspace=workspace,
            stream=stream,
        )

    yield Case(
        "dvh",
        {"dose": dose} | {f"fraction_{index}": fraction for index, fraction in enumerate(fractions)},
        {
            "above": np.zeros((regions, bins + 1)),
            "sums": np.zeros((regions, 4)),
            "workspace": np.zeros(workspace_values("cuda", dose.size, regions)),
        },
        call,
        bytes_moved=dose.nbytes * (1 + regions),
        tolerance=1e-6,
    )


def _dose(seed: int) -> Iterator[Case]:
    """The functor does a hundred operations a value: these are bound by arithmetic, not by memory."""
    import numpy as np

    from trocar.planners.dose.engine import DoseEngine
    from trocar.planners.dose.source import load_source
    from trocar.runtime.kernels import dose

    table = DoseEngine(load_source("i125-6711")).table
    rng = np.random.default_rng(seed)
    points, seeds = rng.uniform(0, 6, (100_000, 3)), rng.uniform(0, 6, (100, 3))
    candidates, samples = rng.uniform(0, 6, (800, 3)), rng.uniform(0, 6, (30_000, 3))
    yield Case(
        "dose_points",
        {"points": points, "seeds": seeds},
        {"out": np.zeros(len(points))},
        _with(dose.dose_points_into, source=table),
        memory_bound=False,
    )
    yield Case(
        "dose_matrix",
        {"seeds": candidates, "points": samples},
        {"out": np.zeros((len(candidates), len(samples)), np.float32)},
        _with(dose.dose_matrix_into, source=table),
        memory_bound=False,
    )


def _blobs(rng: np.random.Generator, shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """Logits whose largest is the same over patches, as a network's is, with noise."""
    import numpy as np

    classes, rows, columns = shape
    coarse = rng.normal(0, 3, (classes, rows // 16, columns // 16))
    logits = coarse.repeat(16, axis=1).repeat(16, axis=2) + rng.normal(0, 0.3, shape)
    return np.asarray(logits, dtype=np.float32)


def _with(call: Callable[..., None], **options: Any) -> Callable[..., None]:
    def bound(**arguments: Any) -> None:
        call(**options, **arguments)

    return bound
