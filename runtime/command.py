"""What a verb of the command line is, so that any package can add one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

INTENDED_USE = (
    "Research software, not a medical device; trained on phantoms; "
    "every plan needs a qualified person's review."
)


@dataclass(frozen=True, slots=True)
class Command:
    """A verb, found through the `trocar.commands` entry points.

    `run` returns the exit code: 0 ok, 1 the result failed its checks; it raises `TrocarError` for
    the rest. The module that defines a command imports only light things at its top.
    """

    name: str
    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
