import json
from pathlib import Path

import nrrd
import pytest

from trocar.planners.requests import OUTPUTS
from trocar.runtime.cli import main

QUICK = ("--moves", "2000")


def test_a_phantom_shows_its_volumes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phantom", "7"]) == 0
    text = capsys.readouterr().out
    for word in ("phantom:7", "ctv", "ptv", "urethra", "rectum", "bladder", "volume cc"):
        assert word in text


def test_a_phantom_is_written_and_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "p.seg.nrrd"
    assert main(["phantom", "7", "-o", str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["file"] == str(file)
    assert {"ctv", "ptv", "urethra", "rectum", "bladder"} == set(said["structures"])
    assert 18 <= said["structures"]["ctv"]["volume_cc"] <= 90
    assert nrrd.read_header(str(file))["Segment0_ID"] == "CTV"

    assert main(["plan", str(file), *QUICK, "--json"]) in (0, 1)
    planned = json.loads(capsys.readouterr().out)
    # The file holds whole voxels, the phantom parts of them; those covered to just half count in.
    assert planned["metrics"]["ctv"]["volume_cc"] == pytest.approx(
        said["structures"]["ctv"]["volume_cc"], rel=0.02
    )


@pytest.mark.parametrize("arguments", [["-o", "p.nrrd"], ["-o", "none/p.seg.nrrd"]])
def test_a_phantom_goes_where_it_can(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["phantom", "7", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["plan", "phantom:7", *QUICK, "-o", str(tmp_path / "out")])
    captured = capsys.readouterr()
    assert captured.err == ""  # no bar where nobody watches
    assert ("NOT acceptable" in captured.out) == (code == 1)
    for word in ("seeds in", "V100 %", "D0.1cc Gy", "needle_pattern_row3", "note: ", "refine", "report.html"):
        assert word in captured.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(OUTPUTS)


def test_a_plan_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "phantom:7", *QUICK, "--json"]) in (0, 1)
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert captured.out.count("\n") == 1
    assert set(document) >= {
        "plan",
        "metrics",
        "seeds",
        "needles",
        "total_strength_u",
        "validity",
        "timing_ms",
    }
    assert set(document["timing_ms"]) == {"read", "generate", "refine", "dose", "dvh", "validity", "total"}


def test_alternatives_are_other_plans_with_their_proof(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["plan", "phantom:4", "--moves", "3000", "--alternatives", "2"]
    main([*asked, "-o", str(tmp_path / "out")])
    table = capsys.readouterr().out.partition("plans by cost")[2]
    main([*asked, "--json"])
    document = json.loads(capsys.readouterr().out)
    plans = [document, *document["alternatives"]]
    assert len(plans) == 3
    costs = [one["plan"]["provenance"]["cost"] for one in plans]
    assert costs == sorted(costs)
    assert document["provenance"]["cost"] == costs[0]
    assert document["provenance"]["chains"] == 3
    for number, one in enumerate(plans, start=1):
        assert set(one) >= {"plan", "metrics", "seeds", "needles", "total_strength_u", "validity"}
        assert f"{costs[number - 1]:.2f}" in table
        name = "plan.json" if number == 1 else f"plan-{number}.json"
        written = json.loads((tmp_path / "out" / name).read_text())
        assert written["needles"] == one["plan"]["needles"]
        # What stands beside a plan is its own proof.
        main(["evaluate", "phantom:4", str(tmp_path / "out" / name), "--json"])
        proved = json.loads(capsys.readouterr().out)
        assert proved["metrics"]["ptv"] == pytest.approx(one["metrics"]["ptv"], rel=1e-6)
        assert proved["alternatives"] == []
    assert len({json.dumps(one["plan"]["needles"]) for one in plans}) == 3


def test_a_folder_that_cannot_be_is_refused_before_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from trocar.planners import local

    monkeypatch.setattr(local, "plan", lambda *_, **__: pytest.fail("it planned"))
    (tmp_path / "file").write_text("mine")
    assert main(["plan", "phantom:7", "-o", str(tmp_path / "file")]) == 2
    assert "got the file" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_the_plan_file_that_was_written_is_what_evaluate_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned_code = main(["plan", "phantom:7", "--moves", "20000", "--json", "-o", str(tmp_path)])
    planned = json.loads(capsys.readouterr().out)
    assert main(["evaluate", "phantom:7", str(tmp_path / "plan.json"), "--json"]) == planned_code
    proved = json.loads(capsys.readouterr().out)
    assert proved["seeds"] == planned["seeds"]
    assert proved["metrics"]["ptv"] == pytest.approx(planned["metrics"]["ptv"], rel=1e-6)
    assert proved["timing_ms"]["total"] > 0


def test_a_finer_dose_grid_changes_little(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "phantom:7", "--moves", "20000", "--json", "-o", str(tmp_path)])
    coarse = json.loads(capsys.readouterr().out)["metrics"]["ptv"]
    assert main(["evaluate", "phantom:7", str(tmp_path / "plan.json"), "--dose-grid", "0.5", "--json"]) in (
        0,
        1,
    )
    fine = json.loads(capsys.readouterr().out)["metrics"]["ptv"]
    assert fine["volume_cc"] == pytest.approx(coarse["volume_cc"], rel=0.01)
    assert fine["d90_gy"] == pytest.approx(coarse["d90_gy"], rel=0.01)
    assert fine["d90_gy"] != coarse["d90_gy"]
