"""Which artifacts there are, and how each becomes bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from trocar.planners.types import Float32Array, Grid
from trocar.runtime.errors import InvalidInput

if TYPE_CHECKING:
    from trocar.planners.pipeline import PlanResult

# What was rendered before.
Rendered = dict[str, "bytes | None"]

# What the drawings need (matplotlib) takes half a second to import: each renderer imports its own.


def render_artifacts(result: PlanResult, names: Iterable[str]) -> dict[str, bytes]:
    """Return the named files of a plan, in the order asked; one that has nothing to hold is left out.

    Parameters
    ----------
    result : a computed plan.
    names : out of `ARTIFACTS`.

    Raises
    ------
    InvalidInput
        An artifact of that name does not exist; nothing was rendered.
    """
    wanted = tuple(dict.fromkeys(names))
    for name in wanted:
        if name not in ARTIFACTS:
            raise InvalidInput(f"expected artifacts out of {', '.join(ARTIFACTS)}, got {name!r}")
    files: dict[str, bytes | None] = {}
    # The report shows the DVH, so it comes last and takes the picture that is there.
    for name in sorted(wanted, key=lambda name: name == "report.html"):
        files[name] = ARTIFACTS[name](result, files)
    return {name: content for name in wanted if (content := files[name]) is not None}


def dose_nrrd(dose_gy: Float32Array, grid: Grid) -> bytes:
    """Return a dose grid as NRRD, float32 Gy, in the LPS frame, as 3D Slicer reads it.

    Parameters
    ----------
    dose_gy : (nz, ny, nx) float32.
    grid : where its voxels lie.
    """
    import nrrd

    spacing_xyz_mm = grid.spacing_zyx_mm[::-1]
    header = {
        "space": "left-posterior-superior",
        "kinds": ["domain", "domain", "domain"],
        "space directions": np.diag(spacing_xyz_mm).astype(np.float64),
        "space origin": np.array(grid.origin_xyz_mm, dtype=np.float64),
        "space units": ["mm", "mm", "mm"],
        "encoding": "gzip",
        "endian": "little",
        "sample units": "Gy",
    }
    stream = io.BytesIO()
    data = np.ascontiguousarray(dose_gy, dtype="<f4")
    # Level 1: dose is smooth noise to gzip, the higher levels cost ten times the time for a few percent.
    nrrd.write(stream, data, header, compression_level=1, index_order="C")
    return stream.getvalue()


def _plan_json(result: PlanResult, _: Rendered) -> bytes:
    from trocar.planners.io.plans import plan_document

    return (json.dumps(plan_document(result.plan), indent=2, allow_nan=False) + "\n").encode()


def _dose_nrrd(result: PlanResult, _: Rendered) -> bytes:
    return dose_nrrd(result.dose_gy, result.anatomy.grid)


def _dvh_png(result: PlanResult, _: Rendered) -> bytes:
    from trocar.planners.report.figures import dvh_png

    return dvh_png(result)


def _plan_png(result: PlanResult, _: Rendered) -> bytes:
    from trocar.planners.report.figures import plan_png

    return plan_png(result)


def _report_html(result: PlanResult, files: Rendered) -> bytes:
    from trocar.planners.report.page import report_html

    return report_html(result, files.get("dvh.png") or _dvh_png(result, files))


def _structures_dcm(result: PlanResult, _: Rendered) -> bytes | None:
    from trocar.planners.io.rtstruct_out import rtstruct_bytes

    return rtstruct_bytes(result)


def _plan_dcm(result: PlanResult, _: Rendered) -> bytes:
    from trocar.planners.io.dicom_out import rtplan_bytes

    return rtplan_bytes(result)


def _dose_dcm(result: PlanResult, _: Rendered) -> bytes:
    from trocar.planners.io.dicom_out import rtdose_bytes

    return rtdose_bytes(result)


ARTIFACTS: dict[str, Callable[[PlanResult, Rendered], bytes | None]] = {
    "plan.json": _plan_json,
    "dose.nrrd": _dose_nrrd,
    "dvh.png": _dvh_png,
    "plan.png": _plan_png,
    "report.html": _report_html,
    "structures.dcm": _structures_dcm,
    "plan.dcm": _plan_dcm,
    "dose.dcm": _dose_dcm,
}
