import argparse
import json
import subprocess
import sys

import pytest

from trocar.planners.dose.cli import COMMAND
from trocar.planners.dose.reference import dose_gy, dose_rate_cgy_h_u
from trocar.planners.dose.source import DATA_DIR, load_source
from trocar.runtime.errors import InvalidInput, ModelNotFound


def trocar_dose(*words):
    parser = argparse.ArgumentParser()
    COMMAND.configure(parser)
    return COMMAND.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def files(tmp_path):
    (tmp_path / "rates.csv").write_text("away_cm,along_cm\n1,0\n0,-3\n")
    (tmp_path / "points.csv").write_text("x_mm,y_mm,z_mm\n10,0,0\n0,0,25.5\n")
    (tmp_path / "seeds.json").write_text("[[0, 0, 0], [5, 0, 10]]")
    return tmp_path


def test_rates_as_json(files, capsys):
    assert trocar_dose("--source", "6711", "--points", files / "rates.csv", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["unit"] == "cGy/h/U"
    assert document["values"][0] == pytest.approx(0.965)
    assert document["values"][1] == dose_rate_cgy_h_u(load_source("6711"), 0.0, -3.0)


def test_rates_from_a_source_file_are_those_of_the_shipped_source(files, capsys):
    path = DATA_DIR / "ir192-flexisource.json"
    trocar_dose("--source", path, "--points", files / "rates.csv", "--json")
    trocar_dose("--source", "Flexisource", "--points", files / "rates.csv", "--json")
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == second


def test_rates_as_a_table(files, capsys):
    trocar_dose("--source", "i125-6711", "--points", files / "rates.csv")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["away_cm,along_cm,dose_rate_cgy_h_u", "1,0,0.965"]
    assert len(lines) == 3


def test_dose_of_seeds(files, capsys):
    words = ["--source", "6711", "--points", files / "points.csv", "--seeds", files / "seeds.json"]
    assert trocar_dose(*words, "--strength-u", "0.42", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["unit"], document["strength_u"], document["seeds"]) == ("Gy", 0.42, 2)
    expected = dose_gy(load_source("6711"), [[10, 0, 0], [0, 0, 25.5]], [[0, 0, 0], [5, 0, 10]], 0.42)
    assert document["values"] == pytest.approx(expected.tolist(), rel=1e-5)


def test_a_plan_brings_its_strength_and_an_assumed_one_is_said(files, capsys):
    plan = {
        "schema": "trocar.plan/1",
        "strength_u": 0.5,
        "needles": [{"x_mm": 0, "y_mm": 0, "seeds_z_mm": [0]}],
    }
    (files / "plan.json").write_text(json.dumps(plan))
    words = ["--source", "6711", "--points", files / "points.csv", "--json", "--seeds"]
    trocar_dose(*words, files / "plan.json")
    assert json.loads(capsys.readouterr().out)["strength_u"] == 0.5
    trocar_dose(*words, files / "seeds.json")
    captured = capsys.readouterr()
    assert json.loads(captured.out)["strength_u"] == 1.0
    assert "no strength given" in captured.err


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--source", "nope", "--points", "rates.csv"], ModelNotFound, "unknown source 'nope'"),
        (["--source", "6711", "--points", "absent.csv"], InvalidInput, "No such file"),
        (["--source", "6711", "--points", "points.csv"], InvalidInput, "--seeds: expected a seeds file"),
        (
            ["--source", "6711", "--points", "rates.csv", "--seeds", "seeds.json"],
            InvalidInput,
            "expected header x_mm",
        ),
        (
            ["--source", "6711", "--points", "points.csv", "--seeds", "seeds.json", "--strength-u", "100"],
            InvalidInput,
            "strength: expected 0 < U <= 10 for I-125, got 100",
        ),
        (
            ["--source", "6711", "--points", "rates.csv", "--strength-u", "nan"],
            InvalidInput,
            "strength: expected",
        ),
    ],
)
def test_bad_input(files, monkeypatch, capsys, words, error, message):
    monkeypatch.chdir(files)
    with pytest.raises(error, match=message):
        trocar_dose(*words)
    assert capsys.readouterr().out == ""


def test_declaring_the_command_does_not_import_numpy():
    code = "import sys, trocar.planners.dose.cli; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
