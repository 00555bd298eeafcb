from __future__ import annotations

import argparse
import json

import pytest

from trocar.bench.report import terminal
from trocar.bench.workloads import planning_strata
from trocar.planners.phantom import phantom_shape
from trocar.runtime.errors import InvalidInput, ModelNotFound


def measure(*options):
    parser = argparse.ArgumentParser()
    planning_strata.add_arguments(parser)
    return planning_strata.run(parser.parse_args(options))


@pytest.fixture(scope="module")
def found():
    return measure("--cases", "2", "--seed", "3", "--moves", "3000", "--start", "random")


def test_every_case_is_in_one_stratum_of_each_kind(found):
    strata = found["tables"]["strata"]
    for group in ("all", "volume", "asymmetry", "rectal gap", "median lobe"):
        held = [row for row in strata if row["by"] == group]
        assert sum(row["cases"] for row in held) == 2
        assert sum(row["met"] for row in held) == found["criteria_met"]
    assert json.loads(json.dumps(found)) == found
    terminal.render(found)


def test_the_whole_is_the_mean_of_its_cases(found):
    whole = found["tables"]["strata"][0]
    for name in ("ctv_v100", "needles"):
        values = [row[name] for row in found["case_rows"]]
        assert whole[name] == pytest.approx(sum(values) / 2, abs=0.01)
    assert 50.0 < whole["ctv_v100"] <= 100.0


def test_thirds_are_equal_and_in_order():
    shapes = [phantom_shape(seed) for seed in range(31)]
    strata = list(planning_strata._strata(shapes))
    for group, attribute, _ in planning_strata.THIRDS:
        parts = [chosen for name, _, chosen in strata if name == group]
        assert [len(part) for part in parts] == [11, 10, 10]
        values = [[abs(getattr(shapes[i], attribute)) for i in part] for part in parts]
        assert max(values[0]) <= min(values[1])
        assert max(values[1]) <= min(values[2])
    lobes = {name: chosen for group, name, chosen in strata if group == "median lobe"}
    assert all(shapes[i].median_lobe > 0 for i in lobes["yes"])
    assert len(lobes["yes"]) + len(lobes["no"]) == 31


def test_the_worst_served_are_named():
    rows = [
        {"by": "all", "stratum": "", "cases": 4, "met": 3, "met_pct": 75.0},
        {"by": "median lobe", "stratum": "yes", "cases": 2, "met": 1, "met_pct": 50.0},
    ]
    assert planning_strata._least_met(rows) == "median lobe yes: 1 of 2"
    assert planning_strata._least_met(rows[:1]) == "all: 3 of 4"


def test_what_cannot_be_measured_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="at least one case"):
        measure("--cases", "0", "--start", "random")
    with pytest.raises((ModelNotFound, InvalidInput)):
        measure("--cases", "1", "--repository", str(tmp_path))
