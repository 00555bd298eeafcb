from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from damage import flip

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
    assert (model.folder / "model.onnx").read_bytes() == model.read("model.onnx") == files["model.onnx"]
    assert model.size_bytes == sum(map(len, files.values()))
    assert model.manifest.novelty == {"mean": [0.0, 1.5]}


def test_files_can_be_read_by_others(published: Model) -> None:
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE(published.folder.stat().st_mode) == 0o777 & ~mask
    assert stat.S_IMODE((published.folder / "card.md").stat().st_mode) == 0o666 & ~mask


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
def test_only_files_of_the_manifest_are_read(published: Model, name: str) -> None:
    with pytest.raises(ManifestMismatch, match=r"expected one of card\.md, model\.onnx"):
        published.read(name)


def test_strangers_in_the_folders_are_no_models(published: Model, repository: Repository) -> None:
    (repository.root / "README.md").touch()
    (repository.root / ".git" / "1").mkdir(parents=True)
    (repository.root / "Not A Model" / "latest").mkdir(parents=True)
    (repository.root / "empty").mkdir()
    (repository.root / "PAIR" / "1").mkdir(parents=True)
    (repository.root / ".publishing" / "pair" / "2").mkdir(parents=True)
    for version in ("01", "0", "-1", "+1", "1 ", "٢", "1e1", "latest", "9999999999", "99999999999"):
        (published.folder.parent / version).mkdir()
    (published.folder.parent / "3").touch()
    assert repository.names() == ("pair",)
    assert repository.versions("pair") == (1,)


@pytest.mark.parametrize("name", ["model.onnx", "card.md"])
def test_an_altered_file_is_named(published: Model, repository: Repository, name: str) -> None:
    flip(published.folder / name)
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
    place = folder.relative_to(repository.root)
    with pytest.raises(ManifestMismatch, match=f"^{place}: expected a folder, got a symbolic link"):
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
    left = repository.root / ".publishing" / "2"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")
    assert repository.open("pair") == published
    repository.publish("pair", fields, files)
    assert sorted(entry.name for entry in repository.root.iterdir()) == ["pair"]
    assert sorted(entry.name for entry in published.folder.parent.iterdir()) == ["1", "2"]


def test_publishers_at_once_get_a_version_each(repository: Repository, fields: Fields, files: Files) -> None:
    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(lambda _: repository.publish("pair", fields, files), range(16)))
    assert sorted(model.manifest.version for model in models) == list(range(1, 17))
    assert [repository.open("pair", version).manifest.version for version in range(1, 17)]


def test_publishers_at_once_of_one_version(repository: Repository, fields: Fields, files: Files) -> None:
    def publish(text: str) -> str:
        try:
            return str(
                repository.publish("pair", fields, files | {"card.md": text.encode()}, version=5).folder
            )
        except InvalidInput as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(publish, "abcdefgh"))
    (winner,) = (text for text, said in zip("abcdefgh", answers, strict=True) if said.endswith("pair/5"))
    assert repository.open("pair").read("card.md") == winner.encode()
    assert sum("version 5 of 'pair' is published already" in said for said in answers) == 7


def test_readers_never_see_half_a_model(repository: Repository, fields: Fields, files: Files) -> None:
    repository.publish("pair", fields, files)
    done = threading.Event()

    def read() -> int:
        newest = 0
        while not done.is_set():
            assert repository.names() == ("pair",)
            version = repository.open("pair").manifest.version
            assert version >= newest
            newest = version
        return newest

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        try:
            for _ in range(20):
                repository.publish("pair", fields, files)
        finally:
            done.set()
        assert [reader.result() <= 21 for reader in readers] == [True] * 3


def test_a_linked_model_folder_is_not_published_in(
    published: Model, repository: Repository, fields: Fields, files: Files, tmp_path: Path
) -> None:
    published.folder.parent.rename(tmp_path / "outside")
    published.folder.parent.symlink_to(tmp_path / "outside")
    with pytest.raises(InvalidInput, match="pair: expected a folder to publish in, got a symbolic link"):
        repository.publish("pair", fields, files)
    assert [entry.name for entry in (tmp_path / "outside").iterdir()] == ["1"]


@pytest.mark.parametrize("name", ["model.onnx", "card.md"])
def test_what_is_read_is_what_was_opened(published: Model, name: str, tmp_path: Path) -> None:
    """Whoever swaps a file, or the whole folder, after the check does not get it run."""
    other = tmp_path / "other"
    shutil.copytree(published.folder, other)
    flip(other / name)
    published.folder.rename(tmp_path / "aside")
    other.rename(published.folder)
    with pytest.raises(ManifestMismatch, match=f"{name}: expected SHA-256"):
        published.read(name)
    shutil.rmtree(published.folder)
    published.folder.symlink_to(tmp_path / "aside")
    with pytest.raises(ManifestMismatch, match=r"pair/1: expected a folder, got Not a directory"):
        published.read(name)


