"""RT Dose: both widths, both directions of z, DVHs, and what is refused."""

import io

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from trocar.planners.io.rtdose import read_rtdose
from trocar.runtime.errors import InvalidInput

VALUES = np.arange(24).reshape(2, 3, 4)


def _item(**fields):
    item = Dataset()
    for name, value in fields.items():
        setattr(item, name, value)
    return item


def rtdose(*, bits=16, offsets=(0, 2.5), change=None, syntax="1.2.840.10008.1.2.1"):
    roi = _item(ReferencedROINumber=4, DVHROIContributionType="INCLUDED")
    hole = _item(ReferencedROINumber=5, DVHROIContributionType="EXCLUDED")
    curve = _item(
        DVHReferencedROISequence=[roi, hole],
        DVHType="CUMULATIVE",
        DoseUnits="GY",
        DVHVolumeUnits="CM3",
        DVHDoseScaling="2",
        DVHData=["0.5", "10", "0.5", "10", "0.5", "4", "0.5", "0"],
    )
    dataset = _item(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.481.2",
        SOPInstanceUID="1.2.3",
        DoseUnits="GY",
        DoseGridScaling="0.25",
        ImagePositionPatient=["-10", "20", "5"],
        ImageOrientationPatient=["1", "0", "0", "0", "1", "0"],
        PixelSpacing=["2", "3"],
        NumberOfFrames=2,
        Rows=3,
        Columns=4,
        BitsAllocated=bits,
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=0,
        SamplesPerPixel=1,
        GridFrameOffsetVector=[str(value) for value in offsets],
        PixelData=VALUES.astype(f"<u{bits // 8}").tobytes(),
        DVHSequence=[curve],
    )
    if change is not None:
        change(dataset)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@pytest.mark.parametrize("bits", [16, 32])
def test_the_grid_is_of_voxel_centres(bits):
    dose = read_rtdose(rtdose(bits=bits))
    assert dose.grid.origin_xyz_mm == (-10, 20, 5)
    assert dose.grid.spacing_zyx_mm == (2.5, 2, 3)
    np.testing.assert_allclose(dose.dose_gy, VALUES / 4)


@pytest.mark.parametrize("offsets", [(0, -2.5), (5, 2.5)], ids=["relative", "absolute"])
def test_planes_stored_downwards_are_turned(offsets):
    dose = read_rtdose(rtdose(offsets=offsets))
    assert dose.grid.origin_xyz_mm == (-10, 20, 2.5)
    np.testing.assert_allclose(dose.dose_gy, VALUES[::-1] / 4)


def test_centigray():
    dose = read_rtdose(rtdose(change=lambda d: setattr(d, "DoseUnits", "CGY")))
    assert dose.dose_gy.max() == pytest.approx(23 / 400)


def test_a_dvh_by_hand():
    """Bins of 1 Gy: 10 cc at 0 and 1 Gy, 4 cc at 2 Gy, none at 3."""
    (curve,) = read_rtdose(rtdose()).dvhs
    assert (curve.roi, curve.excluded) == (4, {5})
    assert curve.v_cc(1.5) == pytest.approx(7.0)
    assert curve.d_cc_gy(7.0) == pytest.approx(1.5)
    assert curve.d_cc_gy(2.0) == pytest.approx(2.5)


def test_a_curve_that_ends_early_says_no_more():
    def cut(dataset):
        dataset.DVHSequence[0].DVHData = ["1", "10", "1", "4"]

    (curve,) = read_rtdose(rtdose(change=cut)).dvhs
    assert curve.d_cc_gy(3.0) is None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("DoseUnits", "RELATIVE", "expected dose in GY"),
        ("ImageOrientationPatient", ["0", "1", "0", "1", "0", "0"], "expected axial planes"),
        ("PixelSpacing", ["0", "1"], "pixel spacing above 0"),
        ("GridFrameOffsetVector", ["0", "1", "3"], "expected 2 figures, got 3"),
        ("GridFrameOffsetVector", ["7", "8"], "begin at 0 or at z"),
        ("GridFrameOffsetVector", ["0", "0"], "evenly spaced"),
        ("NumberOfFrames", 2_000_000_000, "voxels"),
        ("Rows", 4, "bytes of pixel data"),
        ("BitsAllocated", 8, "16 or 32 bits"),
        ("PixelRepresentation", 1, "negative"),
        ("DoseGridScaling", None, "DoseGridScaling"),
    ],
)
def test_what_cannot_be_meant_is_refused(field, value, message):
    with pytest.raises(InvalidInput, match=message):
        read_rtdose(rtdose(change=lambda d: setattr(d, field, value)))


def test_any_damage_is_a_clean_error_or_a_dose():
    data = rtdose()
    random = np.random.default_rng(9)
    for _ in range(300):
        broken = bytearray(data)
        for at in random.integers(0, len(data), 3):
            broken[at] = random.integers(256)
        try:
            dose = read_rtdose(bytes(broken))
        except InvalidInput:
            continue
        assert np.isfinite(dose.dose_gy).all()
