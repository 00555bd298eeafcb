"""Every model on every provider, in every precision and batch size, beside ONNX Runtime called by hand."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trocar.runtime.repository.store import Model

NAME = "session"
HELP = "one run of every model x provider x precision x batch, beside onnxruntime alone"

DEVICES = ("cpu", "cuda")
FULL = "fp32"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--repository", default="", metavar="DIR", help="(default: the shipped models)")
    parser.add_argument("--models", default="", metavar="NAME,...", help="(default: all of the repository)")
    parser.add_argument("--devices", default=",".join(DEVICES), help="(default %(default)s)")
    parser.add_argument("--batches", default="1,4", help="where a model takes any (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(default %(default)s)")
    parser.add_argument("--repeats", type=int, default=100, help="(default %(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Open all that opens here, then run everything in turn."""
    from trocar.bench.timing import beside, interleave
    from trocar.runtime.errors import DeviceError, InvalidInput
    from trocar.runtime.repository.load import open_model
    from trocar.runtime.repository.store import open_repository

    repository = open_repository(args.repository)
    names = [name for name in args.models.split(",") if name] or list(repository.names())
    batches = _batches(args.batches)
    if args.repeats < 1:
        raise InvalidInput(f"--repeats: expected 1 or more, got {args.repeats}")
    cases: dict[str, Callable[[], Any]] = {}
    bare: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for name in names:
        model = repository.open(name)
        for device in args.devices.split(","):
            for variant in (FULL, *model.manifest.variants):
                try:
                    session = open_model(model, threads=args.threads, device=device, variant=variant)
                except DeviceError as error:
                    left_out[f"{name} {device} {variant}"] = str(error)
                    continue
                for batch in batches if _any_batch(model) else (1,):
                    title = f"{name} {session.provider} {variant} batch {batch}"
                    feeds, bound = feeds_and_run(session, batch)
                    cases[title] = bound
                    if native := onnxruntime_alone(model, variant, session.provider, args.threads, feeds):
                        bare[title] = f"{title}, onnxruntime alone"
                        cases[bare[title]] = native
    if not cases:
        raise InvalidInput(f"expected a session that opens here, got none: {'; '.join(left_out.values())}")
    timings = {name: timing.document() for name, timing in interleave(cases, args.repeats).items()}
    for title, floor in bare.items():
        timings[title] = beside(timings[title], timings[floor]["p50_ms"], "onnxruntime's own run of the file")
    return {"threads": args.threads, "left_out": left_out, "timings": timings}


def feeds_and_run(session: Any, batch: int) -> tuple[dict[str, Any], Callable[[], Any]]:
    """Random inputs, and a run of them into buffers that are bound once."""
    import numpy as np

    from trocar.runtime.session.buffers import host_array

    feeds: dict[str, Any] = {}
    for spec in session.inputs:
        shape = tuple(size if isinstance(size, int) else batch for size in spec.shape)
        feeds[spec.name] = host_array(shape, spec.dtype, session.device)
        feeds[spec.name][...] = np.random.default_rng(0).uniform(0, 1, shape)
    answer = session.run(feeds)
    outputs = {name: host_array(each.shape, each.dtype.name, session.device) for name, each in answer.items()}
    return feeds, session.bind(feeds, outputs).run


def onnxruntime_alone(
    model: Model, variant: str, provider: str, threads: int, feeds: dict[str, Any]
) -> Callable[[], Any] | None:
    """The same graph as a user of onnxruntime runs it; None of an engine, which it does not read."""
    import onnxruntime

    chosen = model.manifest.variants.get(variant)
    if chosen is not None and chosen.format != "onnx":
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    content = model.read(chosen.file if chosen is not None else "model.onnx")
    native = onnxruntime.InferenceSession(content, options, providers=[provider])
    return lambda: native.run(None, feeds)


def _any_batch(model: Model) -> bool:
    """Whether the first axis of every input is free."""
    return all(spec.shape and not isinstance(spec.shape[0], int) for spec in model.manifest.inputs)


def _batches(text: str) -> list[int]:
    from trocar.runtime.errors import InvalidInput

    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise InvalidInput(f"--batches: expected numbers of 1 or more such as 1,4, got {text!r}")
    return list(dict.fromkeys(found))
