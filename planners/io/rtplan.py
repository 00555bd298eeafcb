"""DICOM RT Plans of brachytherapy: where sources dwell or stay, for how long, and how strong they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from trocar.planners.io.dicom import RT_PLAN, figure, figures, open_dicom, refusing, text
from trocar.planners.io.named import clean_name, listed
from trocar.planners.types import Float64Array, Needle, Plan, require
from trocar.runtime.errors import InvalidInput

MAX_COORDINATE_MM = 10_000.0
MAX_CONTROL_POINTS = 20_000
# Two control points nearer than this are one place.
SAME_PLACE_MM = 1e-3
# Control points claim times as decimal strings, rounded somewhere.
TIME_SLACK_S = 0.05
TIME_SLACK = 1e-3


@dataclass(frozen=True, slots=True)
class BrachySource:
    """One item of the Source Sequence. The reference air-kerma rate in uGy/h at 1 m is the strength in U."""

    number: int
    isotope: str
    name: str
    half_life_days: float
    strength_u: float
    strength_at: datetime | None

    def strength_on(self, moment: datetime) -> float:
        """Return the air-kerma strength at another time, U.

        Raises
        ------
        InvalidInput
            The file does not say when the source had its strength.
        """
        if self.strength_at is None:
            raise InvalidInput("RTPLAN: the source has no strength reference date to decay from")
        days = (moment - self.strength_at).total_seconds() / 86_400.0
        return self.strength_u * math.exp(-math.log(2.0) * days / self.half_life_days)


@dataclass(frozen=True, slots=True)
class Channel:
    """One needle or catheter.

    Parameters
    ----------
    positions_xyz_mm : (n, 3) patient frame, in the order of the control points.
    times_s : (n,) dwell times at the source's reference strength; zeros for permanent seeds.
    directions_xyz : (n, 3) unit vectors, each source's own +z axis: towards the needle's tip.
    """

    label: str
    source: int
    positions_xyz_mm: Float64Array
    times_s: Float64Array
    directions_xyz: Float64Array


@dataclass(frozen=True, slots=True)
class BrachyPlan:
    """A brachytherapy RT Plan. `kind` is HDR or PERMANENT; what the file leaves out is None or empty.

    `stated_trak_ugy` is the Total Reference Air Kerma that the file claims, uGy at 1 m, or None.
    """

    kind: str
    label: str
    prescription_gy: float | None
    fractions: int
    sources: tuple[BrachySource, ...]
    channels: tuple[Channel, ...]
    stated_trak_ugy: float | None
    frame_uid: str
    sop_uid: str
    structure_set_uid: str

    @property
    def source(self) -> BrachySource:
        """The only source that channels use.

        Raises
        ------
        InvalidInput
            Channels use several.
        """
        used = {channel.source for channel in self.channels}
        require(
            len(used) == 1, f"RTPLAN: expected channels of one source, got sources {listed(sorted(used))}"
        )
        return next(source for source in self.sources if source.number in used)

    @property
    def trak_ugy(self) -> float:
        """Total reference air kerma from strength and times, uGy at 1 m."""
        return self.source.strength_u * sum(float(c.times_s.sum()) for c in self.channels) / 3600.0

    def seed_plan(self, source_key: str) -> Plan:
        """Return a permanent implant as a `Plan`: seeds of one channel that share x and y are one needle.

        Raises
        ------
        InvalidInput
            Not a permanent implant, seeds that are not parallel to z, or no prescription.
        """
        require(self.kind == "PERMANENT", f"RTPLAN: expected permanent seeds, got {self.kind}")
        if self.prescription_gy is None:
            raise InvalidInput("RTPLAN: the plan states no prescription for a target")
        needles = []
        for channel in self.channels:
            tilt = np.abs(channel.directions_xyz[:, 2])
            require(
                bool((tilt > math.cos(math.radians(1.0))).all()),
                f'RTPLAN: channel "{channel.label}" has seeds that are not parallel to z',
            )
            columns: dict[tuple[float, float], list[float]] = {}
            for x, y, z in channel.positions_xyz_mm.tolist():
                columns.setdefault((x, y), []).append(z)
            needles += [Needle(channel.label, x, y, tuple(sorted(z))) for (x, y), z in columns.items()]
        return Plan(source_key, self.source.strength_u, self.prescription_gy, tuple(needles))


def read_rtplan(data: bytes) -> BrachyPlan:
    """Read a brachytherapy RT Plan.

    Control points come in pairs: the source arrives at a place and leaves it, and the difference of their
    cumulative time weights is its stay. Some planning systems accumulate over the channel, as the standard
    has it, some begin at zero at each place; both are read, and must add up to the channel's total time.

    Raises
    ------
    InvalidInput
        Not such a file, damaged, external beams, or figures that contradict each other.
    """
    with refusing("RTPLAN"):
        dataset = open_dicom(data, "RTPLAN", RT_PLAN)
        kind = text(dataset, "BrachyTreatmentType")
        require(
            kind in ("HDR", "PERMANENT"),
            f'RTPLAN: expected brachytherapy of type HDR or PERMANENT, got "{kind or "none"}"',
        )
        sources = tuple(_source(item) for item in dataset.get("SourceSequence") or ())
        setups = list(dataset.get("ApplicationSetupSequence") or ())
        channels = tuple(_channels(setups, kind))
        require(bool(sources and channels), "RTPLAN: no sources, or no channel with a source position")
        numbers = [source.number for source in sources]
        for channel in channels:
            require(
                numbers.count(channel.source) == 1,
                f'RTPLAN: channel "{channel.label}" refers to source {channel.source}, '
                f"the file has {listed(numbers)}",
            )
        referenced = list(dataset.get("ReferencedStructureSetSequence") or ())
        stated = [
            figure(setup, "TotalReferenceAirKerma", "RTPLAN: setup")
            for setup in setups
            if setup.get("TotalReferenceAirKerma") is not None
        ]
        return BrachyPlan(
            kind=kind,
            label=text(dataset, "RTPlanLabel"),
            prescription_gy=_prescription(dataset),
            fractions=_fractions(dataset),
            sources=sources,
            channels=channels,
            stated_trak_ugy=sum(stated) if stated else None,
            frame_uid=text(dataset, "FrameOfReferenceUID"),
            sop_uid=text(dataset, "SOPInstanceUID"),
            structure_set_uid=text(referenced[0], "ReferencedSOPInstanceUID") if referenced else "",
        )


def _source(item: Any) -> BrachySource:
    number = int(item.SourceNumber)
    where = f"RTPLAN: source {number}"
    half_life, strength = (
        figure(item, key, where) for key in ("SourceIsotopeHalfLife", "ReferenceAirKermaRate")
    )
    require(0 < half_life < 1e6, f"{where}: expected a half-life of 0 to 1e6 days, got {half_life:g}")
    require(0 < strength < 1e6, f"{where}: expected a strength of 0 to 1e6 U, got {strength:g}")
    name = text(item, "SourceModelID") or text(item, "SourceDescription")
    return BrachySource(number, text(item, "SourceIsotopeName"), name, half_life, strength, _moment(item))


def _moment(item: Any) -> datetime | None:
    day = text(item, "SourceStrengthReferenceDate")
    time = text(item, "SourceStrengthReferenceTime").split(".")[0]
    if not day:
        return None
    try:
        return datetime.strptime(day + time.ljust(6, "0"), "%Y%m%d%H%M%S")
    except ValueError:
        raise InvalidInput(
            f'RTPLAN: expected a strength reference date, got "{clean_name(f"{day} {time}")}"'
        ) from None


def _prescription(dataset: Any) -> float | None:
    """The dose of the first target that has one."""
    for item in dataset.get("DoseReferenceSequence") or ():
        if text(item, "DoseReferenceType") == "TARGET" and item.get("TargetPrescriptionDose") is not None:
            dose = figure(item, "TargetPrescriptionDose", "RTPLAN: dose reference")
            require(0 < dose < 1e4, f"RTPLAN: expected a prescription of 0 to 1e4 Gy, got {dose:g}")
            return dose
    return None


def _fractions(dataset: Any) -> int:
    groups = list(dataset.get("FractionGroupSequence") or ())
    require(len(groups) <= 1, f"RTPLAN: expected one fraction group, got {len(groups)}")
    count = int(groups[0].get("NumberOfFractionsPlanned") or 1) if groups else 1
    require(1 <= count <= 100, f"RTPLAN: expected 1 to 100 fractions, got {count}")
    return count


def _channels(setups: list[Any], kind: str) -> list[Channel]:
    found, seen = [], 0
    for setup in setups:
        for item in setup.get("ChannelSequence") or ():
            label = text(item, "SourceApplicatorID") or f"{int(item.ChannelNumber)}"
            points = list(item.get("BrachyControlPointSequence") or ())
            seen += len(points)
            require(seen <= MAX_CONTROL_POINTS, f"RTPLAN: more than {MAX_CONTROL_POINTS} control points")
            if points:
                found.append(_channel(item, label, points, kind))
    return found


def _channel(item: Any, label: str, points: list[Any], kind: str) -> Channel:
    where = f'RTPLAN: channel "{label}"'
    places = np.array([figures(point, "ControlPoint3DPosition", 3, where) for point in points])
    require(
        bool((np.abs(places) <= MAX_COORDINATE_MM).all()),
        f"{where}: a position is beyond {MAX_COORDINATE_MM:g} mm",
    )
    moved = np.linalg.norm(np.diff(places, axis=0), axis=1) > SAME_PLACE_MM
    # First control point of each place, and one past its last.
    first = np.concatenate([[0], 1 + np.flatnonzero(moved)])
    last = np.append(first[1:], len(points)) - 1
    if kind == "PERMANENT":
        times = np.zeros(len(first))
    else:
        weights = np.array([figure(point, "CumulativeTimeWeight", where) for point in points])
        times = _dwell_times_s(weights, first, last, _total_s(item, where), where)
    number = int(item.get("ReferencedSourceNumber") or 1)
    return Channel(label, number, places[first], times, _directions(points, places, first, where))


def _total_s(item: Any, where: str) -> tuple[float, float]:
    total = figure(item, "ChannelTotalTime", where)
    final = figure(item, "FinalCumulativeTimeWeight", where) if total else 1.0
    require(0 <= total < 1e6, f"{where}: expected a total time of 0 to 1e6 s, got {total:g}")
    require(final > 0, f"{where}: expected a final cumulative time weight above 0, got {final:g}")
    return total, final


def _dwell_times_s(
    weights: Float64Array, first: Any, last: Any, total: tuple[float, float], where: str
) -> Float64Array:
    """Seconds at each place, whichever way the file counts."""
    total_s, final = total
    if bool((np.diff(weights) >= 0).all()):
        # What passes between two places is the source's way; it counts to the place it comes from.
        leaving = np.append(weights[first[1:]], weights[-1])
        spent = leaving - weights[first]
    else:
        require(
            bool((weights[first] == 0).all()),
            f"{where}: its cumulative time weights fall, though not to 0 at a new position",
        )
        spent = weights[last] - weights[first]
    require(bool((spent >= 0).all()), f"{where}: a dwell time is negative")
    times: Float64Array = spent * (total_s / final)
    slack = max(TIME_SLACK_S, TIME_SLACK * total_s)
    require(
        abs(float(times.sum()) - total_s) <= slack,
        f"{where}: its dwell times add up to {times.sum():g} s, its total time is {total_s:g} s",
    )
    return times


def _directions(points: list[Any], places: Float64Array, first: Any, where: str) -> Float64Array:
    """Axes of the sources: as the file says, else along the channel, towards its first position.

    The first control point is the one nearest the tip: a source is pushed out all the way, then drawn
    back. One position alone, or permanent seeds, lie along z.
    """
    given = [points[index].get("ControlPointOrientation") for index in first]
    if all(one is not None for one in given):
        axes = np.array([figures(points[i], "ControlPointOrientation", 3, where) for i in first])
    elif len(first) > 1:
        axes = -np.gradient(places[first], axis=0)
    else:
        axes = np.array([[0.0, 0.0, 1.0]])
    lengths = np.linalg.norm(axes, axis=1, keepdims=True)
    require(bool((lengths > 1e-9).all()), f"{where}: a source's orientation has no length")
    return np.asarray(axes / lengths)
