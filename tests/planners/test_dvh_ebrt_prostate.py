"""DVHs of an external-beam prostate case against the tables Eclipse, CERR and SlicerRT computed from it.

Same contours, same dose, four implementations: contours are rasterised and interpolated between their 2.5 mm
slices onto a 1 mm grid, the 2.5 mm dose is interpolated onto it, and every tabulated row is compared.
"""

from __future__ import annotations

import csv
import json

import nrrd
import numpy as np
import pytest

from trocar.planners.dose_grid import dose_on_grid
from trocar.planners.dvh import dvh
from trocar.planners.geometry import fraction_on, rasterise_contours
from trocar.planners.types import Anatomy, Grid

# One row of Eclipse's export is corrupt: its dose column holds this instead of 35.604.
CORRUPT_DOSE_GY = 0.00035604
# CERR's dose column is the centre of a 0.2 Gy bin, its volume is what lies above that bin.
CERR_HALF_BIN_GY = 0.1
ROLES = {"PTV": "ptv", "Bladder": "bladder", "Rectum": "rectum"}


@pytest.fixture(scope="module")
def case_dir(shared_dir):
    folder = shared_dir / "cases" / "ebrt_prostate"
    if not folder.is_dir():
        pytest.skip("the ebrt_prostate case is not present")
    return folder


@pytest.fixture(scope="module")
def dvhs(case_dir):
    data, header = nrrd.read(str(case_dir / "EclipseProstate_Dose.nrrd"))
    dose_grid = Grid(tuple(map(float, header["space origin"])), (2.5, 2.5, 2.5), data.shape[::-1])
    dose_gy = np.ascontiguousarray(data.transpose(2, 1, 0), dtype=np.float32)
    contours = json.loads((case_dir / "contours_LPS_mm.json").read_text())
    found = {}
    for name, role in ROLES.items():
        polygons = [np.array(polygon) for polygon in contours[name]]
        points = np.concatenate(polygons)
        low, high = np.floor(points.min(0)) - 4, np.ceil(points.max(0)) + 4
        grid = Grid(tuple(low), (1.0, 1.0, 1.0), tuple(int(n) + 1 for n in (high - low)[::-1]))
        structure = rasterise_contours(name, role, [(float(p[0, 2]), p[:, :2]) for p in polygons])
        anatomy = Anatomy(grid, {role: fraction_on(structure, grid)})
        found[name] = dvh(dose_on_grid(dose_gy, dose_grid, grid), anatomy, prescription_gy=44.0)[role]
    return found


def table(path, name):
    """Rows (dose in Gy, volume in %) of one structure, and the volume in its column's title."""
    rows = list(csv.reader(path.open()))
    column = next(i for i, title in enumerate(rows[0]) if title.startswith(f"{name}_DvhArray Dose"))
    volume_cc = float(rows[0][column + 1].split("% of ")[1].split(" cc")[0])
    values = [row[column : column + 2] for row in rows[1:] if len(row) > column + 1 and row[column].strip()]
    return np.array(values, dtype=np.float64), volume_cc


def eclipse_table(case_dir, name):
    rows, volume_cc = table(case_dir / "EclipseProstate_DvhTable_Eclipse.csv", name)
    corrupt = np.abs(rows[:, 0] - CORRUPT_DOSE_GY) < 1e-7
    assert corrupt.sum() == 1
    return rows[~corrupt], volume_cc


def cerr_table(case_dir, name):
    rows, volume_cc = table(case_dir / "EclipseProstate_DvhTable_CERR.csv", name)
    rows[:, 0] += CERR_HALF_BIN_GY
    return rows, volume_cc


# The rectum's first slices lie where the dose rises by several Gy per mm: how far a contour is taken to
# reach beyond its last slice is worth 0.8 % of volume there, and the other three differ by as much.
@pytest.mark.parametrize(("name", "limit_pct"), [("PTV", 0.5), ("Bladder", 0.5), ("Rectum", 1.0)])
@pytest.mark.parametrize("reader", [eclipse_table, cerr_table])
def test_every_tabulated_row(case_dir, dvhs, reader, name, limit_pct):
    rows, volume_cc = reader(case_dir, name)
    assert len(rows) > 200
    ours = np.array([dvhs[name].v_pct(dose_gy) for dose_gy in rows[:, 0]])
    # As the tables do, in % of the structure's own volume.
    assert np.abs(ours - rows[:, 1]).max() <= limit_pct
    assert dvhs[name].volume_cc == pytest.approx(volume_cc, rel=0.02)


def test_cerr_and_eclipse_agree_with_each_other_only_with_the_half_bin(case_dir):
    eclipse, _ = eclipse_table(case_dir, "PTV")
    cerr, _ = cerr_table(case_dir, "PTV")
    order = np.argsort(eclipse[:, 0])

    def apart(shift_gy):
        doses = cerr[:, 0] - CERR_HALF_BIN_GY + shift_gy
        return np.abs(np.interp(doses, eclipse[order, 0], eclipse[order, 1]) - cerr[:, 1]).max()

    assert apart(CERR_HALF_BIN_GY) < 1.5 < 10 < apart(0.0)


@pytest.mark.parametrize("name", ["PTV", "Bladder"])
def test_slicerrt_metrics(case_dir, dvhs, name):
    rows = csv.DictReader((case_dir / "EclipseProstate_DvhMetrics_SlicerRT.csv").open())
    theirs = next(row for row in rows if row["Structure"] == name)
    ours = dvhs[name]
    assert ours.volume_cc == pytest.approx(float(theirs["Volume (cc)"]), rel=0.015)
    assert ours.mean_gy == pytest.approx(float(theirs["Mean dose (GY)"]), abs=0.02)
    assert ours.max_gy == pytest.approx(float(theirs["Max dose (GY)"]), abs=0.05)
    for metric, column in (("v_pct", "V5 (%)"), ("v_pct", "V20 (%)")):
        dose_gy = float(column[1:].split()[0])
        assert getattr(ours, metric)(dose_gy) == pytest.approx(float(theirs[column]), abs=0.05)
    # SlicerRT reads D from a curve sampled every 0.1 Gy or so.
    assert ours.d_cc_gy(2) == pytest.approx(float(theirs["D2cc (GY)"]), abs=0.1)
    assert ours.d_cc_gy(5) == pytest.approx(float(theirs["D5cc (GY)"]), abs=0.1)
    assert ours.d_gy(5) == pytest.approx(float(theirs["D5% (GY)"]), abs=0.1)
    assert ours.d_gy(10) == pytest.approx(float(theirs["D10% (GY)"]), abs=0.1)
