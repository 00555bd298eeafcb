"""What the issue lists as bad input: one line, the right code, nothing written, the server alive.

Every case goes both ways: in process, and over gRPC to a server in a process of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from trocar.planners.dose import source as sources
from trocar.runtime import cli

Files = dict[str, Callable[..., bytes]]


@dataclass(frozen=True)
class Bad:
    """One mistake: the files it needs, the arguments, the code, and what the line must say."""

    name: str
    arguments: list[str]
    says: str
    files: Callable[[Files], dict[str, bytes]] = field(default=lambda _: {})
    code: int = 2


def _seg(**changes: Any) -> Callable[[Files], dict[str, bytes]]:
    return lambda make: {"case.seg.nrrd": make["nrrd"](**changes)}


def _rt(**changes: Any) -> Callable[[Files], dict[str, bytes]]:
    return lambda make: {"case.dcm": make["rtstruct"](**changes)}


def _source(change: Callable[[dict[str, Any]], None]) -> Callable[[Files], dict[str, bytes]]:
    def files(_: Files) -> dict[str, bytes]:
        document = json.loads((sources.DATA_DIR / "i125-6711.json").read_text())
        change(document)
        return {"mine.json": json.dumps(document).encode()}

    return files


def _unsort(document: dict[str, Any]) -> None:
    document["g_r"]["r_cm"].reverse()


def _drop_f(document: dict[str, Any]) -> None:
    del document["F"]


def _nan_g(document: dict[str, Any]) -> None:
    document["g_r"]["g"][0] = float("nan")


FILE, PHANTOM = ["plan", "case.seg.nrrd"], ["plan", "phantom:7"]
BAD = [
    Bad("nothing", FILE, "No such file"),
    Bad("empty file", FILE, "which is neither", lambda _: {"case.seg.nrrd": b""}),
    Bad("another kind of file", FILE, "which is neither", lambda _: {"case.seg.nrrd": b"\x89PNG\r\n"}),
    Bad("magic alone", FILE, "NRRD", lambda _: {"case.seg.nrrd": b"NRRD"}),
    Bad("truncated", FILE, "NRRD", lambda make: {"case.seg.nrrd": make["nrrd"]()[:-60]}),
    Bad("truncated in the header", FILE, "NRRD", lambda make: {"case.seg.nrrd": make["nrrd"]()[:120]}),
    Bad("short data", FILE, "truncated", _seg(data=b"\1" * 100)),
    Bad("a bomb", FILE, "NRRD", _seg(data=bytes(300_000_000))),
    Bad("10^12 voxels", FILE, "claims 1000000000000 voxels", _seg(sizes="10000 10000 10000")),
    Bad("10^30 voxels", FILE, "NRRD", _seg(sizes="10000000000 10000000000 10000000000")),
    Bad("negative size", FILE, "sizes must be positive", _seg(sizes="-40 40 10")),
    Bad("no target", FILE, "no target structure", _seg(name="Couch")),
    Bad("empty structure", FILE, "empty", _seg(label=9)),
    Bad("zero spacing", FILE, "spacing must be > 0", _seg(directions="(1,0,0) (0,0,0) (0,0,5)")),
    Bad("negative spacing", FILE, "space directions", _seg(directions=None, spacings="1 1 -5")),
    Bad("NaN spacing", FILE, "NRRD", _seg(directions="(nan,0,0) (0,1,0) (0,0,5)")),
    Bad("NaN origin", FILE, "not finite", _seg(origin="(0,nan,0)")),
    Bad("infinite origin", FILE, "not finite", _seg(origin="(0,inf,0)")),
    Bad("oblique", FILE, "oblique", _seg(directions="(0.8,0.6,0) (-0.6,0.8,0) (0,0,5)")),
    Bad("no role of that name", [*FILE, "--role", "ctv=Nobody"], "Nobody", _seg()),
    Bad("no such role", [*FILE, "--role", "liver=CTV"], "liver", _seg()),
    Bad("open contour", ["plan", "case.dcm"], "OPEN_PLANAR", _rt(kind="OPEN_PLANAR")),
    Bad("unknown frame", ["plan", "case.dcm"], "frame", _rt(frame="9.9.9")),
    Bad("two points", ["plan", "case.dcm"], "point", _rt(points=2)),
    Bad("contour at NaN", ["plan", "case.dcm"], "finite", _rt(z_mm="nan")),
    Bad(
        "truncated DICOM",
        ["plan", "case.dcm"],
        "RTSTRUCT",
        lambda make: {"case.dcm": make["rtstruct"]()[:400]},
    ),
    Bad("outside the template", [*PHANTOM, "--template", "500,500,5,13,13"], "outside the template"),
    Bad("outside the planes", [*PHANTOM, "--planes", "900,5,14"], "outside the planes"),
    Bad("template pitch 0", [*PHANTOM, "--template", "-30,-30,0,13,13"], "template pitch"),
    Bad("a template of a billion holes", [*PHANTOM, "--template", "0,0,5,100000,10000"], "template columns"),
    Bad("template at NaN", [*PHANTOM, "--template", "nan,0,5,13,13"], "not finite"),
    Bad("a billion planes", [*PHANTOM, "--planes", "0,5,1000000000"], "planes count"),
    Bad("prescription 0", [*PHANTOM, "--prescription-gy", "0"], "prescription"),
    Bad("prescription NaN", [*PHANTOM, "--prescription-gy", "nan"], "prescription"),
    Bad("prescription below 0", [*PHANTOM, "--prescription-gy", "-145"], "prescription"),
    Bad("strength 100 U", [*PHANTOM, "--strength-u", "100"], "got 100"),
    Bad("strength 0", [*PHANTOM, "--strength-u", "0"], "got 0"),
    Bad("strength NaN", [*PHANTOM, "--strength-u", "nan"], "got nan"),
    Bad("unknown source", [*PHANTOM, "--source", "co60"], "unknown source 'co60'"),
    Bad("unknown protocol", [*PHANTOM, "--protocol", "ldr-xx"], "got 'ldr-xx'"),
    Bad("unsorted radii", [*PHANTOM, "--source", "mine.json"], "g_r.r_cm", _source(_unsort)),
    Bad("no anisotropy", [*PHANTOM, "--source", "mine.json"], "F", _source(_drop_f)),
    Bad("NaN in a source", [*PHANTOM, "--source", "mine.json"], "g_r.g", _source(_nan_g)),
    Bad("a source of no JSON", [*PHANTOM, "--source", "mine.json"], "JSON", lambda _: {"mine.json": b"{"}),
    Bad(
        "a deep source",
        [*PHANTOM, "--source", "mine.json"],
        "source",
        lambda _: {"mine.json": b"[" * 100_000},
    ),
    Bad("a protocol of no TOML", [*PHANTOM, "--protocol", "p.toml"], "TOML", lambda _: {"p.toml": b"["}),
    Bad(
        "a poor protocol", [*PHANTOM, "--protocol", "p.toml"], "protocol", lambda _: {"p.toml": b"key = 'x'"}
    ),
    Bad("budget and moves", [*PHANTOM, "--budget-ms", "5", "--moves", "5"], "got both"),
    Bad("budget 0", [*PHANTOM, "--budget-ms", "0"], "budget"),
    Bad("budget NaN", [*PHANTOM, "--budget-ms", "nan"], "budget"),
    Bad("moves 0", [*PHANTOM, "--moves", "0"], "moves"),
    Bad("a million chains", [*PHANTOM, "--chains", "1000000"], "chains"),
    Bad("nine alternatives", [*PHANTOM, "--alternatives", "9"], "alternatives: expected 0 to 8, got 9"),
    Bad("more plans than chains", [*PHANTOM, "--chains", "2", "--alternatives", "2"], "the 2 chains, got 2"),
    Bad("a device of a server", [*PHANTOM, "--server", "127.0.0.1:1", "--device", "auto"], "--device"),
    Bad("an evaluation of no plan", ["evaluate", "phantom:7", "plan.json"], "No such file"),
    Bad(
        "a plan of no JSON", ["evaluate", "phantom:7", "plan.json"], "JSON", lambda _: {"plan.json": b"\xff{"}
    ),
    Bad(
        "a plan of nothing", ["evaluate", "phantom:7", "plan.json"], "schema", lambda _: {"plan.json": b"{}"}
    ),
    Bad(
        "a seed at NaN",
        ["evaluate", "phantom:7", "seeds.json"],
        "finite",
        lambda _: {"seeds.json": b'{"plans_seed_xyz_mm": [[[0, NaN, 0]]]}'},
    ),
    Bad(
        "a plan that the file has not",
        ["evaluate", "phantom:7", "seeds.json", "--index", "3"],
        "holds 1 plans",
        lambda _: {"seeds.json": b'{"plans_seed_xyz_mm": [[[0, 0, 0]]]}'},
    ),
    Bad(
        "a dose grid of a micrometre",
        ["evaluate", "phantom:7", "seeds.json", "--dose-grid", "0.001"],
        "dose grid: expected 0.5 to 5 mm",
        lambda _: {"seeds.json": b'{"plans_seed_xyz_mm": [[[0, 0, 0]]]}'},
    ),
]


@pytest.fixture
def files(make_seg_nrrd: Callable[..., bytes], make_rtstruct: Callable[..., bytes]) -> Files:
    return {"nrrd": make_seg_nrrd, "rtstruct": make_rtstruct}


def _prepare(bad: Bad, files: Files, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name, content in bad.files(files).items():
        (folder / name).write_bytes(content)
    monkeypatch.chdir(folder)
    return sorted(path.name for path in folder.iterdir())


def _check(bad: Bad, code: int, captured: Any, before: list[str], folder: Path) -> None:
    assert captured.err.startswith("trocar: error: "), captured.err
    assert captured.err.count("\n") == 1, captured.err
    assert bad.says in captured.err
    assert code == bad.code, captured.err
    assert "Traceback" not in captured.err
    assert str(folder) not in captured.err.replace(f"{folder}/", "")
    assert captured.out == ""
    assert sorted(path.name for path in folder.iterdir()) == before


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_in_process(
    bad: Bad,
    files: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    before = _prepare(bad, files, tmp_path, monkeypatch)
    code = cli.main([*bad.arguments, "-o", "out"])
    _check(bad, code, capsys.readouterr(), before, tmp_path)
    assert not recwarn.list  # each would be a second line


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_over_grpc(
    bad: Bad,
    server: Any,
    files: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = _prepare(bad, files, tmp_path, monkeypatch)
    code = cli.main([*bad.arguments, "-o", "out", "--server", server.target])
    _check(bad, code, capsys.readouterr(), before, tmp_path)
    assert server.process.poll() is None


def test_the_good_twins_of_the_bad_files(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The files above fail for their one mistake, not for another."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "case.seg.nrrd").write_bytes(files["nrrd"]())
    (tmp_path / "case.dcm").write_bytes(files["rtstruct"]())
    (tmp_path / "mine.json").write_bytes(_source(lambda _: None)(files)["mine.json"])
    for arguments in (["case.seg.nrrd"], ["case.dcm"], ["case.seg.nrrd", "--source", "mine.json"]):
        assert cli.main(["plan", *arguments, "--moves", "2000", "--json"]) in (0, 1), capsys.readouterr().err
        assert json.loads(capsys.readouterr().out)["seeds"] > 0


def test_afterwards_the_server_plans_and_has_logged_no_failure(
    server: Any, trocar: Callable[..., Any]
) -> None:
    done = trocar("plan", "phantom:7", "--moves", "2000", "--json", "--server", server.target)
    assert json.loads(done.stdout)["seeds"] > 0
    log = server.log.read_text()
    assert "Traceback" not in log
    assert " INTERNAL " not in log
    assert "Warning" not in log
