from __future__ import annotations

import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from trocar.runtime.errors import InvalidInput, ManifestMismatch, ModelNotFound
from trocar.runtime.repository.store import Model, Repository, shipped

Fields = dict[str, Any]
Files = dict[str, bytes]


def test_what_is_published_opens(published: Model, repository: Repository, files: Files) -> None:
    model = repository.open("pair")
    assert model == published
    assert (model.manifest.name, model.manifest.version) == ("pair", 1)
    assert model.folder == repository.root / "pair" / "1"
    assert model.manifest.files["card.md"] == hashlib.sha256(files["card.md"]).hexdigest()
    assert model.path("model.onnx").read_bytes() == model.read("model.onnx") == files["model.onnx"]
    assert model.manifest.novelty == {"mean": [0.0, 1.5]}


def test_files_can_be_read_by_others(published: Model) -> None:
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE(published.folder.stat().st_mode) == 0o777 & ~mask
    assert stat.S_IMODE(published.path("card.md").stat().st_mode) == 0o666 & ~mask


def test_versions_count_up_and_the_newest_opens(
    published: Model, repository: Repository, fields: Fields, files: Files
) -> None:
    assert repository.publish("pair", fields, files).manifest.version == 2
    assert repository.publish("pair", fields, files, version=10).manifest.version == 10
    assert repository.versions("pair") == (1, 2, 10)
    assert repository.open("pair").manifest.version == 10
    assert repository.open("pair", 2).manifest.version == 2
    assert repository.open("pair", 1) == published


@pytest.mark.usefixtures("published")
def test_a_published_version_never_changes(repository: Repository, fields: Fields, files: Files) -> None:
    with pytest.raises(InvalidInput, match=r"version 1 of 'pair' is published already.*the next is 2"):
        repository.publish("pair", fields, files | {"card.md": b"other"}, version=1)
    assert repository.open("pair").read("card.md") == files["card.md"]


@pytest.mark.usefixtures("published")
def test_what_is_not_there_is_answered_with_what_is(repository: Repository) -> None:
    with pytest.raises(ModelNotFound, match=r"no model 'tpgan' in .*; there is pair$"):
        repository.open("tpgan")
    with pytest.raises(ModelNotFound, match=r"no version 7 of 'pair' in .*; there is 1$"):
        repository.open("pair", 7)
    assert repository.versions("tpgan") == ()


def test_the_shipped_repository_is_there() -> None:
    repository = shipped()
    assert repository.root.is_dir()
    with pytest.raises(ModelNotFound, match="no model 'no-such-model'"):
        repository.open("no-such-model")
    for name in repository.names():
        repository.open(name)


def test_a_repository_that_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read the repository"):
        Repository(tmp_path / "none").names()
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="cannot read the repository"):
        Repository(tmp_path / "file").open("pair")


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("name", ["../pair", "pair/1", "/pair", "..", ".", "", "pair\0", "PAIR", "a" * 65])
def test_names_that_leave_the_folder(repository: Repository, name: str) -> None:
    with pytest.raises(InvalidInput, match="expected a model name"):
        repository.open(name)
    with pytest.raises(InvalidInput, match="expected a model name"):
        repository.publish(name, {}, {})


@pytest.mark.parametrize("name", ["../manifest.json", "manifest.json", "other.md", "/etc/passwd"])
def test_only_files_of_the_manifest_have_a_path(published: Model, name: str) -> None:
    with pytest.raises(ManifestMismatch, match=r"expected one of card\.md, model\.onnx"):
        published.path(name)


def test_strangers_in_the_folders_are_no_models(published: Model, repository: Repository) -> None:
    (repository.root / "README.md").touch()
    (repository.root / ".git" / "1").mkdir(parents=True)
    (repository.root / "Not A Model" / "latest").mkdir(parents=True)
    (repository.root / "empty").mkdir()
    (published.folder.parent / "01").mkdir()
    (published.folder.parent / ".publishing").mkdir()
    assert repository.names() == ("pair",)
    assert repository.versions("pair") == (1,)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["model.onnx", "card.md"])
def test_an_altered_file_is_named(published: Model, repository: Repository, name: str) -> None:
    _flip(published.folder / name)
    with pytest.raises(ManifestMismatch, match=f"{name}: expected SHA-256"):
        repository.open("pair")
    with pytest.raises(ManifestMismatch, match=f"{name}: expected SHA-256"):
        published.read(name)


@pytest.mark.parametrize("name", ["model.onnx", "card.md", "manifest.json"])
def test_a_missing_file_is_named(published: Model, repository: Repository, name: str) -> None:
    (published.folder / name).unlink()
    with pytest.raises(ManifestMismatch, match=f"{name}: expected a file, got No such file"):
        repository.open("pair")


