from __future__ import annotations

import argparse
import json

import pytest

from trocar.bench import unlike
from trocar.bench.report import terminal
from trocar.bench.workloads import novelty
from trocar.runtime.errors import InvalidInput


def measure(*options):
    parser = argparse.ArgumentParser()
    novelty.add_arguments(parser)
    return novelty.run(parser.parse_args(options))


@pytest.fixture
def few_kinds(monkeypatch):
    """The whole list takes minutes; one of each group shows the way."""
    monkeypatch.setattr(unlike, "MISSHAPEN", {"volume 8-12 cc": unlike.MISSHAPEN["volume 8-12 cc"]})
    monkeypatch.setattr(unlike, "CORRUPTED", {"two pieces": unlike.CORRUPTED["two pieces"]})


@pytest.mark.usefixtures("few_kinds")
def test_a_small_run_scores_every_kind():
    found = measure("--cases", "1", "--fit", "24", "--seed", "3")
    kinds = found["tables"]["kinds"]
    assert [row["group"] for row in kinds] == 3 * ["ordinary"] + ["out of range"] + 2 * ["corrupted"]
    assert all(row["flagged"] == 1 for row in kinds if row["group"] != "ordinary")
    assert found["fitted"] == 24
    assert found["flagged_corrupted_pct"] == 100.0
    assert found["timings"]["descriptors"]["min_ms"] > 0.0
    assert json.loads(json.dumps(found)) == found
    terminal.render(found)


def test_statistics_come_from_a_file_or_a_manifest(tmp_path):
    statistics = {"schema": "trocar.novelty/1"}
    for name, document in (("plain", statistics), ("manifest", {"name": "tpgan", "novelty": statistics})):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(document))
        assert novelty._read(str(path)) == statistics
    path.write_text("no JSON")
    with pytest.raises(InvalidInput, match="expected novelty statistics in JSON"):
        measure("--statistics", str(path))


def test_what_was_fitted_is_not_scored():
    with pytest.raises(InvalidInput, match="other phantoms than are fitted"):
        measure("--seed", str(novelty.FIRST_FITTED + 3))
    with pytest.raises(InvalidInput, match="at least one case"):
        measure("--cases", "0")
