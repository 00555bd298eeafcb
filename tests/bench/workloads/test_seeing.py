import argparse
from pathlib import Path

import pytest

from trocar.bench.workloads import seeing
from trocar.runtime.errors import InvalidInput


def test_a_request_to_servers_that_differ_in_who_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {name: seeing.SETTINGS[name] for name in ("nothing", "metrics")}
    monkeypatch.setattr(seeing, "SETTINGS", kept)
    result = seeing.run(argparse.Namespace(repository=None, repeats=2))
    assert set(result["timings"]) == {"live_nothing", "live_metrics"}
    assert [row["who looks"] for row in result["tables"]["servers"]] == list(kept)
    assert all(row["resident_mib"] > 1 for row in result["tables"]["servers"])


def test_options_that_do_not_do(tmp_path: Path) -> None:
    for options in ({"repeats": 0, "repository": None}, {"repeats": 1, "repository": str(tmp_path)}):
        with pytest.raises(InvalidInput, match="expected"):
            seeing.run(argparse.Namespace(**options))
