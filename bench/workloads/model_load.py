"""From the request for a model to its first answer: files hashed, graph checked, opened and run once."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trocar.bench.timing import Timing
    from trocar.runtime.repository.store import Model, Repository

NAME = "model-load"
HELP = "time from a request for a model to its first answer, in new processes and in this one"

LIMIT_MS = 300.0
# What a new process does; `warm` imports what every session needs before the clock starts.
_CHILD = """
import json, sys, time
name, folder, key, warm = sys.argv[1:]
if warm:
    import numpy, onnxruntime
start, cpu_start = time.perf_counter(), time.process_time()
from trocar.bench.workloads.model_load import answer
from trocar.runtime.repository.store import open_repository
digest = answer(open_repository(folder, require_signature=key), name)["answer_sha256"]
took = {"ms": 1e3 * (time.perf_counter() - start), "cpu_ms": 1e3 * (time.process_time() - cpu_start)}
print(json.dumps(took | {"answer_sha256": digest}))
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--repository", help="a model repository (default: the shipped models)")
    parser.add_argument("--require-signature", help="public keys; the signature is checked too")
    parser.add_argument("--repeats", type=int, default=50, help="loads in this process (default 50)")
    parser.add_argument("--processes", type=int, default=20, help="new processes of each kind (default 20)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure every model; it passes where each load of a model gives the same answer."""
    from trocar.runtime.errors import InvalidInput
    from trocar.runtime.repository.store import open_repository

    if args.repeats < 1 or args.processes < 1:
        raise InvalidInput("expected --repeats and --processes of 1 or more")
    repository = open_repository(args.repository or "", require_signature=args.require_signature or "")
    if not repository.names():
        raise InvalidInput(f"expected models in {repository.root}, got none")
    models = {name: _measure(args, repository, name) for name in repository.names()}
    return {"models": models, "passed": all(model["answers"] == 1 for model in models.values())}


def answer(repository: Repository, name: str) -> dict[str, Any]:
    """Open a model, run it once on zeros, and say how long each step took."""
    import numpy as np

    from trocar.runtime.repository.load import open_model

    times = [time.perf_counter()]
    model = repository.open(name)
    times.append(time.perf_counter())
    session = open_model(model, device="cpu")
    times.append(time.perf_counter())
    feeds = {
        spec.name: np.zeros([axis if isinstance(axis, int) else 1 for axis in spec.shape], spec.dtype)
        for spec in session.inputs
    }
    outputs = session.run(feeds)
    times.append(time.perf_counter())
    digest = hashlib.sha256(b"".join(outputs[key].tobytes() for key in sorted(outputs))).hexdigest()
    steps = zip(("verify", "open", "first_answer"), times[:-1], times[1:], strict=True)
    return {
        "answer_sha256": digest,
        "size_bytes": model.size_bytes,
        "ms": {step: 1e3 * (end - start) for step, start, end in steps},
    }


def _measure(args: argparse.Namespace, repository: Repository, name: str) -> dict[str, Any]:
    from trocar.bench.progress import track
    from trocar.bench.timing import beside

    samples: dict[str, list[float]] = {}
    answers = {answer(repository, name)["answer_sha256"]}  # refuses what cannot be opened, before any process
    for _ in track(range(args.processes), f"{name}: new processes"):
        for kind, warm in (("new_process", ""), ("new_process_imported", "1")):
            options = (args.repository or "", args.require_signature or "", warm)
            command = [sys.executable, "-c", _CHILD, name, *options]
            start = time.perf_counter()
            # In a group of its own, a process is not interrupted with this one.
            done = subprocess.run(command, capture_output=True, text=True, check=True, process_group=0)
            whole_ms = 1e3 * (time.perf_counter() - start)
            said = json.loads(done.stdout)
            samples.setdefault(kind, []).append(said["ms"])
            samples.setdefault(f"{kind}_cpu", []).append(said["cpu_ms"])
            if not warm:
                samples.setdefault("whole_new_process", []).append(whole_ms)
            answers.add(said["answer_sha256"])
    loads, model = [], repository.open(name)
    for _ in track(range(args.repeats), f"{name}: loads"):
        loads.append(answer(repository, name))
        samples.setdefault("same_process_onnxruntime_alone", []).append(_onnxruntime_alone_ms(model))
    for load in loads:
        samples.setdefault("same_process", []).append(sum(load["ms"].values()))
        for step, took in load["ms"].items():
            samples.setdefault(f"same_process_{step}", []).append(took)
        answers.add(load["answer_sha256"])
    timings = {kind: _timing(values).document() for kind, values in samples.items()}
    for kind in ("new_process", "new_process_imported", "same_process"):
        timings[kind]["limit_ms"] = LIMIT_MS
    floor_ms = timings["same_process_onnxruntime_alone"]["p50_ms"]
    timings["same_process"] = beside(
        timings["same_process"], floor_ms, "the file opened and run by onnxruntime"
    )
    return {"size_bytes": loads[0]["size_bytes"], "answers": len(answers), "timings": timings}


def _onnxruntime_alone_ms(model: Model) -> float:
    """Open the same bytes and run them once without us: nothing is hashed, checked or verified."""
    import numpy as np
    import onnxruntime

    content = model.read("model.onnx")
    feeds = {
        spec.name: np.zeros([axis if isinstance(axis, int) else 1 for axis in spec.shape], spec.dtype)
        for spec in model.manifest.inputs
    }
    start = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(None, feeds)
    return 1e3 * (time.perf_counter() - start)


def _timing(samples_ms: list[float]) -> Timing:
    from trocar.bench.timing import Timing

    return Timing(tuple(samples_ms))
