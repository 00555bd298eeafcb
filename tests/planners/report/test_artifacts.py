from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import matplotlib.image
import nrrd
import numpy as np
import pytest

from trocar.planners.report import ARTIFACTS, render_artifacts
from trocar.planners.report.artifacts import dose_nrrd
from trocar.planners.types import Grid
from trocar.runtime.errors import InvalidInput


def test_the_files_asked_for_in_the_order_asked(result: Any) -> None:
    assert list(render_artifacts(result, ["report.html", "dvh.png", "report.html"])) == [
        "report.html",
        "dvh.png",
    ]
    assert render_artifacts(result, []) == {}


def test_an_unknown_artifact_is_refused(result: Any) -> None:
    with pytest.raises(InvalidInput, match=r"plan\.json.*report\.html.*'plan\.exe'"):
        render_artifacts(result, ["dvh.png", "plan.exe"])


def test_plan_json_is_the_plan(result: Any) -> None:
    plans = pytest.importorskip("trocar.planners.io.plans")
    document = json.loads(render_artifacts(result, ["plan.json"])["plan.json"])
    assert document["schema"] == "trocar.plan/1"
    assert plans.read_plan(document).needles == result.plan.needles


def test_dose_nrrd_is_where_the_dose_is(tmp_path: Path) -> None:
    grid = Grid(origin_xyz_mm=(-3.0, 7.0, -20.0), spacing_zyx_mm=(5.0, 2.0, 1.0), shape_zyx=(2, 3, 4))
    dose_gy = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    path = tmp_path / "dose.nrrd"
    path.write_bytes(dose_nrrd(dose_gy, grid))
    data, header = nrrd.read(str(path), index_order="C")
    assert data.dtype == np.float32
    assert np.array_equal(data, dose_gy)
    assert header["space"] == "left-posterior-superior"
    assert header["sizes"].tolist() == [4, 3, 2]
    # The first axis of the file is x, 1 mm; the last is z, 5 mm.
    assert np.array_equal(header["space directions"], np.diag([1.0, 2.0, 5.0]))
    assert header["space origin"].tolist() == [-3.0, 7.0, -20.0]
    assert header["sample units"] == "Gy"


@pytest.mark.parametrize("name", ["dvh.png", "plan.png"])
def test_pictures_are_png_and_not_blank(result: Any, name: str) -> None:
    picture = matplotlib.image.imread(io.BytesIO(render_artifacts(result, [name])[name]))
    assert min(picture.shape[:2]) > 500
    assert picture[..., :3].std() > 0.05


def test_the_same_plan_gives_the_same_bytes(result: Any) -> None:
    names = [name for name in ARTIFACTS if name.endswith((".png", ".html"))]
    assert render_artifacts(result, names) == render_artifacts(result, names)
