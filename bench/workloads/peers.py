"""What others do the same work in: in one interleaved run, as far as they are installed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from trocar.bench.peers import Peer

NAME = "peers"
HELP = (
    "onnxruntime, OpenCV, dicompyler-core, pygrpm and inference servers beside ours, in one interleaved run"
)

GROUPS = ("network", "frame", "dvh", "dose")
MODEL = "annotator"
# Slower than the rest by orders: so many repeats are enough for them.
_SLOW_REPEATS = 5
_DOSE_SEEDS, _DOSE_SIDE = 5, 40
_DVH_BALLS = {"CTV": (0.0, 0.0, 0.0, 21.0), "PTV": (0.0, 0.0, 0.0, 24.0), "Rectum": (0.0, 38.0, 0.0, 15.0)}


@dataclass(slots=True)
class Found:
    """What is measured, and what is not and why.

    Parameters
    ----------
    ours : case to the case of ours that it is compared with.
    slow : cases of few repeats.
    checks : how far results differ, by name.
    """

    cases: dict[str, Callable[[], object]] = field(default_factory=dict)
    ours: dict[str, str] = field(default_factory=dict)
    slow: set[str] = field(default_factory=set)
    missing: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    checks: dict[str, float] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--groups", default=",".join(GROUPS), help="(default %(default)s)")
    parser.add_argument(
        "--python",
        default="",
        metavar="PATH",
        help="a Python that has dicompyler-core or pygrpm, which want an older pydicom than trocar "
        "(default: this one)",
    )
    parser.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="NAME=HOST:PORT",
        help="a running KServe, Triton, nvidia-pytriton or other server of the Open Inference Protocol "
        f"that serves {MODEL} (may be repeated)",
    )
    parser.add_argument("--threads", type=int, default=1, help="of each network (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=50, help="(default %(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Set up all that is there, run it in turn, and name what is missing."""
    import tempfile

    from trocar.bench.timing import interleave
    from trocar.runtime.errors import InvalidInput

    groups = args.groups.split(",")
    if unknown := sorted(set(groups) - set(GROUPS)):
        raise InvalidInput(f"--groups: expected some of {', '.join(GROUPS)}, got {unknown[0]!r}")
    if args.repeats < 1:
        raise InvalidInput(f"--repeats: expected 1 or more, got {args.repeats}")
    found = Found()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trocar-peers-")))
        setups = {"network": _networks, "frame": _frames, "dvh": _dvhs, "dose": _doses}
        for group in groups:
            setups[group](found, stack, folder, args)
        fewer = dict.fromkeys(found.slow, min(args.repeats, _SLOW_REPEATS))
        times = interleave(found.cases, args.repeats, fewer=fewer)
    timings = {name: timing.document() for name, timing in times.items()}
    return {
        "threads": args.threads,
        "timings": timings,
        "times_ours": {
            name: timings[name]["p50_ms"] / timings[ours]["p50_ms"] for name, ours in found.ours.items()
        },
        "versions": found.versions,
        "missing": found.missing,
        "largest_difference": found.checks,
    }


def _networks(found: Found, stack: ExitStack, folder: Path, args: argparse.Namespace) -> None:  # noqa: ARG001
    """A frame through the annotator: our session, onnxruntime alone, and every server that serves it."""
    from trocar.bench.serving import served
    from trocar.bench.workloads._open_inference import output_of
    from trocar.bench.workloads.session import feeds_and_run, onnxruntime_alone
    from trocar.runtime.repository.load import open_model
    from trocar.runtime.repository.store import shipped

    model = shipped().open(MODEL)
    session = open_model(model, threads=args.threads, device="cpu", variant="fp32")
    feeds, bound = feeds_and_run(session, 1)
    native = onnxruntime_alone(model, "fp32", session.provider, args.threads, feeds)
    assert native is not None
    found.cases |= {"network trocar": bound, "network onnxruntime": native}
    found.ours["network onnxruntime"] = "network trocar"
    config = '[server]\nservices = "inference"\nlog_level = "warning"\n'
    config += f"[services.inference]\nthreads = {args.threads}\n"
    ours = "server trocar"
    targets = {ours: stack.enter_context(served(config=config)).target}
    for text in args.server:
        name, target = _named(text)
        targets[f"server {name}"] = target
    expected = next(iter(session.run(feeds).values()))
    for name, target in targets.items():
        call = _served(stack, target, feeds)
        answer = output_of(call(), expected.dtype.type).reshape(expected.shape)
        found.checks[name] = float(abs(answer - expected).max())
        found.cases[name] = call
        if name != ours:
            found.ours[name] = ours
    if not args.server:
        found.missing["KServe, Triton, nvidia-pytriton"] = (
            f"expected --server NAME=HOST:PORT of one that serves {MODEL}"
        )


def _served(stack: ExitStack, target: str, feeds: dict[str, Any]) -> Callable[[], Any]:
    """A client that every server gets alike: the tensors are put into a message in each call."""
    from trocar.bench.workloads._open_inference import Client, request

    client = Client(target)
    stack.callback(client.close)
    return lambda: client.infer(request(MODEL, feeds))


