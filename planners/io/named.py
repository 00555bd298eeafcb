"""What every reader of contours hands over: the names it found, and how to build the ones that matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trocar.planners.types import Structure

MAX_FILE_BYTES = 256 * 1024 * 1024
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Built:
    """Structures by role, and one sentence per thing assumed while building them."""

    structures: dict[str, Structure]
    assumptions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NamedContours:
    """A file's structures: `build` turns {role: index into names} into structures."""

    names: tuple[str, ...]
    build: Callable[[Mapping[str, int]], Built]


def clean_name(text: str) -> str:
    """Give a name as one printable line of at most 64 characters."""
    line = "".join(character if character.isprintable() else " " for character in text).strip()
    return line if len(line) <= 64 else line[:61] + "..."


def listed(names: Sequence[object]) -> str:
    """Join names for a message, the first dozen of them."""
    shown = ", ".join(str(name) for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return (shown or "none") + (f" and {more} more" if more > 0 else "")
