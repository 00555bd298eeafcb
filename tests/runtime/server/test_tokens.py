"""Token files and what they let through."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trocar.runtime.errors import InvalidInput
from trocar.runtime.server import tokens
from trocar.runtime.server.tokens import Token, Tokens, digest, new_secret, read_tokens, write_tokens

SERVICES = ("inference", "planning")


def _file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "tokens.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def _table(name: str = "ward", sha256: str = "0" * 64, rest: str = 'scopes = ["planning"]') -> str:
    return f'[tokens.{name}]\nsha256 = "{sha256}"\n{rest}\n'


def test_what_is_written_is_read_and_nobody_else_may(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    whole = (
        Token("a", digest("x"), frozenset({"planning", "inference/ModelInfer"})),
        Token("b-2", digest("y"), frozenset(), datetime(2030, 1, 2, 3, tzinfo=UTC), "b_"),
    )
    write_tokens(path, whole)
    assert read_tokens(path, SERVICES) == whole
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["tokens.toml"]


def test_a_poor_token_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = _file(tmp_path, _table())
    before = path.read_bytes()
    for poor in (Token("a b", digest("x"), frozenset()), Token("a", digest("x"), frozenset(), None, "/../")):
        with pytest.raises(InvalidInput, match="expected"):
            write_tokens(path, (poor,))
    assert path.read_bytes() == before


def test_secrets_differ_and_are_kept_as_sha256() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(len(secret) == len("trocar_") + 43 for secret in made)
    assert digest("abc") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x", "is not TOML"),
        ("keys = 1", "unknown key 'keys'"),
        ("tokens = 1", "expected at most 1000 tables"),
        ("[tokens]\na = 1", "expected a table, got int"),
        (_table(name='"a b"'), "expected a name"),
        (_table(sha256="trocar_secret"), "sha256: expected 64 hex digits, got something else"),
        (_table(sha256="A" * 64), "sha256: expected 64 hex digits"),
        (_table(rest='scopes = "planning"'), "expected a list"),
        (_table(rest='scopes = ["planing"]'), "services of inference, planning, got 'planing'"),
        (_table(rest='scopes = ["planning/"]'), r"scopes: expected \*"),
        (_table(rest="expires = 3"), "expected a date such as 2027-01-01, got 3"),
        (_table(rest='expire = "x"'), "unknown key 'expire'"),
        (_table(rest='shared_memory_prefix = "../"'), "expected plain text"),
    ],
)
def test_files_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as raised:
        read_tokens(_file(tmp_path, text), SERVICES)
    assert "trocar_secret" not in str(raised.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_file_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(InvalidInput, match=rf"others cannot open \(chmod 600\), got mode 0{mode:o}"):
        read_tokens(_file(tmp_path, _table(), mode))


def test_no_file_and_no_plain_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, says in (("none", "No such file"), ("pipe", "expected a file"), (".", "directory")):
        with pytest.raises(InvalidInput, match=says):
            read_tokens(tmp_path / name)


def test_scopes() -> None:
    one = Token("a", "", frozenset({"planning", "inference/ModelInfer"}))
    assert one.allows("planning", "Plan")
    assert one.allows("inference", "ModelInfer")
    assert not one.allows("inference", "RepositoryModelUnload")
    assert not one.allows("video", "Annotate")
    assert not Token("b", "", frozenset()).allows("planning", "Plan")
    assert Token("c", "", frozenset({"*"})).allows("video", "Annotate")


def test_a_token_ends(tmp_path: Path) -> None:
    path = _file(
        tmp_path, _table(rest="expires = 2020-01-01") + _table("later", rest="expires = 2999-01-01T00:00:00")
    )
    past, later = read_tokens(path)
    assert past.expired
    assert not later.expired
    now = datetime.now(UTC)
    assert not Token("a", "", frozenset(), now + timedelta(hours=1)).expired


def test_every_token_is_compared_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"t{number}" for number in range(5)]
    path = _file(tmp_path, "".join(_table(name, digest(name)) for name in names))
    known, compared = Tokens(path, SERVICES), []

    def watched(a: str, b: str) -> bool:
        compared.append(a)
        return a == b

    monkeypatch.setattr(tokens.hmac, "compare_digest", watched)
    found = known.find("t0")
    assert found is not None
    assert found.name == "t0"
    assert compared == [digest(name) for name in names]
    assert known.find("t") is None


def test_the_file_is_followed_and_a_poor_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(tokens, "REFRESH_S", 0.0)
    path = _file(tmp_path, _table("a", digest("a")))
    known = Tokens(path, SERVICES)
    assert known.find("a")
    path.write_text(_table("a", digest("a"))[:40])  # half written
    assert known.find("a")
    assert "stay as they were" in caplog.text
    path.unlink()
    assert known.find("a")
    write_tokens(path, (Token("b", digest("b"), frozenset()),))
    assert known.find("b")
    assert known.find("a") is None
