"""`trocar train annotator`, `polyp` and `painter`: on rendered frames, or on a data set's."""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trocar.runtime.command import Command

if TYPE_CHECKING:
    from trocar.video.annotator.data import Source
    from trocar.video.annotator.settings import TrainSettings

ARM_NAMES = ("full", "no-adversarial")
# The share of frames that a painter repaints.
PAINTED = 0.25
NEEDED = ("torch", "safetensors")
RENDERER = "renderer"


def configure(parser: argparse.ArgumentParser, network: str) -> None:
    """Declare the options."""
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="decides data and run (%(default)s)")
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        default=RENDERER,
        metavar="NAME",
        help="renderer, or a data set by name, such as endovis17 or kvasir-seg; a wrong one lists them",
    )
    data.add_argument("--folder", type=Path, metavar="DIR", help="where the data set is")
    data.add_argument("--frames", type=int, metavar="N", help="frames an epoch")
    run = parser.add_argument_group("run")
    run.add_argument("--arm", choices=ARM_NAMES, default="full", help="which loss terms (%(default)s)")
    run.add_argument("--epochs", type=int, metavar="E", help="epochs")
    run.add_argument("--batch-size", type=int, metavar="B", help="frames a step")
    run.add_argument(
        "--start", type=Path, metavar="F.safetensors", help="begin with this network's weights: fine-tune"
    )
    run.add_argument(
        "--painter",
        type=Path,
        metavar="F.safetensors",
        help="repaint a quarter of the frames with this painter (`trocar train painter`)",
    )
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(%(default)s)")
    run.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that render ahead; one less than the cores if absent",
    )
    out = parser.add_argument_group("results")
    out.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(f"{network}.safetensors"),
        metavar="FILE",
        help="the network (%(default)s); its state and log stand beside it",
    )
    out.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace, network: str) -> int:
    """Train."""
    settings = _checked(args, network)
    from trocar.training.watch import Console
    from trocar.video.annotator.network import NETWORK, POLYP
    from trocar.video.annotator.painter import load_painter
    from trocar.video.annotator.run import train_network
    from trocar.video.annotator.train import Trainer

    device = _device(args.device)
    classes = (NETWORK if network == "annotator" else POLYP).classes
    painter = load_painter(args.painter, len(classes)) if args.painter is not None else None
    source = _source(args, network)
    shown = [(f"dice_{number}", name) for number, name in enumerate(classes)]
    try:
        with Console().training(settings.epochs, shown) as watcher:
            metadata = train_network(
                Trainer(source, settings, device=device, painter=painter),
                classes,
                output=args.output,
                watcher=watcher,
                start=args.start,
                log_folder=args.output.with_name(f"{args.output.stem}.tensorboard"),
            )
    finally:
        source.close()
    if args.json:
        print(json.dumps({"output": str(args.output), "device": device, **metadata}))
    else:
        for name, value in metadata["metrics"].items():
            print(f"{name:<16} {value:.4g}")
        print(f"{'network':<16} {args.output}")
    return 0


def _checked(args: argparse.Namespace, network: str) -> TrainSettings:
    """Refuse what cannot work before minutes are spent on it."""
    from trocar.runtime.errors import InvalidInput
    from trocar.video.annotator.settings import train_settings

    for option, value, low, high in (
        ("--seed", args.seed, 0, 2**31 - 1),
        ("--frames", args.frames, 2, 10**7),
        ("--epochs", args.epochs, 1, 100_000),
        ("--batch-size", args.batch_size, 1, 1024),
        ("--workers", args.workers, 0, 1024),
    ):
        if value is not None and not low <= value <= high:
            raise InvalidInput(f"{option}: expected {low} to {high}, got {value}")
    if (args.data == RENDERER) != (args.folder is None):
        raise InvalidInput("expected --folder DIR with a data set, and none with the renderer")
    _check_output(args.output)
    wanted = {"frames": args.frames, "epochs": args.epochs, "batch_size": args.batch_size}
    if args.painter is not None:
        wanted["painted"] = PAINTED
    return train_settings(
        network, args.arm, args.seed, **{name: value for name, value in wanted.items() if value is not None}
    )