def test_content_is_checked_before_it_is_published(
    repository: Repository, fields: Fields, files: Files, graphs: Path
) -> None:
    external = (graphs / "external.onnx").read_bytes()
    for change, message in (
        ({"model.onnx": pickle.dumps({})}, "pair: model.onnx: expected no pickle"),
        ({"model.onnx": external}, "pair: model.onnx: expected all weights within it"),
        ({"card.md": b"\xff"}, "pair: card.md: expected what its suffix says"),
        ({"CARD.md": b"# another"}, "expected names unlike in any case"),
        ({f"{n}.md": b"" for n in range(100)}, "expected at most 100 files"),
    ):
        with pytest.raises(InvalidInput, match=message):
            repository.publish("pair", fields, files | change)
    assert not repository.root.exists()


def test_everything_is_flushed_before_it_is_seen(
    published: Model, repository: Repository, fields: Fields, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut leaves: a name appears only over content that is on the disk."""
    steps: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def flush(descriptor: int) -> None:
        steps.append(("flush", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def move(source: Path, target: Path) -> None:
        steps.append(("move", str(target)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "rename", move)
    root = repository.root
    for name, top in (("pair", published.folder.parent / "2"), ("fresh", root / "fresh")):
        steps.clear()
        repository.publish(name, fields, files)
        staged = root / ".publishing" / ("2" if name == "pair" else "fresh/1")
        before = {text for step, text in steps[: steps.index(("move", str(top)))] if step == "flush"}
        assert before >= {str(staged / file) for file in (*files, "manifest.json")} | {str(staged)}
        assert before >= {str(staged.parent)}
        assert steps[-1] == ("flush", str(top.parent))


@pytest.mark.parametrize("name", ["pair", "fresh"])
@pytest.mark.parametrize("call", range(1, 7))
@pytest.mark.usefixtures("published")
def test_a_full_disk_leaves_nothing(
    repository: Repository,
    fields: Fields,
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    call: int,
) -> None:
    """Fails the first, second, ... of a publication's six steps that a full disk can fail."""
    left = [call]

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments)

        return step

    before = sorted(repository.root.rglob("*"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing(os.fsync))
        patched.setattr(os, "rename", failing(os.rename))
        with pytest.raises(InvalidInput, match=r"cannot publish to .*: No space left on device"):
            repository.publish(name, fields, files)
    assert sorted(repository.root.rglob("*")) == before
    assert repository.publish(name, fields, files).manifest.version == 1 + (name == "pair")


def test_a_write_that_does_not_fit_leaves_nothing(
    published: Model, repository: Repository, fields: Fields, graphs: Path
) -> None:
    """The system itself cuts the write short, half a file in."""
    code = (
        "import json, resource, sys; from pathlib import Path\n"
        "from trocar.runtime.errors import InvalidInput\n"
        "from trocar.runtime.repository.store import Repository\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "files = {'model.onnx': Path(sys.argv[2]).read_bytes(), 'card.md': b'x' * 100_000}\n"
        "try: Repository(Path(sys.argv[1])).publish('pair', json.loads(sys.argv[3]), files)\n"
        "except InvalidInput as error: print(error)"
    )
    command = [
        sys.executable,
        "-c",
        code,
        str(repository.root),
        str(graphs / "pair.onnx"),
        json.dumps(fields),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"cannot publish to {published.folder.parent}: File too large\n"
    assert [entry.name for entry in repository.root.iterdir()] == ["pair"]
    assert repository.versions("pair") == (1,)


def test_a_huge_file_is_refused_by_its_size(published: Model, repository: Repository) -> None:
    """Mostly a hole: it takes no disk, and reading it would take all memory."""
    with (published.folder / "model.onnx").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(
        ManifestMismatch, match=r"model\.onnx: expected at most 1073741824 bytes, got 1099511627776"
    ):
        repository.open("pair")
    with (published.folder / "manifest.json").open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(
        ManifestMismatch, match=r"manifest\.json: expected at most 1048576 bytes, got 1099511627776"
    ):
        repository.open("pair")


def test_a_socket_in_the_place_of_a_file(published: Model, repository: Repository, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        (tmp_path / "s").replace(published.folder / "card.md")
        with pytest.raises(ManifestMismatch, match=r"card\.md: expected a file, got No such device"):
            repository.open("pair")


def test_a_folder_in_the_place_of_a_file(published: Model, repository: Repository) -> None:
    (published.folder / "card.md").unlink()
    (published.folder / "card.md").mkdir()
    with pytest.raises(ManifestMismatch, match=r"card\.md: expected a regular file"):
        repository.open("pair")


def test_after_the_last_version_there_is_none(repository: Repository, fields: Fields, files: Files) -> None:
    assert repository.publish("pair", fields, files, version=10**9).manifest.version == 10**9
    with pytest.raises(InvalidInput, match="the next: version: expected a whole number from 1 to 1000000000"):
        repository.publish("pair", fields, files)
    assert repository.versions("pair") == (10**9,)
