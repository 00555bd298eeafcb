"""What a model's variants cost to open and to run here, and whether bound buffers beat fresh ones."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trocar.runtime.repository.store import Model
    from trocar.runtime.session.base import Session, TensorSpec

NAME = "sessions"
HELP = "a model's variants (fp32, fp16, int8, engines): time to open, time to run, fresh and bound buffers"

_COLUMNS = ("p50_ms", "p99_ms", "max_ms", "min_ms")
_OPENED = 7  # times; the least counts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--repository", default="", metavar="DIR", help="(default: the shipped models)")
    parser.add_argument("--model", default="tpgan", help="(default %(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="(default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(default %(default)s)")
    parser.add_argument("--device", default="cpu", help="auto, cpu or cuda (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=100, help="(default %(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Open every variant, then run them in turn."""
    from trocar.bench.timing import interleave
    from trocar.runtime.errors import DeviceError, InvalidInput
    from trocar.runtime.repository.store import Repository, shipped

    if args.batch < 1 or args.repeats < 1:
        raise InvalidInput(f"expected batch and repeats of 1 or more, got {args.batch} and {args.repeats}")
    model = (Repository(Path(args.repository)) if args.repository else shipped()).open(args.model)
    sessions: dict[str, dict[str, Any]] = {}
    opened_ms: dict[str, float] = {}
    cases: dict[str, Callable[[], Any]] = {}
    left_out: dict[str, str] = {}
    for variant in ("fp32", *model.manifest.variants):
        try:
            session, open_ms = _opened(model, variant, args)
        except DeviceError as error:
            left_out[variant] = str(error)
            continue
        opened_ms[variant] = open_ms
        sessions[variant] = {"provider": session.provider, "device": str(session.device)}
        cases |= _cases(variant, session, args.batch)
    timings = {name: timing.document() for name, timing in interleave(cases, args.repeats).items()}
    rows = [
        {
            "variant": name.removesuffix(" bound"),
            "buffers": "bound" if name.endswith(" bound") else "fresh",
            **{key: round(timing[key], 3) for key in _COLUMNS if key in timing},
            "open_ms": round(opened_ms[name.removesuffix(" bound")], 1),
        }
        for name, timing in timings.items()
    ]
    return {
        "model": f"{model.manifest.name}/{model.manifest.version}",
        "inputs": {spec.name: list(_shape(spec, args.batch)) for spec in model.manifest.inputs},
        "sessions": sessions,
        "left_out": left_out,
        "timings": timings,
        "tables": {"one run, ms": rows},
    }


def _opened(model: Model, variant: str, args: argparse.Namespace) -> tuple[Session, float]:
    """Open a variant, and say in how many ms; the library was imported before."""
    from trocar.runtime.repository.load import open_model

    session = open_model(model, threads=args.threads, device=args.device, variant=variant)
    took = []
    for _ in range(_OPENED):
        began = time.perf_counter()
        open_model(model, threads=args.threads, device=args.device, variant=variant)
        took.append(1000.0 * (time.perf_counter() - began))
    return session, min(took)


def _cases(variant: str, session: Session, batch: int) -> dict[str, Callable[[], Any]]:
    """Run with fresh outputs, and into buffers that are bound once."""
    from trocar.bench.workloads.session import feeds_and_run

    feeds, bound = feeds_and_run(session, batch)
    return {variant: lambda: session.run(feeds), f"{variant} bound": bound}


def _shape(spec: TensorSpec, batch: int) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else batch for size in spec.shape)