def _check_output(output: Path) -> None:
    from trocar.runtime.errors import InvalidInput

    if output.suffix != ".safetensors":
        raise InvalidInput(f"--output: expected a name that ends in .safetensors, got {output.name}")
    if not output.absolute().parent.is_dir():
        raise InvalidInput(f"--output: expected a folder that exists, got {output.parent}")
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InvalidInput(
            f"training needs {' and '.join(missing)}, not installed here: pip install 'trocar[train]'"
        )


def _source(args: argparse.Namespace, network: str) -> Source:
    from trocar.video.annotator.data import RendererSource
    from trocar.video.annotator.folder import FolderSource

    if args.data != RENDERER:
        return FolderSource(args.seed, args.folder, args.data, polyps=network == "polyp")
    workers = args.workers if args.workers is not None else max(0, (os.cpu_count() or 1) - 1)
    return RendererSource(args.seed, workers, "polyps" if network == "polyp" else "tools")


def _device(wanted: str) -> str:
    import cv2
    import torch

    from trocar.runtime.errors import InvalidInput

    if wanted == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("--device cuda: expected a CUDA device, found none")
    cv2.setNumThreads(1)
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def _command(network: str, words: str) -> Command:
    def declare(parser: argparse.ArgumentParser) -> None:
        configure(parser, network)

    begin: Any = partial(run, network=network)
    return Command(name=network, help=words, configure=declare, run=begin)


def configure_painter(parser: argparse.ArgumentParser) -> None:
    """Declare the painter's options."""
    parser.add_argument(
        "--of", choices=("annotator", "polyp"), default="annotator", help="whose label maps (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="(%(default)s)")
    parser.add_argument("--epochs", type=int, default=4, metavar="E", help="(%(default)s)")
    parser.add_argument("--frames", type=int, default=768, metavar="N", help="an epoch (%(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=Path("painter.safetensors"), metavar="FILE")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run_painter(args: argparse.Namespace) -> int:
    """Train a painter on rendered frames."""
    from trocar.runtime.errors import InvalidInput

    for option, value, least in (
        ("--seed", args.seed, 0),
        ("--epochs", args.epochs, 1),
        ("--frames", args.frames, 8),
    ):
        if not least <= value < 2**31:
            raise InvalidInput(f"{option}: expected {least} to {2**31 - 1}, got {value}")
    _check_output(args.output)
    from trocar.video.annotator.data import RendererSource
    from trocar.video.annotator.painter import PainterSettings, save_painter, train_painter
    from trocar.video.annotator.train import COARSE_SHAPE
    from trocar.video.types import CLASSES, POLYP_CLASSES

    polyps = args.of == "polyp"
    classes = len(POLYP_CLASSES if polyps else CLASSES)
    settings = PainterSettings(classes, args.seed, args.epochs, args.frames)
    source = RendererSource(args.seed, 0, "polyps" if polyps else "tools")
    facts: dict[str, Any] = {}
    for number, (painter, figures) in enumerate(train_painter(source, settings, COARSE_SHAPE), start=1):
        facts = {"epochs": number, **{name: round(value, 4) for name, value in figures.items()}}
        print("  ".join(f"{name} {value}" for name, value in facts.items()), file=sys.stderr)
        save_painter(args.output, painter, {"training": {**source.facts(), "seed": args.seed, **facts}})
    print(json.dumps({"output": str(args.output), **facts}) if args.json else args.output)
    return 0


COMMAND = _command("annotator", "the network that marks instruments, on rendered frames or a data set's")
POLYP_COMMAND = _command("polyp", "the network that marks polyps, on rendered frames or a data set's")
PAINTER_COMMAND = Command(
    name="painter",
    help="the network that paints frames from label maps, on rendered frames; for `--painter`",
    configure=configure_painter,
    run=run_painter,
)
