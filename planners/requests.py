"""What a caller asks for, as it came: the nouns that the command line and gRPC share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trocar.planners.types import Float64Array, Planes, Template

DEFAULT_PROTOCOL = "ldr-i125-145"
# What `-o` writes.
OUTPUTS = ("plan.json", "dose.nrrd", "dvh.png", "plan.png", "report.html")
# What `--dicom` adds and `--send` sends: what is referred to before what refers to it. The first is there
# only where structures were derived, or the input is no DICOM.
DICOM_OUTPUTS = ("structures.dcm", "plan.dcm", "dose.dcm")

ContourStack = Sequence[tuple[float, Float64Array]]


@dataclass(frozen=True, slots=True)
class CaseInput:
    """A case as it came: exactly one of `nrrd`, `rtstruct`, `contours` and `phantom_seed`.

    `contours` maps a structure's name to its polygons, each (z in mm, (n, 2) x and y in mm, LPS).
    `labels` maps a role to a label value of a label NRRD, `roles` a role to a structure's name.
    """

    name: str = ""
    nrrd: bytes | None = None
    rtstruct: bytes | None = None
    contours: Mapping[str, ContourStack] | None = None
    phantom_seed: int | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """How to treat; what is None comes from the protocol.

    `protocol_toml` and `source_json` are the texts of a centre's own files and win over the names.
    """

    protocol: str = DEFAULT_PROTOCOL
    protocol_toml: str | None = None
    source: str | None = None
    source_json: str | None = None
    strength_u: float | None = None
    prescription_gy: float | None = None
    template: Template | None = None
    planes: Planes | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """How long to search: wall time, or an exact number of moves a chain; the pipeline's default if neither.

    The same moves, seed and chains give the same plan. `alternatives` are other plans wanted besides.
    `device` is for a search in this process: a server has its own.
    """

    budget_ms: float | None = None
    moves: int | None = None
    seed: int = 0
    chains: int | None = None
    start: str | None = None
    alternatives: int = 0
    device: str = "cpu"
