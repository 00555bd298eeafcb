"""One workload a module.

A workload has `NAME`, `HELP`, `add_arguments(parser)` and `run(args) -> dict`: plain JSON values, with
the timings (see `trocar.bench.timing`) anywhere inside, and `tables` of rows. `"passed": False` makes
the command exit 1. Heavy imports stand inside `run`.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from typing import Any, Protocol, cast


class Workload(Protocol):
    """What a workload module offers."""

    NAME: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the workload's own options."""

    def run(self, args: argparse.Namespace) -> dict[str, Any]:
        """Measure."""


def discover() -> dict[str, Workload]:
    """The workloads by name, sorted."""
    names = sorted(
        module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")
    )
    modules = [cast(Workload, importlib.import_module(f"{__name__}.{name}")) for name in names]
    return {module.NAME: module for module in modules}
