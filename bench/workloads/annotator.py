"""How good is the annotator on real frames it never saw? Beside it: no discriminator, and a colour threshold.

The frames are read from a folder of data sets, each in its own folder; none is part of this package.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trocar.runtime.session.base import Session
    from trocar.video.annotator.evaluate import Annotate, Summary
    from trocar.video.annotator.loaders import LabelledFrame

NAME = "annotator"
HELP = "Dice, IoU and surface Dice on real frames, zero-shot, beside baselines; time of a frame"

# Data sets by the folder that holds them.
SETS = {
    "endovis17": "endovis17",
    "cholecseg8k_instrument": "cholecseg8k-instrument",
    "artnet_tool_tip": "artnet",
    "kvasir_seg": "kvasir-seg",
    "cvc612": "cvc-612",
}
SHIPPED = "GAN"
_MODELS = {False: "annotator", True: "polyp"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--folder", required=True, metavar="DIR", help="a folder of data sets")
    parser.add_argument("--repository", metavar="DIR", help="models to measure (default: the shipped ones)")
    parser.add_argument(
        "--beside",
        default="",
        metavar="NAME=DIR,...",
        help="other repositories to measure beside them, such as no-adversarial=DIR",
    )
    parser.add_argument("--threads", type=int, default=2, help="of ONNX Runtime (default 2)")
    parser.add_argument(
        "--repeats", type=int, default=100, help="timed frames (default 100); 0: accuracy alone"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Score every model on every data set that is there, and time the shipped ones."""
    from trocar.runtime.errors import InvalidInput

    folder = Path(args.folder)
    sets = {name: folder / name for name in SETS if (folder / name).is_dir()}
    if not sets:
        raise InvalidInput(f"--folder {args.folder}: expected one of {', '.join(SETS)} in it")
    repositories = _repositories(args)
    accuracy: dict[str, list[dict[str, Any]]] = {}
    tips, timings = [], {}
    for polyps, model in _MODELS.items():
        sessions = _sessions(repositories, model, args.threads)
        held = {name: _frames(sets[name], name) for name in sets if _polyps(name) == polyps}
        if held:
            title = f"{'polyps' if polyps else 'instruments'} on real frames"
            accuracy[title] = _accuracy(held, sessions, polyps=polyps)
        if held and not polyps:
            tips += _tips(held, sessions)
        if SHIPPED in sessions and args.repeats:
            timings[model] = _timed(sessions[SHIPPED], args.repeats)
    return {
        "tables": {**accuracy, "tips": tips, "time of a frame": _time_rows(timings, args.threads)},
        "timings": timings,
        "sets": sorted(sets),
    }


def _polyps(name: str) -> bool:
    from trocar.video.annotator.encodings import ENCODINGS

    return ENCODINGS[SETS[name]].polyps


def _frames(folder: Path, name: str) -> list[LabelledFrame]:
    from trocar.video.annotator.loaders import load_frames

    return list(load_frames(folder, SETS[name]))


def _repositories(args: argparse.Namespace) -> dict[str, Path]:
    from trocar.runtime.errors import InvalidInput
    from trocar.runtime.repository.store import shipped

    found = {SHIPPED: Path(args.repository) if args.repository else shipped().root}
    for text in filter(None, args.beside.split(",")):
        name, equals, place = text.partition("=")
        if not (name and equals and Path(place).is_dir()):
            raise InvalidInput(f"--beside: expected NAME=DIR with a folder that exists, got {text!r}")
        found[name] = Path(place)
    return found


def _sessions(repositories: Mapping[str, Path], model: str, threads: int) -> dict[str, Session]:
    """The model of each repository that has it."""
    from trocar.runtime.errors import ModelNotFound
    from trocar.runtime.repository.load import open_model
    from trocar.runtime.repository.store import Repository

    found: dict[str, Session] = {}
    for name, folder in repositories.items():
        try:
            found[name] = open_model(Repository(folder).open(model), threads=threads, device="cpu")
        except ModelNotFound:
            continue
    return found


def _accuracy(
    held: Mapping[str, list[LabelledFrame]], sessions: Mapping[str, Session], *, polyps: bool
) -> list[dict[str, Any]]:
    from trocar.video.annotator.evaluate import by_network, grey_is_instrument, red_is_polyp, summarise
    from trocar.video.annotator.network import LEAST_REGION_PX

    # As the manifest says: the smallest regions are dropped. Beside it, what the graph alone gives.
    least_px = 0 if polyps else LEAST_REGION_PX
    models: dict[str, Annotate] = {name: by_network(each, least_px) for name, each in sessions.items()}
    if SHIPPED in sessions and least_px:
        models[f"{SHIPPED}, all regions"] = by_network(sessions[SHIPPED])
    models["colour threshold"] = red_is_polyp if polyps else grey_is_instrument
    rows = []
    every = {"all of these": [frame for frames in held.values() for frame in frames]}
    for name, frames in {**held, **every}.items():
        for model, annotate in models.items():
            found = summarise(frames, annotate, polyps=polyps)
            wanted = found if name in held else found[:1]
            rows += [_row(name, model, summary) for summary in wanted]
    return rows


def _row(name: str, model: str, summary: Summary) -> dict[str, Any]:
    figures = {"dice": summary.dice, "iou": summary.iou, "nsd": summary.nsd}
    rounded = {key: round(value, 3) for key, value in figures.items()}
    return {"set": name, "frames": summary.frames, "model": model, "class": summary.of, **rounded}


def _tips(held: Mapping[str, list[LabelledFrame]], sessions: Mapping[str, Session]) -> list[dict[str, Any]]:
    """How far tips are off, for the sets that mark them."""
    import math

    from trocar.video.annotator.evaluate import tip_errors

    rows = []
    for name, frames in held.items():
        for model, session in sessions.items():
            errors = tip_errors(frames, session)
            near = [error for error in errors if math.isfinite(error)]
            if errors:
                mean = round(sum(near) / len(near), 2) if near else None
                rows.append(
                    {
                        "set": name,
                        "model": model,
                        "tips": len(errors),
                        "found": len(near),
                        "mean_error_pct_of_width": mean,
                    }
                )
    return rows


def _timed(session: Session, repeats: int) -> dict[str, float]:
    import numpy as np

    from trocar.bench.timing import interleave
    from trocar.video.types import HEIGHT, WIDTH

    image = np.random.default_rng(0).random((1, 3, HEIGHT, WIDTH), dtype=np.float32)
    return interleave({"frame": lambda: session.run({"image": image})}, repeats)["frame"].document()


def _time_rows(timings: Mapping[str, Mapping[str, float]], threads: int) -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "picture": "256 x 448",
            "threads": threads,
            **{key: round(found[key], 2) for key in ("min_ms", "p50_ms", "p99_ms", "max_ms") if key in found},
        }
        for model, found in timings.items()
    ]
