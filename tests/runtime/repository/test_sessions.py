from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from trocar.runtime.errors import ManifestMismatch
from trocar.runtime.repository.sessions import Sessions
from trocar.runtime.repository.store import Model, Repository


def test_one_session_for_all_who_run_the_same_model(repository: Repository, published: Model) -> None:
    sessions = Sessions(repository)
    model, first = sessions.open("pair")
    assert model.manifest.version == published.manifest.version
    assert sessions.open("pair", 1)[1] is first
    assert sessions.open("pair", threads=2)[1] is not first


def test_another_version_is_another_session(
    repository: Repository, published: Model, fields: dict[str, Any], files: dict[str, bytes]
) -> None:
    sessions = Sessions(repository)
    _, first = sessions.open("pair")
    repository.publish("pair", fields, files)
    model, second = sessions.open("pair")
    assert model.manifest.version == 1 + published.manifest.version
    assert second is not first


@pytest.mark.usefixtures("published")
def test_the_last_holder_lets_it_go(repository: Repository) -> None:
    sessions = Sessions(repository)
    _, session = sessions.open("pair")
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None
    assert sessions.open("pair")[1] is not None


def test_files_are_checked_though_the_session_is_there(repository: Repository, published: Model) -> None:
    sessions = Sessions(repository)
    held = sessions.open("pair")
    (published.folder / "card.md").write_bytes(b"# altered\n")
    with pytest.raises(ManifestMismatch, match=r"card\.md"):
        sessions.open("pair")
    assert held
