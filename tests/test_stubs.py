"""The committed protobuf stubs are what the .proto files generate."""

import filecmp
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# `make stubs` keeps the tools in an environment of their own.
PYTHONS = (ROOT / ".venv-stubs" / "bin" / "python", Path(sys.executable))


def test_the_committed_stubs_are_current(tmp_path: Path) -> None:
    python = next(path for path in PYTHONS if path.exists())
    made = subprocess.run(
        [ROOT / "tools" / "stubs.sh", tmp_path],
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode == 2:
        pytest.skip(made.stderr.strip())
    assert made.returncode == 0, made.stderr
    fresh = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*_pb2*"))
    committed = sorted(path.relative_to(ROOT / "proto") for path in (ROOT / "proto").rglob("*_pb2*.py*"))
    assert fresh == [path for path in committed if "__pycache__" not in path.parts]
    stale = [
        str(name) for name in fresh if not filecmp.cmp(tmp_path / name, ROOT / "proto" / name, shallow=False)
    ]
    assert stale == []


def test_the_reply_is_the_document_that_the_command_line_prints() -> None:
    """Every metric of the design has a field, so that no figure is lost on the wire."""
    from trocar.v1 import planning_pb2

    fields = set(planning_pb2.RoleMetrics.DESCRIPTOR.fields_by_name)
    design = {"volume_cc", "v100_pct", "v150_pct", "v200_pct", "d90_gy", "d30_gy", "d10_gy", "d2cc_gy"}
    assert design | {"d0_1cc_gy", "mean_gy"} <= fields