def _frames(found: Found, stack: ExitStack, folder: Path, args: argparse.Namespace) -> None:  # noqa: ARG001
    """A 1080p frame to a network's input: the ways of the workload `preprocess`."""
    import cv2

    from trocar.bench.workloads.preprocess import ways_of_a_frame

    stack.callback(cv2.setNumThreads, cv2.getNumThreads())
    cv2.setNumThreads(1)
    ways = ways_of_a_frame()
    for name, call in ways.items():
        found.cases[f"frame {name}"] = call
        if name != "trocar":
            found.ours[f"frame {name}"] = "frame trocar"
    if "kornia_rs" not in ways:
        found.missing["kornia-rs"] = "not installed: pip install trocar[peers]"


def _dvhs(found: Found, stack: ExitStack, folder: Path, args: argparse.Namespace) -> None:
    """DVHs of three structures from their contours, on 80 x 80 x 80 voxels; both read files before."""
    import numpy as np

    from trocar.bench.peers import dicom
    from trocar.planners.case import case_from_bytes
    from trocar.planners.dvh import dvh
    from trocar.planners.geometry import anatomy
    from trocar.planners.types import Grid

    grid = Grid((-40.0, -20.0, -40.0), (1.0, 1.0, 1.0), (80, 80, 80))
    z, y, x = grid.axes_zyx_mm
    across = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2
    dose_gy = (300.0 / (1.0 + across / 600.0)).astype(np.float32)
    contours = dicom.rtstruct(_DVH_BALLS, 2.0)
    case = case_from_bytes(contours)

    def ours() -> Any:
        return dvh(dose_gy, anatomy(case, grid), prescription_gy=145.0)

    found.cases["dvh trocar"] = ours
    (folder / "structures.dcm").write_bytes(contours)
    (folder / "dose.dcm").write_bytes(dicom.rtdose(dose_gy, grid))
    numbers = [str(number) for number in range(1, 1 + len(_DVH_BALLS))]
    arguments = (str(folder / "structures.dcm"), str(folder / "dose.dcm"), *numbers)
    peer = _peer(found, stack, folder, args, "dicompyler", arguments)
    if peer is not None:
        mine, theirs = ours(), peer.once()["d90_gy"]
        pairs = [(mine[name.lower()].d_gy(90), value) for name, value in zip(_DVH_BALLS, theirs, strict=True)]
        found.checks["dvh dicompyler-core, D90 in %"] = max(100.0 * abs(a / b - 1.0) for a, b in pairs)
        _slow(found, "dvh dicompyler-core", "dvh trocar", peer)


def _doses(found: Found, stack: ExitStack, folder: Path, args: argparse.Namespace) -> None:
    """Dose rates of a few IAI-125A seeds on a grid of 1 mm as a line source, nothing precomputed."""
    import numpy as np

    from trocar.planners.dose.engine import DoseEngine
    from trocar.planners.dose.source import load_source

    engine = DoseEngine(load_source("i125-iai125a"))
    # Seeds between voxels: at a seed's centre no formula holds.
    seeds_mm = 5.0 * np.random.default_rng(7).integers(2, _DOSE_SIDE // 5 - 1, (_DOSE_SEEDS, 3)) + 0.5
    axis_mm = np.arange(_DOSE_SIDE, dtype=np.float64)
    points_mm = np.stack(np.meshgrid(axis_mm, axis_mm, axis_mm, indexing="ij"), axis=-1).reshape(-1, 3)

    def ours() -> np.ndarray[Any, Any]:
        return engine.points_gy(seeds_mm, 1.0, points_mm)

    found.cases["dose trocar"] = ours
    scene = {
        "least_cm": 0.0,
        "most_cm": (_DOSE_SIDE - 1) / 10.0,
        "voxel_cm": 0.1,
        "seeds_cm": (seeds_mm / 10.0).tolist(),
        "row": _DOSE_SIDE // 2,
    }
    (folder / "scene.json").write_text(json.dumps(scene), encoding="utf-8")
    peer = _peer(found, stack, folder, args, "pygrpm_dose", (str(folder / "scene.json"),))
    if peer is not None:
        row = _DOSE_SIDE // 2
        theirs = np.array(peer.once()["along_x"])[:_DOSE_SIDE]
        mine = ours().reshape(3 * (_DOSE_SIDE,))[:, row, row]
        # Theirs is a rate and ours a total: they differ by one factor.
        ratio = theirs / mine
        found.checks["dose pygrpm, along a row in %"] = float(100.0 * np.ptp(ratio) / np.median(ratio))
        _slow(found, "dose pygrpm", "dose trocar", peer)


def _peer(
    found: Found,
    stack: ExitStack,
    folder: Path,
    args: argparse.Namespace,
    script: str,
    arguments: tuple[str, ...],
) -> Peer | None:
    """Start a peer, or say why it is missing."""
    import sys

    from trocar.bench.peers import started
    from trocar.runtime.errors import Unavailable

    try:
        peer = stack.enter_context(
            started(script, args.python or sys.executable, arguments, folder / f"{script}.log")
        )
    except (OSError, Unavailable) as error:
        found.missing[script] = str(error)
        return None
    found.versions[peer.said["name"]] = peer.said["version"]
    return peer


def _slow(found: Found, name: str, ours: str, peer: Peer) -> None:
    found.cases[name] = peer.once
    found.ours[name] = ours
    found.slow.add(name)


def _named(text: str) -> tuple[str, str]:
    from trocar.runtime.errors import InvalidInput

    name, equals, target = text.partition("=")
    if not (name and equals and ":" in target):
        raise InvalidInput(f"--server: expected NAME=HOST:PORT, got {text!r}")
    return name, target
