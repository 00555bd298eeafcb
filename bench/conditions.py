"""What a measurement runs under: which processors, and whether Python collects garbage meanwhile."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trocar.runtime.errors import InvalidInput


def parse_cpus(text: str) -> frozenset[int]:
    """Processors from `0,2-3`; none where the text is empty.

    Raises
    ------
    InvalidInput : not such a list, or a processor that this process may not use.
    """
    try:
        found = frozenset(number for part in filter(None, text.split(",")) for number in _range(part))
    except ValueError:
        raise InvalidInput(f"--cpus: expected numbers such as 0,2-3, got {text!r}") from None
    allowed = os.sched_getaffinity(0)
    if not found <= allowed:
        raise InvalidInput(f"--cpus: expected processors of {_listed(allowed)}, got {text!r}")
    return found


@contextmanager
def applied(cpus: frozenset[int], *, collect: bool) -> Iterator[dict[str, Any]]:
    """Hold this process, and those that it starts, to the processors; without `collect`, keep garbage.

    Collected garbage is between the items of `trocar.bench.progress.track` in any case.

    Yields
    ------
    what was set, for the record
    """
    before = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, cpus)
    gc.collect()
    gc.freeze()  # what exists now is not looked at again when garbage is collected between rounds
    if not collect:
        gc.disable()
    try:
        yield {"cpus": _listed(cpus or before), "garbage_collection": "on" if collect else "between rounds"}
    finally:
        gc.enable()
        gc.unfreeze()
        os.sched_setaffinity(0, before)


def _range(part: str) -> range:
    first, _, last = part.partition("-")
    if part.endswith("-"):
        raise ValueError(part)
    return range(int(first), int(last or first) + 1)


def _listed(cpus: frozenset[int] | set[int]) -> str:
    return ",".join(map(str, sorted(cpus)))
