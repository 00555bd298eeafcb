"""`trocar train tpgan`: make expert plans or take a centre's own, and train the plan generator on them."""

from __future__ import annotations

import argparse
import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trocar.runtime.command import Command

if TYPE_CHECKING:
    from trocar.planners.tpgan.data import Dataset
    from trocar.planners.tpgan.settings import TrainSettings

ARM_NAMES = ("full", "no-adversarial", "no-dose", "bce")
NEEDED = ("torch", "safetensors")
# Of the validation figures, those in an epoch's line.
SHOWN = (("dice", "Dice"), ("bce", "BCE"), ("dose", "dose misfit"), ("variety", "variety"))
DEFAULT_CASES, DEFAULT_MOVES, DEFAULT_EPOCHS = 600, 400_000, 60
NOVELTY_CASES = 400


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `trocar train tpgan`."""
    parser.description = (
        "Train the network that proposes plans, on expert plans of phantoms or on a centre's own plans. "
        "A run that was killed goes on where it was when started again with the same options."
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="decides data and run (%(default)s)")
    data = parser.add_argument_group("data")
    data.add_argument(
        "--cases", type=int, default=DEFAULT_CASES, metavar="N", help="phantoms to plan (%(default)s)"
    )
    data.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="a centre's own plans instead: NAME.seg.nrrd with NAME_plan.json or NAME_seeds.json",
    )
    data.add_argument(
        "--moves",
        type=int,
        default=DEFAULT_MOVES,
        metavar="N",
        help="search moves of an expert plan (%(default)s)",
    )
    data.add_argument("--protocol", default="ldr-i125-145", metavar="NAME|FILE.toml", help="(%(default)s)")
    data.add_argument("--source", metavar="NAME|FILE.json", help="a seed model; the protocol's if absent")
    data.add_argument("--strength-u", type=float, metavar="U", help="usual strength of one seed")
    data.add_argument(
        "--strength-spread",
        type=float,
        default=1.25,
        metavar="X",
        help="every other phantom has seeds of U/X to U*X (%(default)s)",
    )
    data.add_argument("--cache", type=Path, metavar="DIR", help="where expert plans are kept")
    run = parser.add_argument_group("run")
    run.add_argument("--arm", choices=ARM_NAMES, default="full", help="which loss terms (%(default)s)")
    run.add_argument("--epochs", type=int, default=DEFAULT_EPOCHS, metavar="E", help="(%(default)s)")
    run.add_argument("--batch-size", type=int, default=16, metavar="B", help="(%(default)s)")
    run.add_argument(
        "--no-mirror", action="store_true", help="do not learn from mirrored cases (a one-sided style)"
    )
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(%(default)s)")
    run.add_argument("--workers", type=int, metavar="N", help="processes and threads; all cores if absent")
    out = parser.add_argument_group("results")
    out.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("tpgan.safetensors"),
        metavar="FILE",
        help="the network (%(default)s); its state and log stand beside it",
    )
    out.add_argument("--json", action="store_true", help="one JSON document on stdout")


def run(args: argparse.Namespace) -> int:
    """Train."""
    _check(args)
    from trocar.planners.tpgan.run import train_network
    from trocar.planners.tpgan.train import Trainer
    from trocar.training.watch import Console

    workers = args.workers or os.cpu_count() or 1
    console = Console()
    settings = _settings(args)
    data, record = _centre(args, console) if args.data else _phantoms(args, workers, console)
    novelty = novelty_statistics(args, console)
    device = _device(args.device, workers)
    with console.training(settings.epochs, SHOWN) as watcher:
        metadata = train_network(
            Trainer(data, settings, device=device, mirror=not args.no_mirror),
            record,
            output=args.output,
            watcher=watcher,
            log_folder=args.output.with_name(f"{args.output.stem}.tensorboard"),
            novelty=novelty,
        )
    document = {"output": str(args.output), "device": device, **metadata}
    if args.json:
        print(json.dumps(document))
    else:
        for name, value in metadata["metrics"].items():
            print(f"{name:<16} {value:.4g}")
        print(f"{'network':<16} {args.output}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot work before minutes are spent on it."""
    from trocar.planners.files import check_folder
    from trocar.runtime.errors import InvalidInput

    for option, value, low, high in (
        ("--cases", args.cases, 1, 100_000),
        ("--seed", args.seed, 0, 40_000),
        ("--moves", args.moves, 0, 10**9),
        ("--epochs", args.epochs, 1, 100_000),
        ("--batch-size", args.batch_size, 1, 4096),
        ("--workers", args.workers if args.workers is not None else 1, 1, 1024),
        ("--strength-spread", args.strength_spread, 1.0, 4.0),
    ):
        if not low <= value <= high:
            raise InvalidInput(f"{option}: expected {low} to {high}, got {value}")
    if args.output.suffix != ".safetensors":
        raise InvalidInput(f"--output: expected a name that ends in .safetensors, got {args.output.name}")
    check_folder(args.output.absolute().parent)
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise InvalidInput(
            f"training needs {' and '.join(missing)}, which is not installed: pip install trocar[train]"
        )


