"""DICOM out of a server, and back into it."""

import pytest

from trocar.planners.requests import DICOM_OUTPUTS, CaseInput, Search, Settings
from trocar.planners.servicer import client
from trocar.runtime.channel import Access


def test_a_plan_leaves_as_dicom_and_comes_back(server):
    case, asked = CaseInput(phantom_seed=4), Settings()
    search = Search(moves=2000, chains=1, start="random")
    planned, files = client.plan(
        Access(server.target), case, asked, search, artifacts=DICOM_OUTPUTS, timeout_s=60
    )
    assert sorted(files) == sorted(DICOM_OUTPUTS)
    proved, _ = client.evaluate(Access(server.target), case, asked, files["plan.dcm"], timeout_s=60)
    assert proved["seeds"] == planned["seeds"]
    assert proved["metrics"]["ctv"]["d90_gy"] == pytest.approx(planned["metrics"]["ctv"]["d90_gy"], rel=0.01)


def test_the_command_line_writes_dicom_where_asked(trocar, tmp_path):
    plan = ("plan", "phantom:4", "--moves", "2000", "--chains", "1", "--start", "random")
    assert trocar(*plan, "--dicom").returncode == 2
    trocar(*plan, "--dicom", "-o", tmp_path / "with")
    trocar(*plan, "-o", tmp_path / "without")
    assert (tmp_path / "with" / "plan.dcm").read_bytes()[128:132] == b"DICM"
    assert not (tmp_path / "without" / "plan.dcm").exists()
