"""Files damaged at random: each ends in one clean error or a right result, in bounded time and memory.

TROCAR_FUZZ_FILES (2000) and TROCAR_FUZZ_SEED (8) make longer and other runs. A file that is at fault is read
again by hand with `fuzz/worker.py SEEDS SEED NUMBER 1 NUMBER+1`.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pydicom
import pytest

from trocar.planners import intake, pipeline
from trocar.planners.io.dicom_out import encoded, rtdose_bytes, rtplan_bytes
from trocar.planners.io.seg_writer import write_seg_nrrd
from trocar.planners.requests import CaseInput, Search, Settings

FILES = int(os.environ.get("TROCAR_FUZZ_FILES", "2000"))
SEED = int(os.environ.get("TROCAR_FUZZ_SEED", "8"))
WORKER = Path(__file__).with_name("fuzz") / "worker.py"
WORKERS = min(os.cpu_count() or 1, 8)
MOST_DEATHS = 10
# Of wall time without a word; a file's own limit is five seconds of processor time, which a busy machine
# does not use up.
SILENT_S = 240.0


def _structures(data: bytes) -> bytes:
    """A structure set of a CTV, a PTV that is the same, a urethra and a point."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    for number, (name, scale) in enumerate((("PTV", 1.1), ("Urethra", 0.15)), 2):
        region, shape = (
            deepcopy(one[0]) for one in (dataset.StructureSetROISequence, dataset.ROIContourSequence)
        )
        region.ROINumber = shape.ReferencedROINumber = number
        region.ROIName = name
        for contour in shape.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3) * (scale, scale, 1)
            contour.ContourData = [f"{value:g}" for value in points.ravel()]
        dataset.StructureSetROISequence.append(region)
        dataset.ROIContourSequence.append(shape)
    point = deepcopy(dataset.ROIContourSequence[0].ContourSequence[0])
    point.ContourGeometricType, point.NumberOfContourPoints, point.ContourData = "POINT", 1, ["0", "0", "0"]
    dataset.ROIContourSequence[0].ContourSequence.append(point)
    return encoded(dataset)


def _hdr(data: bytes) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.BrachyTreatmentType = "HDR"
    for channel in dataset.ApplicationSetupSequence[0].ChannelSequence:
        channel.ChannelTotalTime = "10"
    return encoded(dataset)


def _label_nrrd(data: bytes, encoding: str) -> bytes:
    """The same volume as a label map without names."""
    import nrrd

    stream = io.BytesIO(data)
    header = nrrd.read_header(stream)
    values = nrrd.read_data(header, stream)
    kept = {key: header[key] for key in ("space", "space directions", "space origin", "kinds")}
    out = io.BytesIO()
    nrrd.write(out, values.astype("<u2"), kept | {"encoding": encoding})
    return out.getvalue()


@pytest.fixture(scope="module")
def seeds(
    make_seg_nrrd: Callable[..., bytes],
    make_rtstruct: Callable[..., bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Whole files of each kind, small, most of them as trocar writes them."""
    small, drawn = make_seg_nrrd(), _structures(make_rtstruct())
    request = intake.plan_request(Settings(), Search(moves=200, chains=1, start="random"))
    case = intake.read_case(CaseInput(rtstruct=drawn, name="x.dcm"))
    result = pipeline.plan_case(case, request)
    # The hour of day must not decide what is tested.
    provenance = {**result.provenance, "created": "2026-01-01T00:00:00+00:00"}
    plan = replace(result.plan, provenance=provenance)
    result = replace(result, plan=plan, provenance=provenance)
    coarse = pipeline.evaluate_plan(case, plan, request, dose_grid_mm=5.0)
    coarse = replace(coarse, provenance=provenance)
    implant = rtplan_bytes(result)
    read = intake.read_case(CaseInput(nrrd=small, name="x.nrrd"))
    drawn_alone = replace(read, structures={"ctv": read.structures["ctv"]})
    files = {
        "nrrd.0": small,
        "nrrd.1": write_seg_nrrd(drawn_alone),
        "nrrd.2": _label_nrrd(small, "raw"),
        "nrrd.3": _label_nrrd(small, "bzip2"),
        "rtstruct.0": make_rtstruct(),
        "rtstruct.1": drawn,
        "rtplan.0": implant,
        "rtplan.1": _hdr(implant),
        "rtdose.0": rtdose_bytes(coarse),
    }
    folder = tmp_path_factory.mktemp("seeds")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def _read_by_one(seeds: Path, first: int) -> Iterator[dict[str, Any]]:
    """Every WORKERSth file from `first`: how each ended, also those that a worker died of."""
    deaths = 0
    while first < FILES and deaths < MOST_DEATHS:
        command = [sys.executable, str(WORKER), str(seeds), *map(str, (SEED, first, WORKERS, FILES))]
        begun: dict[str, Any] = {}
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            while True:
                watchdog = Timer(SILENT_S, process.kill)
                watchdog.start()
                line = process.stdout.readline()
                watchdog.cancel()
                if not line:
                    break
                said = json.loads(line)
                if "end" in said:
                    yield said
                begun = said
            error = process.stderr.read()
        if process.returncode == 0:
            return
        assert "begin" in begun, f"the worker did not start: {error}"
        number = -process.returncode
        died = signal.Signals(number).name if number > 0 else f"code {process.returncode}"
        yield {"end": begun["begin"], "kind": begun["kind"], "outcome": "fault", "detail": f"{died} {error}"}
        first, deaths = begun["begin"] + WORKERS, deaths + 1


@pytest.mark.timeout(1800)
def test_damaged_files(seeds: Path) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        found = [
            said
            for part in pool.map(lambda first: list(_read_by_one(seeds, first)), range(WORKERS))
            for said in part
        ]
    faults = [said for said in found if said["outcome"] == "fault"]
    assert not faults, "\n".join(f"{said['end']} {said['kind']}: {said['detail']}" for said in faults[:20])
    assert sorted(said["end"] for said in found) == list(range(FILES))
    counts = Counter((said["kind"], said["outcome"]) for said in found)
    print(dict(counts), f"{max(said['peak'] for said in found) >> 20} MiB at most")
    # Damage that is always or never noticed would test little.
    for kind in ("nrrd", "rtstruct", "rtplan", "rtdose"):
        assert counts[kind, "right"] > FILES // 100
        assert counts[kind, "refused"] > FILES // 100