def _settings(args: argparse.Namespace) -> TrainSettings:
    from trocar.planners.tpgan.settings import TrainSettings, arm_settings

    return TrainSettings(
        arm=args.arm,
        seed=args.seed,
        epochs=args.epochs,
        batch_size=args.batch_size,
        weights=arm_settings(args.arm),
    )


def _phantoms(args: argparse.Namespace, workers: int, console: Any) -> tuple[Dataset, dict[str, Any]]:
    from trocar.planners.features import dose_kernel_gy_u
    from trocar.planners.tpgan.data import Recipe, expert_files, load_dataset, training_phantoms

    protocol, source, engine = _treatment(args)
    strength_u = args.strength_u if args.strength_u is not None else protocol.strength_u
    protocol.require_sane(strength_u=strength_u, prescription_gy=protocol.prescription_gy)
    recipe = Recipe(protocol, source, strength_u, args.moves, args.strength_spread)
    phantoms = training_phantoms(args.seed, args.cases)
    with console.making(len(phantoms)) as report:
        files = expert_files(recipe, phantoms, args.cache or _cache(), workers=workers, report=report)
    record = {
        "data": "parametric phantoms with expert plans",
        "phantoms": [phantoms.start, phantoms.stop - 1],
        "phantoms_too_wide_for_the_template": len(phantoms) - len(files),
        "expert": f"annealing, {args.moves} moves, canonical style",
        "protocol": protocol.key,
        "source": source.key,
        "strength_u": strength_u,
        "strength_spread": args.strength_spread,
    }
    return load_dataset(files, dose_kernel_gy_u(engine, 5.0, 5.0)), record


def _centre(args: argparse.Namespace, console: Any) -> tuple[Dataset, dict[str, Any]]:
    from trocar.planners.features import dose_kernel_gy_u
    from trocar.planners.tpgan.centre import PITCH_MM, centre_example, centre_plans
    from trocar.planners.tpgan.data import dataset_of

    plans = centre_plans(args.data)
    protocol, source, engine = _treatment(args)
    strength_u = args.strength_u if args.strength_u is not None else protocol.strength_u
    examples = []
    with console.making(len(plans)) as report:
        for number, plan in enumerate(plans, start=1):
            examples.append(centre_example(plan, protocol, engine, strength_u))
            report(number, len(plans))
    record = {
        "data": "a centre's own plans",
        "cases": len(plans),
        "protocol": protocol.key,
        "source": source.key,
    }
    kernel = dose_kernel_gy_u(engine, PITCH_MM, PITCH_MM)
    return dataset_of([plan.name for plan in plans], examples, kernel), record


def novelty_statistics(args: argparse.Namespace, console: Any) -> dict[str, Any]:
    """What the training cases look like, so that others can be told; nothing where they are too few."""
    from trocar.planners.case import load_case
    from trocar.planners.novelty import LEAST_CASES, SCHEMA, fit, phantom_table, table_of
    from trocar.planners.tpgan.centre import centre_plans
    from trocar.planners.tpgan.data import training_phantoms
    from trocar.runtime.files import write_file

    plans = centre_plans(args.data) if args.data else []
    phantoms = training_phantoms(args.seed, args.cases)[:NOVELTY_CASES]
    count = len(plans) if args.data else len(phantoms)
    if count < LEAST_CASES:
        return {}
    version = SCHEMA.rpartition("/")[2]
    kept = (args.cache or _cache()) / f"novelty-{version}-{phantoms.start}-{len(phantoms)}.json"
    if not args.data and kept.exists():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    with console.making(count, "descriptions") as report:

        def progress(done: int) -> None:
            report(done, count)

        if args.data:
            return fit(table_of((load_case(str(plan.case_path)) for plan in plans), progress=progress))
        statistics = fit(phantom_table(phantoms, progress=progress))
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_file(kept, json.dumps(statistics).encode())
    return statistics


def _treatment(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    from trocar.planners.dose.engine import DoseEngine
    from trocar.planners.dose.source import load_source
    from trocar.planners.protocol import load_protocol

    protocol = load_protocol(args.protocol)
    source = load_source(args.source or protocol.source)
    return protocol, source, DoseEngine(source)


def _device(wanted: str, threads: int) -> str:
    import torch

    from trocar.runtime.errors import InvalidInput

    if wanted == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("--device cuda: expected a CUDA device, found none")
    torch.set_num_threads(threads)
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "trocar" / "experts"


COMMAND = Command(
    name="tpgan",
    help="the network that proposes plans, on expert plans or on a centre's own",
    configure=configure,
    run=run,
)
