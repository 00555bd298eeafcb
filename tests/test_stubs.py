"""The committed protobuf stubs are what the .proto files generate."""

import filecmp
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = {"grpcio-tools": "1.71.2", "mypy-protobuf": "3.6.0"}


def missing_tools() -> str:
    for name, wanted in TOOLS.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "none"
        if found != wanted:
            return f"stubs are made with {name} {wanted}, found {found}"
    return ""


@pytest.mark.skipif(bool(missing_tools()), reason=missing_tools() or "the tools are there")
def test_the_committed_stubs_are_current(tmp_path: Path) -> None:
    subprocess.run(
        [ROOT / "tools" / "stubs.sh", tmp_path], check=True, env={**os.environ, "PYTHON": sys.executable}
    )
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
