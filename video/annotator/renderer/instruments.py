"""Instruments: parts in a chain from the border to the tips, in the kinds that surgeons use.

An instrument is fixed once drawn; its pose says where it is in a frame, so that a clip can move it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from trocar.video.annotator.renderer.noise import Plane
from trocar.video.annotator.renderer.skins import (
    Material,
    jaw_skin,
    joint_skin,
    metal,
    shaft_material,
    tube_skin,
)
from trocar.video.types import PixelClass


@dataclass(frozen=True, slots=True)
class Part:
    """A ribbon, straight or bent; lengths are in radii of the shaft.

    Parameters
    ----------
    start : along and across from the end of the part before.
    turn : angle against the part before, rad; `side` times the half opening is added.
    bend : sideways offset at the end, as a share of the length.
    base, end : half widths; between them it runs as share ** `power`.
    blunt : how far the end is rounded, as a share of the length.
    hole : where along and how far across it is pierced; none where the share across is 0.
    waves : how far the outline bulges, as a share of the width, how often, and the phase.
    """

    label: PixelClass
    skin: Plane
    tint: tuple[float, float, float]
    length: float
    base: float
    end: float
    start: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0
    side: float = 0.0
    bend: float = 0.0
    power: float = 1.0
    blunt: float = 0.05
    hole: tuple[float, float, float] = (0.0, 0.0, 0.0)
    waves: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tip: bool = False


@dataclass(frozen=True, slots=True)
class Instrument:
    """A shaft, maybe a wrist, and the parts at its end.

    Parameters
    ----------
    kind : one of `KINDS`.
    shaft : its length is the pose's.
    taper : how many times wider the shaft is where it enters the frame.
    wrists : one after another from the shaft on.
    claspers : all start at the last wrist's end.
    opens : whether the claspers move.
    """

    kind: str
    shaft: Part
    taper: float
    wrists: tuple[Part, ...]
    claspers: tuple[Part, ...]
    opens: bool


@dataclass(frozen=True, slots=True)
class Pose:
    """Where an instrument is.

    Parameters
    ----------
    joint_xy : the end of its shaft, px.
    angle : of the shaft towards its end, rad.
    radius : half the width of the shaft at its end, px.
    reach : visible length of the shaft, px.
    wrist : how far the wrist is bent, rad.
    opening : between the jaws, rad.
    """

    joint_xy: tuple[float, float]
    angle: float
    radius: float
    reach: float
    wrist: float = 0.0
    opening: float = 0.0


@dataclass(slots=True)
class _Making:
    """What the parts of one instrument share."""

    random: np.random.Generator
    steel: Material = field(init=False)
    other: Material = field(init=False)

    def __post_init__(self) -> None:
        self.steel, self.other = metal(self.random), metal(self.random)

    def clasper(self, length: float, base: float, end: float, **more: object) -> Part:
        material = self.steel if self.random.random() < 0.8 else self.other
        skin = jaw_skin(self.random, material)
        return Part(PixelClass.CLASPER, skin, material.tint, length, base, end, **more)  # type: ignore[arg-type]

    def pair(self, length: float, base: float, end: float, **more: object) -> tuple[Part, ...]:
        """Two jaws, mirror images."""
        bend = float(more.pop("bend", 0.0))  # type: ignore[arg-type]
        spread = float(more.pop("spread", 0.45))  # type: ignore[arg-type]
        return tuple(
            self.clasper(
                length,
                base,
                end,
                side=side,
                bend=bend if fixed else side * bend,
                start=(0.0, side * spread),
                tip=True,
                **more,
            )
            for side, fixed in ((-1.0, self.random.random() < 0.5), (1.0, False))
        )


def _grasper(making: _Making) -> tuple[Part, ...]:
    draw = making.random
    wide = draw.uniform(0.45, 0.95)
    pierced = draw.random() < 0.5
    hole = (
        (draw.uniform(0.2, 0.4), draw.uniform(0.7, 0.88), draw.uniform(0.35, 0.6))
        if pierced
        else (0.0, 0.0, 0.0)
    )
    return making.pair(
        draw.uniform(2.5, 7),
        wide,
        wide * draw.uniform(0.5, 1.1),
        blunt=draw.uniform(0.05, 0.15),
        hole=hole,
        bend=draw.normal(0, 0.05),
    )


def _dissector(making: _Making) -> tuple[Part, ...]:
    draw = making.random
    bend = draw.uniform(0.05, 0.4) * draw.choice((-1, 1))
    jaws = making.pair(draw.uniform(3, 6), draw.uniform(0.4, 0.7), draw.uniform(0.1, 0.3), blunt=0.06)
    return tuple(_with(jaw, bend=bend) for jaw in jaws)


def _scissors(making: _Making) -> tuple[Part, ...]:
    draw = making.random
    bend = draw.uniform(0.0, 0.3) * draw.choice((-1, 1))
    jaws = making.pair(
        draw.uniform(2.5, 5), draw.uniform(0.4, 0.7), 0.08, power=draw.uniform(1, 2.5), spread=0.2
    )
    return tuple(_with(jaw, bend=bend) for jaw in jaws)


def _needle_driver(making: _Making) -> tuple[Part, ...]:
    draw = making.random
    return making.pair(draw.uniform(1.5, 3.5), draw.uniform(0.5, 0.8), draw.uniform(0.25, 0.5), blunt=0.12)


def _clip_applier(making: _Making) -> tuple[Part, ...]:
    draw = making.random
    return making.pair(
        draw.uniform(2.5, 5),
        draw.uniform(0.25, 0.4),
        draw.uniform(0.2, 0.35),
        spread=draw.uniform(0.5, 0.8),
        bend=-0.08,
    )


def _stapler(making: _Making) -> tuple[Part, ...]:
    draw = making.random
    return making.pair(
        draw.uniform(6, 11), draw.uniform(0.5, 0.9), draw.uniform(0.45, 0.8), spread=0.5, blunt=0.08
    )


def _hook(making: _Making) -> tuple[Part, ...]:
    draw = making.random
    ceramic = Material((draw.uniform(0.7, 1), draw.uniform(0.7, 1), draw.uniform(0.65, 0.95)), 0.3, 0.05)
    material = ceramic if draw.random() < 0.6 else making.steel
    cone = Part(
        PixelClass.CLASPER,
        jaw_skin(draw, material),
        material.tint,
        draw.uniform(1.5, 4),
        0.9,
        draw.uniform(0.25, 0.45),
    )
    thin = draw.uniform(0.15, 0.3)
    rod = making.clasper(draw.uniform(1.5, 4), thin, thin, start=(cone.length * 0.95, 0.0))
    side = draw.choice((-1.0, 1.0))
    crook = making.clasper(
        draw.uniform(0.8, 2.0),
        thin,
        thin * 0.8,
        start=(cone.length * 0.95 + rod.length * 0.97, 0.0),
        turn=side * draw.uniform(0.9, 1.7),
        tip=True,
        blunt=0.15,
    )
    return (rod, crook, cone)


def _suction(making: _Making) -> tuple[Part, ...]:
    draw = making.random
    wide = draw.uniform(0.7, 1.0)
    pierced = (0.4, 0.6, 0.4) if draw.random() < 0.5 else (0.0, 0.0, 0.0)
    return (
        making.clasper(
            draw.uniform(1.5, 5), wide, wide * draw.uniform(0.8, 1), tip=True, blunt=0.02, hole=pierced
        ),
    )


def _spatula(making: _Making) -> tuple[Part, ...]:
    """Also blades, probes and ultrasonic shears closed."""
    draw = making.random
    wide = draw.uniform(0.25, 0.8)
    return (
        making.clasper(
            draw.uniform(2, 7),
            wide,
            wide * draw.uniform(0.4, 1.2),
            tip=True,
            blunt=0.1,
            bend=draw.normal(0, 0.08),
        ),
    )


KINDS: MappingProxyType[str, tuple[Callable[[_Making], tuple[Part, ...]], float, bool]] = MappingProxyType(
    {
        "grasper": (_grasper, 0.27, True),
        "dissector": (_dissector, 0.16, True),
        "scissors": (_scissors, 0.11, True),
        "needle-driver": (_needle_driver, 0.14, True),
        "hook": (_hook, 0.1, False),
        "suction": (_suction, 0.07, False),
        "clip-applier": (_clip_applier, 0.06, True),
        "stapler": (_stapler, 0.03, True),
        "spatula": (_spatula, 0.06, False),
    }
)


def draw_instrument(random: np.random.Generator, kind: str | None = None) -> Instrument:
    """An instrument of a kind, or of any."""
    if kind is None:
        share = np.array([each[1] for each in KINDS.values()])
        kind = list(KINDS)[int(random.choice(len(KINDS), p=share / share.sum()))]
    build, _, opens = KINDS[kind]
    making = _Making(random)
    coat = shaft_material(random)
    shaft = Part(PixelClass.SHAFT, tube_skin(random, coat), coat.tint, 1.0, 1.0, 1.0, blunt=0.0)
    taper = float(random.choice((random.uniform(1.0, 1.2), random.uniform(1.0, 2.4))))
    return Instrument(kind, shaft, taper, _wrists(making, coat), build(making), opens)


def _wrists(making: _Making, coat: Material) -> tuple[Part, ...]:
    """A robot's wrist in two links, or the plain hinge of a hand-held instrument."""
    draw = making.random
    material = making.steel if draw.random() < 0.85 else coat

    def link(length: float, base: float, end: float, turn: float = 0.0) -> Part:
        return Part(
            PixelClass.WRIST,
            joint_skin(draw, material),
            material.tint,
            length,
            base,
            end,
            turn=turn,
            power=draw.uniform(0.5, 2),
            blunt=draw.uniform(0.05, 0.3),
            waves=(draw.uniform(0, 0.25), draw.uniform(4, 16), draw.uniform(0, 6.3)),
        )

    if draw.random() < 0.45:
        return (link(draw.uniform(0.3, 2.0), draw.uniform(0.8, 1.02), draw.uniform(0.7, 1.0)),)
    first = link(draw.uniform(1.0, 3.5), draw.uniform(0.85, 1.05), draw.uniform(0.7, 1.0), 1.0)
    if draw.random() < 0.5:
        return (first,)
    return (
        first,
        link(draw.uniform(0.6, 2.0), draw.uniform(0.7, 0.95), draw.uniform(0.5, 0.9), draw.normal(0, 0.5)),
    )


def _with(part: Part, **changes: object) -> Part:
    from dataclasses import replace

    return replace(part, **changes)  # type: ignore[arg-type]
