"""ONNX Runtime keeps an identifier of the device and reports to its maker, unless it is told not to."""

import os
import subprocess
import sys
from pathlib import Path

OPEN_AND_RUN = """
import sys
from pathlib import Path
import numpy as np
from trocar.runtime.session import ort
session = ort.open_session(Path(sys.argv[1]), device="cpu")
session.run({"pixels": np.zeros((1, 4), np.uint8), "mask": np.array(True)})
"""


def test_a_session_leaves_nothing_of_its_makers_telemetry(graphs: Path, tmp_path: Path) -> None:
    # Without what quiets it by itself: it is still where it sees a CI.
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", OPEN_AND_RUN, str(graphs / "mixed.onnx")],
        env=environment,
        check=True,
        timeout=60,
    )
    assert [path.name for path in tmp_path.rglob("*")] == []
