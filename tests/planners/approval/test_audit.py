"""`trocar audit`: the log and the approved copies, held against each other."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from trocar.planners.io import sealed
from trocar.planners.io.dicom_write import encoded

Run = Callable[..., tuple[int, Any, str]]
BY = ("--by", "Curie^Marie")


@pytest.fixture
def copies(good: Path, poor: Path, run: Run) -> list[Path]:
    """Two approved copies and, between them, a refusal."""
    assert run("approve", good, *BY)[0] == 0
    assert run("approve", poor, *BY)[0] == 1
    assert run("approve", poor, "--by", "Forssell^Gosta", "--override", "agreed [bold]")[0] == 0
    return [good / "approved", poor / "approved"]


def test_a_whole_log_and_its_copies(copies: list[Path], run: Run, log_path: Path) -> None:
    code, answer, _ = run("audit", "verify", "--json")
    assert code == 0
    assert answer == {
        "file": str(log_path),
        "valid": True,
        "problems": [],
        "count": 3,
        "head": json.loads((copies[1] / "plan.json").read_text())["approval"]["audit"]["sha256"],
    }
    every = [path for copy in copies for path in (copy, copy / "plan.json", copy / "plan.dcm")]
    plans = [word for path in every for word in ("--plan", path)]
    code, text, _ = run("audit", "verify", "--expect", answer["head"].upper(), *plans)
    assert code == 0
    assert f"newest: {answer['head']}" in text


@pytest.mark.usefixtures("copies")
def test_the_list(run: Run) -> None:
    code, answer, _ = run("audit", "list", "--json")
    assert code == 0
    assert [one["action"] for one in answer["entries"]] == ["approve", "refuse", "override"]
    assert [one["number"] for one in answer["entries"]] == [1, 2, 3]
    code, text, _ = run("audit", "list")
    assert code == 0
    failed = answer["entries"][1]["failed"][0]["rule"]
    for word in ("Curie^Marie", "Forssell^Gosta", "agreed [bold]", "refuse", failed):
        assert word in text.replace("\n", "")


def _cut(log_path: Path, after: int) -> None:
    """Cut the newest entries off, with every trace that the database keeps of them."""
    with closing(sqlite3.connect(log_path)) as database:
        (sql,) = database.execute("SELECT sql FROM sqlite_master WHERE name = 'no_delete'").fetchone()
        database.execute("DROP TRIGGER no_delete")
        database.execute(f"DELETE FROM entries WHERE number > {after}")
        database.execute(f"UPDATE sqlite_sequence SET seq = {after}")
        database.execute(sql)
        database.commit()


def test_an_approved_copy_misses_its_entry_when_the_tail_is_cut_off(
    copies: list[Path], run: Run, log_path: Path
) -> None:
    head = run("audit", "verify", "--json")[1]["head"]
    _cut(log_path, 2)
    assert run("audit", "verify")[0] == 0
    assert run("audit", "verify", "--plan", copies[0])[0] == 0
    code, answer, _ = run("audit", "verify", "--plan", copies[1], "--json")
    assert code == 1
    assert [problem.rpartition(" ")[2] for problem in answer["problems"]] == [head, head]
    code, text, _ = run("audit", "verify", "--expect", head)
    assert code == 1
    assert text.splitlines() == [f"NOT VALID: no entry has the hash {head}"]


@pytest.mark.usefixtures("copies")
def test_an_edited_log_is_not_valid(run: Run, log_path: Path) -> None:
    data = bytearray(log_path.read_bytes())
    data[data.index(b"Forssell")] = ord("G")
    log_path.write_bytes(data)
    assert run("audit", "verify")[:2] == (1, "NOT VALID: entry 3 was changed\n")
    code, text, _ = run("audit", "list")
    assert code == 1
    assert "NOT VALID: entry 3 was changed" in text


def _set(document: dict[str, Any], value: object, *path: Any) -> None:
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("needles", 0, "x_mm"), 1.5, "its plan is not that of entry 1"),
        (("strength_u",), 0.5, "its plan is not that of entry 1"),
        (("provenance", "input_sha256"), "0" * 64, "its plan is not that of entry 1"),
        (("more",), 1, "its plan is not that of entry 1"),
        (("approval", "by"), "Else^Someone", "its approval is not that of entry 1"),
        (("approval", "at"), "2020-01-01T00:00:00+00:00", "its approval is not that of entry 1"),
        (("approval", "override"), "mine", "its approval is not that of entry 1"),
        (("approval", "audit", "number"), 2, "its approval is not that of entry 1"),
        (("approval", "audit", "sha256"), "0" * 64, "no entry has the hash"),
    ],
)
def test_an_edited_copy_is_not_what_its_entry_says(
    path: tuple[Any, ...], value: object, says: str, good: Path, run: Run
) -> None:
    assert run("approve", good, *BY)[0] == 0
    file = good / "approved" / "plan.json"
    document = json.loads(file.read_text())
    _set(document, value, *path)
    file.write_text(json.dumps(document))
    code, answer, _ = run("audit", "verify", "--plan", good / "approved", "--json")
    assert code == 1
    assert len(answer["problems"]) == 1
    assert answer["problems"][0].startswith(f"{file}: {says}")


def test_a_refusal_does_not_vouch_for_a_copy(copies: list[Path], run: Run) -> None:
    refused = run("audit", "list", "--json")[1]["entries"][1]
    file = copies[0] / "plan.json"
    document = json.loads(file.read_text())
    _set(document, {"number": 2, "sha256": refused["sha256"]}, "approval", "audit")
    file.write_text(json.dumps(document))
    assert run("audit", "verify", "--plan", file)[0] == 1


def test_an_edited_rtplan_is_not_what_its_entry_says(good: Path, run: Run) -> None:
    assert run("approve", good, *BY)[0] == 0
    file = good / "approved" / "plan.dcm"
    data = file.read_bytes()
    generator = random.Random(8)
    start = 144 + int.from_bytes(data[140:144], "little")
    for _ in range(40):
        changed = bytearray(data)
        changed[generator.randrange(start, len(data))] ^= generator.randrange(1, 256)
        file.write_bytes(changed)
        assert run("audit", "verify", "--plan", file)[0] in (1, 2)
    file.write_bytes(data)
    assert run("audit", "verify", "--plan", file)[0] == 0


def test_an_rtplan_edited_and_sealed_again_is_not_what_its_entry_says(good: Path, run: Run) -> None:
    assert run("approve", good, *BY)[0] == 0
    file = good / "approved" / "plan.dcm"
    found = sealed.read_sealed(file.read_bytes())
    found.dataset.PatientID = "another"
    sealed.add_entry(found.dataset)
    file.write_bytes(sealed.enter(sealed.seal(encoded(found.dataset)), found.entry))
    assert sealed.read_sealed(file.read_bytes()).whole
    code, text, _ = run("audit", "verify", "--plan", file)
    assert code == 1
    assert "its bytes are not those of entry 1" in text


def test_bad_input(good: Path, run: Run, log_path: Path, tmp_path: Path) -> None:
    code, _, error = run("audit", "verify")
    assert code == 2
    assert f"found none at {log_path}" in error
    assert run("audit", "list", "--audit", tmp_path)[0] == 2
    assert run("approve", good, *BY)[0] == 0
    for plan in (good, good / "plan.dcm", tmp_path / "nowhere"):
        code, _, error = run("audit", "verify", "--plan", plan)
        assert code == 2
        assert error.count("\n") == 1