def test_a_file_that_the_manifest_does_not_name(published: Model, repository: Repository) -> None:
    (published.folder / "model.onnx.data").touch()
    with pytest.raises(ManifestMismatch, match=r"model\.onnx\.data: the manifest does not name this file"):
        repository.open("pair")


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_link_is_not_followed(published: Model, repository: Repository, name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (published.folder / name).rename(outside)
    (published.folder / name).symlink_to(outside)
    with pytest.raises(ManifestMismatch, match=f"{name}: expected a file, got a symbolic link"):
        repository.open("pair")


@pytest.mark.parametrize("inner", [True, False])
def test_a_linked_folder_is_not_followed(
    published: Model, repository: Repository, tmp_path: Path, inner: bool
) -> None:
    folder = published.folder if inner else published.folder.parent
    folder.rename(tmp_path / "outside")
    folder.symlink_to(tmp_path / "outside")
    with pytest.raises(ManifestMismatch, match=f"{folder}: expected a folder, got a symbolic link"):
        repository.open("pair", 1)


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_pipe_does_not_block(published: Model, repository: Repository, name: str) -> None:
    (published.folder / name).unlink()
    os.mkfifo(published.folder / name)
    with pytest.raises(ManifestMismatch, match=f"{name}: expected a regular file"):
        repository.open("pair")


def test_a_model_under_another_name_or_version(published: Model, repository: Repository) -> None:
    published.folder.rename(published.folder.parent / "2")
    with pytest.raises(ManifestMismatch, match=r"expected pair version 2, got pair version 1"):
        repository.open("pair")
    published.folder.parent.rename(repository.root / "tpgan")
    with pytest.raises(ManifestMismatch, match=r"expected tpgan version 2, got pair version 1"):
        repository.open("tpgan")


def test_a_hostile_manifest_is_a_mismatch(published: Model, repository: Repository) -> None:
    path = published.folder / "manifest.json"
    document = json.loads(path.read_text())
    document["files"]["../../../../etc/passwd.md"] = "0" * 64
    path.write_text(json.dumps(document))
    with pytest.raises(ManifestMismatch, match="expected a plain file name"):
        repository.open("pair")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"limits": None}, "limits: expected a list"),
        ({"metrics": {"dice": float("nan")}}, "expected JSON values"),
        ({"metrics": {"dice": {1, 2}}}, "expected JSON values"),
        ({"typo": 1}, "unknown key 'typo'"),
        ({"novelty": {"mean": "x" * (1 << 20)}}, "manifest of at most"),
    ],
)
def test_a_bad_field_publishes_nothing(
    repository: Repository, fields: Fields, files: Files, change: Fields, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        repository.publish("pair", fields | change, files)
    assert not repository.root.exists()


@pytest.mark.parametrize("name", ["weights.pt", "../x.onnx", "manifest.json", "model.onnx.data", "sub/x.md"])
def test_a_bad_file_name_publishes_nothing(
    repository: Repository, fields: Fields, files: Files, name: str
) -> None:
    with pytest.raises(InvalidInput, match="pair: expected a"):
        repository.publish("pair", fields, files | {name: b""})
    assert not repository.root.exists()


def test_the_card_is_not_optional(repository: Repository, fields: Fields, files: Files) -> None:
    del files["card.md"]
    with pytest.raises(InvalidInput, match=r"card\.md"):
        repository.publish("pair", fields, files)


@pytest.mark.parametrize("version", [0, -1, True, 10**10])
def test_versions_are_positive(repository: Repository, fields: Fields, files: Files, version: int) -> None:
    with pytest.raises(InvalidInput, match="version: expected a whole number"):
        repository.publish("pair", fields, files, version=version)


def test_a_folder_that_cannot_be_written(tmp_path: Path, fields: Fields, files: Files) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="cannot publish to"):
        Repository(tmp_path / "file").publish("pair", fields, files)


def test_leftovers_of_a_killed_publication_are_swept(
    published: Model, repository: Repository, fields: Fields, files: Files
) -> None:
    left = published.folder.parent / ".publishing"
    left.mkdir()
    (left / "model.onnx").write_bytes(b"half")
    assert repository.open("pair") == published
    repository.publish("pair", fields, files)
    assert sorted(entry.name for entry in published.folder.parent.iterdir()) == ["1", "2"]


def test_publishers_at_once_get_a_version_each(repository: Repository, fields: Fields, files: Files) -> None:
    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(lambda _: repository.publish("pair", fields, files), range(16)))
    assert sorted(model.manifest.version for model in models) == list(range(1, 17))
    assert [repository.open("pair", version).manifest.version for version in range(1, 17)]
