"""How often a camera outside the body is recognised, and one inside mistaken, on rendered scenes."""

from __future__ import annotations

import argparse
from typing import Any

NAME = "privacy"
HELP = "rates of out-of-body detection on rendered rooms, operations and off-colour scenes"

_SHAPE = (256, 448)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--scenes", type=int, default=200, help="of each kind (default 200)")
    parser.add_argument("--seed", type=int, default=40_000, help="first scene's number (default 40000)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure every scene, then count."""
    from collections.abc import Iterator

    import numpy as np

    from trocar.bench.progress import track
    from trocar.runtime.errors import InvalidInput
    from trocar.video.annotator.renderer import OUT_OF_BODY, SCRIPT, Phase, render_clip, render_frame
    from trocar.video.privacy import PrivacySettings
    from trocar.video.quality import inspect

    if args.scenes < 1:
        raise InvalidInput(f"expected at least one scene, got {args.scenes}")
    inside = tuple(phase for phase in SCRIPT if phase.name != OUT_OF_BODY)

    def rooms(seed: int) -> Iterator[Any]:
        yield from (one.scene for one in render_clip(seed, 1, 1.0, _SHAPE, (Phase(OUT_OF_BODY, 1.0),)))

    def operations(seed: int) -> Iterator[Any]:
        # One frame of each phase in the patient.
        yield from (one.scene for one in render_clip(seed, len(inside), 1.0, _SHAPE, inside))

    def off_colour(seed: int) -> Iterator[Any]:
        yield render_frame(seed, _SHAPE)

    outside = PrivacySettings().outside
    rows = []
    for name, render in (("rooms", rooms), ("operations", operations), ("off-colour scenes", off_colour)):
        seeds = range(args.seed, args.seed + args.scenes)
        found = [
            inspect(np.ascontiguousarray(scene.image_rgb[..., ::-1])).out_of_body
            for seed in track(seeds, name)
            for scene in render(seed)
        ]
        blurred = sum(value > outside for value in found)
        rows.append({"scenes": name, "frames": len(found), "blurred": blurred, "share": blurred / len(found)})
    return {"tables": {"rates": rows}}
