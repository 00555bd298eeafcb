"""Channels, dwell times, strengths and orientations, out of plans written here and damaged here."""

import io
import math
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset

from trocar.planners.io.rtplan import read_rtplan
from trocar.runtime.errors import InvalidInput


def _item(**fields):
    item = Dataset()
    for name, value in fields.items():
        setattr(item, name, value)
    return item


def _point(place, weight=None, axis=None):
    point = _item(ControlPoint3DPosition=[f"{value:.4f}" for value in place])
    if weight is not None:
        point.CumulativeTimeWeight = f"{weight:g}"
    if axis is not None:
        point.ControlPointOrientation = list(axis)
    return point


def rtplan(points, *, kind="HDR", total=10.0, final=10.0, change=None, **source):
    figures = {"SourceNumber": 1, "SourceIsotopeName": "Ir-192", "SourceIsotopeHalfLife": "73.83"}
    figures |= {"ReferenceAirKermaRate": "40700", "SourceStrengthReferenceDate": "20260101"}
    channel = _item(
        ChannelNumber=1,
        SourceApplicatorID="D3.5",
        ChannelTotalTime=f"{total:g}",
        FinalCumulativeTimeWeight=f"{final:g}",
        ReferencedSourceNumber=1,
        BrachyControlPointSequence=points,
    )
    dataset = _item(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.481.5",
        SOPInstanceUID="1.2.3",
        BrachyTreatmentType=kind,
        SourceSequence=[_item(**(figures | source))],
        ApplicationSetupSequence=[_item(ChannelSequence=[channel])],
        DoseReferenceSequence=[_item(DoseReferenceType="TARGET", TargetPrescriptionDose="145")],
    )
    if change is not None:
        change(dataset)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


PLACES = [(0, 0, 10), (0, 0, 5), (0, 3, 1)]
ACCUMULATED = [
    _point(place, w) for place, w in zip(np.repeat(PLACES, 2, axis=0), (0, 2, 2, 5, 5, 10), strict=True)
]
RESTARTED = [
    _point(place, w) for place, w in zip(np.repeat(PLACES, 2, axis=0), (0, 2, 0, 3, 0, 5), strict=True)
]


@pytest.mark.parametrize("points", [ACCUMULATED, RESTARTED], ids=["accumulated", "from zero at each place"])
def test_both_ways_of_counting_give_the_same_stays(points):
    channel = read_rtplan(rtplan(points, total=20.0)).channels[0]
    np.testing.assert_allclose(channel.times_s, [4, 6, 10])
    np.testing.assert_allclose(channel.positions_xyz_mm, PLACES)


def test_without_orientations_the_source_points_along_the_channel_to_its_first_position():
    axes = read_rtplan(rtplan(ACCUMULATED)).channels[0].directions_xyz
    np.testing.assert_allclose(axes[0], (0, 0, 1))
    np.testing.assert_allclose(axes[2], (0, -0.6, 0.8))


def test_stated_orientations_win():
    points = [_point((0, 0, 0), 0, (0, 2, 0)), _point((0, 0, 0), 10, (0, 2, 0))]
    np.testing.assert_allclose(read_rtplan(rtplan(points)).channels[0].directions_xyz, [(0, 1, 0)])


def test_times_that_do_not_add_up_are_refused():
    with pytest.raises(InvalidInput, match="add up to 5 s, its total time is 10 s"):
        read_rtplan(rtplan(ACCUMULATED, final=20.0))
    with pytest.raises(InvalidInput, match="fall, though not to 0"):
        read_rtplan(rtplan([_point((0, 0, 0), 5), _point((0, 0, 1), 3)]))


def test_the_source_decays_to_another_date():
    source = read_rtplan(rtplan(ACCUMULATED)).source
    assert source.strength_u == 40700
    half_life_later = datetime(2026, 1, 1) + 73.83 * (datetime(2026, 1, 2) - datetime(2026, 1, 1))
    assert source.strength_on(half_life_later) == pytest.approx(20350, rel=1e-9)
    # The other way round it was stronger: 10 days before, 2^(10 / 73.83).
    assert source.strength_on(datetime(2025, 12, 22)) == pytest.approx(40700 * 2 ** (10 / 73.83))
    undated = read_rtplan(rtplan(ACCUMULATED, SourceStrengthReferenceDate=None)).source
    with pytest.raises(InvalidInput, match="no strength reference date"):
        undated.strength_on(datetime(2026, 1, 1))


def test_total_reference_air_kerma():
    plan = read_rtplan(rtplan(ACCUMULATED, total=36.0))
    assert plan.trak_ugy == pytest.approx(407.0)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.floats(-200, 200, allow_nan=False).map(lambda v: round(v, 2))] * 3),
        min_size=1,
        max_size=8,
        unique=True,
    )
)
def test_permanent_seeds_come_back_where_they_were(places):
    axis = (0, 0, 1)
    points = [_point(place, axis=axis) for place in places for _ in (0, 1)]
    plan = read_rtplan(rtplan(points, kind="PERMANENT", ReferenceAirKermaRate="0.42")).seed_plan("i125-6711")
    found = plan.seeds_xyz_mm
    assert (plan.strength_u, plan.prescription_gy) == (0.42, 145.0)
    assert sorted(map(tuple, found.round(2))) == sorted(places)


def test_seeds_at_an_angle_and_dwells_are_no_seed_plan():
    tilted = [_point((0, 0, 0), axis=(0, 1, 1))]
    with pytest.raises(InvalidInput, match="not parallel to z"):
        read_rtplan(rtplan(tilted, kind="PERMANENT")).seed_plan("i125-6711")
    with pytest.raises(InvalidInput, match="expected permanent seeds, got HDR"):
        read_rtplan(rtplan(ACCUMULATED)).seed_plan("i125-6711")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: setattr(d, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.481.2"), "expected SOP class"),
        (lambda d: delattr(d, "BrachyTreatmentType"), 'got "none"'),
        (lambda d: delattr(d, "SourceSequence"), "no sources"),
        (lambda d: setattr(d.SourceSequence[0], "SourceNumber", 2), "refers to source 1"),
        (lambda d: setattr(d.SourceSequence[0], "SourceIsotopeHalfLife", "0"), "half-life"),
        (lambda d: setattr(d.SourceSequence[0], "ReferenceAirKermaRate", "-1"), "strength"),
        (lambda d: setattr(d.SourceSequence[0], "SourceStrengthReferenceDate", "x"), "reference date"),
        (lambda d: setattr(d.DoseReferenceSequence[0], "TargetPrescriptionDose", "0"), "prescription"),
        (lambda d: setattr(d, "FractionGroupSequence", [Dataset(), Dataset()]), "one fraction group"),
    ],
)
def test_what_cannot_be_meant_is_refused(change, message):
    with pytest.raises(InvalidInput, match=message):
        read_rtplan(rtplan(ACCUMULATED, change=change))


def test_any_damage_is_a_clean_error_or_a_plan():
    data = rtplan(ACCUMULATED)
    random = np.random.default_rng(8)
    for _ in range(300):
        broken = bytearray(data)
        for at in random.integers(0, len(data), 3):
            broken[at] = random.integers(256)
        broken = broken[: random.integers(100, len(data) + 1)] if random.random() < 0.3 else broken
        try:
            plan = read_rtplan(bytes(broken))
        except InvalidInput:
            continue
        assert all(math.isfinite(t) and t >= 0 for c in plan.channels for t in c.times_s)
