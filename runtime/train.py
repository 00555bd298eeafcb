"""`trocar train NETWORK`: finds who trains that network and hands over.

A trainer is a `Command` registered under `trocar.trainers`, so that networks of packages that must not know
each other, and of third parties, are trained by the same verb.
"""

from __future__ import annotations

import argparse
from importlib.metadata import EntryPoint, entry_points

from trocar.runtime.command import Command
from trocar.runtime.errors import InvalidInput

GROUP = "trocar.trainers"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare every trainer's options, each under its network's name."""
    parser.description = (
        "Train a network. A run that was killed goes on where it was if started again with the same options."
    )
    networks = parser.add_subparsers(dest="network", required=True, metavar="NETWORK")
    for point in sorted(entry_points(group=GROUP), key=lambda each: each.name):
        trainer = _load(point)
        own = networks.add_parser(point.name, help=trainer.help, description=trainer.help, allow_abbrev=False)
        trainer.configure(own)
        own.set_defaults(trainer=trainer)


def run(args: argparse.Namespace) -> int:
    """Train with the trainer that `configure` found."""
    trainer: Command = args.trainer
    return trainer.run(args)


def _load(point: EntryPoint) -> Command:
    """A trainer; one that does not load says so when it is called, and hides no other."""
    try:
        loaded: Command = point.load()
    except Exception as error:
        why = f"{type(error).__name__}: {error}"

        def refuse(_: argparse.Namespace) -> int:
            raise InvalidInput(f"the trainer of {point.name} does not load: {why}")

        return Command(point.name, f"(not available: {why})".replace("%", "%%"), lambda _: None, refuse)
    return loaded


COMMAND = Command(name="train", help="train a network", configure=configure, run=run)
