import os
from pathlib import Path

import pytest

from trocar.planners import files
from trocar.planners.requests import CaseInput
from trocar.runtime.errors import InvalidInput


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_folder_appears_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "out"
    written = files.write_all(folder, {"plan.json": b"{}", "dvh.png": b"png"})
    assert written == [folder / "plan.json", folder / "dvh.png"]
    assert [path.read_bytes() for path in written] == [b"{}", b"png"]
    assert _names(folder.parent) == ["out"]
    mask = os.umask(0)
    os.umask(mask)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~mask


def test_other_files_of_a_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "plan.json").write_text("old")
    files.write_all(tmp_path, {"plan.json": b"new"})
    assert _names(tmp_path) == ["notes.txt", "plan.json"]
    assert (tmp_path / "plan.json").read_text() == "new"
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "plan.json").write_text("old")
    write = Path.write_bytes

    def fail_on_second(path: Path, content: bytes) -> int:
        if path.name == "dvh.png":
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fail_on_second)
    for folder in (tmp_path / "out", tmp_path / "fresh"):
        with pytest.raises(InvalidInput, match="No space left"):
            files.write_all(folder, {"plan.json": b"new", "dvh.png": b"png"})
    assert _names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "plan.json").read_text() == "old"


def test_a_folder_that_cannot_be_is_refused_beforehand(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InvalidInput, match="got the file"):
        files.check_folder(file)
    with pytest.raises(InvalidInput, match="no permission to write"):
        files.check_folder(file / "below")
    files.check_folder(tmp_path / "a" / "b")
    assert _names(tmp_path) == ["file"]


def test_what_a_case_may_be(tmp_path: Path) -> None:
    def case(spec: str) -> CaseInput:
        return files.case_from_spec(spec, labels={"ctv": 1}, roles={})

    assert case("phantom:7") == CaseInput(name="phantom:7", phantom_seed=7)
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0004\n")
    assert case(f"{tmp_path}/a.nrrd") == CaseInput(name="a.nrrd", nrrd=b"NRRD0004\n", labels={"ctv": 1})
    dicom = b"\0" * 128 + b"DICM"
    (tmp_path / "rs").write_bytes(dicom)
    assert case(f"{tmp_path}/rs").rtstruct == dicom
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(InvalidInput, match="which is neither"):
        case(f"{tmp_path}/a.png")
    with pytest.raises(InvalidInput, match="No such file"):
        case(f"{tmp_path}/none.nrrd")


@pytest.mark.parametrize("seed", ["", "-1", "x", "1.5", "4294967296", "\u0663"])
def test_phantoms_that_are_not(seed: str) -> None:
    with pytest.raises(InvalidInput, match="a phantom's seed from 0"):
        files.phantom_seed(seed)


def test_a_file_over_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"x" * 11)
    assert files.read_bytes(path, "case", 11) == b"x" * 11
    with pytest.raises(InvalidInput, match="case: expected at most 10 bytes, got 11"):
        files.read_bytes(path, "case", 10)
    with pytest.raises(InvalidInput, match=r"cannot read .* Is a directory"):
        files.read_bytes(tmp_path, "case", 10)


def test_text_that_is_not(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(InvalidInput, match="expected UTF-8 text"):
        files.read_text(path, "--protocol")
