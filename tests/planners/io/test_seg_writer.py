import io
from typing import Any

import nrrd
import numpy as np
import pytest

from trocar.planners.io.seg_writer import write_seg_nrrd
from trocar.planners.types import Case, Structure
from trocar.runtime.errors import InvalidInput


def _structure(
    role: str, zyx: tuple[slice, slice, slice], z_mm: tuple[float, ...] = (10, 15, 20, 25)
) -> Structure:
    occupancy = np.zeros((len(z_mm), 6, 8), dtype=np.float32)
    occupancy[zyx] = 1.0
    return Structure(role, role, occupancy, np.array(z_mm, dtype=np.float64), (-3.0, 4.0), (2.0, 1.0))


def _case(*structures: Structure) -> Case:
    return Case("test", {structure.role: structure for structure in structures})


CTV = _structure("ctv", (slice(1, 3), slice(1, 4), slice(2, 5)))
PTV = _structure("ptv", (slice(0, 4), slice(0, 5), slice(1, 6)))
RECTUM = _structure("rectum", (slice(0, 4), slice(5, 6), slice(0, 8)))


def _read(data: bytes) -> tuple[Any, Any]:
    stream = io.BytesIO(data)
    header = nrrd.read_header(stream)
    return nrrd.read_data(header, stream, index_order="F"), header


def test_the_file_as_slicer_reads_it() -> None:
    data, header = _read(write_seg_nrrd(_case(CTV, PTV, RECTUM)))
    assert header["space"] == "left-posterior-superior"
    assert data.shape == (2, 8, 6, 4)  # layer, x, y, z: CTV and PTV overlap, the rectum shares CTV's layer
    np.testing.assert_array_equal(header["space origin"], [-3.0, 4.0, 10.0])
    directions = header["space directions"]
    assert np.isnan(directions[0]).all()
    np.testing.assert_array_equal(directions[1:], np.diag([1.0, 2.0, 5.0]))
    segments = [
        (header[f"Segment{i}_Name"], header[f"Segment{i}_Layer"], header[f"Segment{i}_LabelValue"])
        for i in range(3)
    ]
    assert segments == [("CTV", "0", "1"), ("PTV", "1", "1"), ("Rectum", "0", "2")]
    assert header["Segment0_Extent"] == "2 4 1 3 1 2"
    np.testing.assert_array_equal(data[0].transpose(2, 1, 0) == 1, CTV.occupancy_zyx == 1)
    np.testing.assert_array_equal(data[1].transpose(2, 1, 0) == 1, PTV.occupancy_zyx == 1)
    np.testing.assert_array_equal(data[0].transpose(2, 1, 0) == 2, RECTUM.occupancy_zyx == 1)


def test_half_cover_is_inside() -> None:
    partial = Structure(
        CTV.name, "ctv", CTV.occupancy_zyx * np.float32(0.5), CTV.z_mm, CTV.origin_xy_mm, CTV.spacing_yx_mm
    )
    faint = Structure(
        PTV.name, "ptv", PTV.occupancy_zyx * np.float32(0.49), CTV.z_mm, CTV.origin_xy_mm, CTV.spacing_yx_mm
    )
    data, header = _read(write_seg_nrrd(_case(partial, faint)))
    assert (data[0] == 1).sum() == CTV.occupancy_zyx.sum()
    assert header["Segment1_Extent"] == "0 -1 0 -1 0 -1"


def test_structures_with_other_slices_share_the_stack() -> None:
    short = _structure("ctv", (slice(None), slice(1, 4), slice(2, 5)), z_mm=(15, 20))
    data, header = _read(write_seg_nrrd(_case(PTV, short)))
    assert data.shape[-1] == 4
    assert header["Segment1_Extent"].split()[4:] == ["1", "2"]


def test_a_structure_that_covers_another_part_of_the_lattice() -> None:
    """An expanded PTV has rows, columns and slices that its CTV has not."""
    occupancy = np.ones((6, 8, 9), dtype=np.float32)
    z_mm = np.arange(5, 35, 5, dtype=np.float64)
    wide = Structure("ptv", "ptv", occupancy, z_mm, (-4.0, 2.0), (2.0, 1.0))
    data, header = _read(write_seg_nrrd(_case(CTV, wide)))
    np.testing.assert_array_equal(header["space origin"], [-4.0, 2.0, 5.0])
    assert data.shape == (2, 9, 8, 6)
    ctv = data[0].transpose(2, 1, 0)
    np.testing.assert_array_equal(ctv[1:5, 1:7, 1:9], CTV.occupancy_zyx)
    assert ctv.sum() == CTV.occupancy_zyx.sum()
    assert data[1].sum() == occupancy.sum()


def _on(z_mm: tuple[float, ...], origin: tuple[float, float], spacing: tuple[float, float]) -> Structure:
    return Structure("x", "ctv", np.ones((len(z_mm), 6, 8), np.float32), np.array(z_mm), origin, spacing)


@pytest.mark.parametrize(
    "other",
    [
        _on((10.0, 15.0), (-2.5, 4.0), (2.0, 1.0)),
        _on((10.0, 15.0), (-3.0, 4.0), (2.0, 1.1)),
        _on((10.0, 15.0, 21.0), (-3.0, 4.0), (2.0, 1.0)),
    ],
)
def test_pixels_off_the_lattice_are_refused(other: Structure) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        write_seg_nrrd(_case(PTV, other))


def test_nothing_to_write_is_refused() -> None:
    with pytest.raises(InvalidInput, match="got none"):
        write_seg_nrrd(_case())


def test_the_case_comes_back() -> None:
    from trocar.planners.case import case_from_bytes

    case = case_from_bytes(
        write_seg_nrrd(_case(CTV, PTV, RECTUM)), filename_hint="x.seg.nrrd", labels=None, roles=None
    )
    for given in (CTV, PTV, RECTUM):
        read = case.structures[given.role]
        held = {float(z): plane for z, plane in zip(read.z_mm, read.occupancy_zyx, strict=True)}
        volume_mm3 = (
            sum(plane.sum(dtype=np.float64) for plane in held.values()) * np.prod(read.spacing_yx_mm) * 5
        )
        assert volume_mm3 == pytest.approx(given.occupancy_zyx.sum() * 2 * 5)


def test_equal_cases_are_equal_files() -> None:
    written = write_seg_nrrd(_case(CTV, PTV))
    assert b"# on " not in written.split(b"\n\n")[0]
    assert written == write_seg_nrrd(_case(CTV, PTV))
