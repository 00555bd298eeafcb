from __future__ import annotations

import logging
import shutil
import threading
from typing import Any

import pytest

from trocar.runtime.errors import DeviceError, ManifestMismatch
from trocar.runtime.repository.store import Model, Repository
from trocar.runtime.repository.watch import Watch


class Follower:
    """Serves whatever is newest; `error` is what it meets instead."""

    def __init__(self, watch: Watch, repository: Repository) -> None:
        self.error: Exception | None = None
        self.taken: list[str] = []
        self._repository = repository
        watch.follow("tests", repository, lambda: ("pair",), self.take)

    def take(self, name: str) -> str | None:
        self.taken.append(name)
        if self.error is not None:
            raise self.error
        return str(self._repository.open(name).manifest.version)


def _families(watch: Watch) -> dict[str, dict[tuple[str, ...], Any]]:
    return {family.name: dict(family.rows) for family in watch.families()}


def test_only_changes_are_told(
    repository: Repository, published: Model, fields: dict[str, Any], files: dict[str, bytes]
) -> None:
    watch = Watch()
    follower = Follower(watch, repository)
    for _ in range(3):
        watch.look()
    assert len(follower.taken) == 1  # the first look: what changed since it was opened
    repository.publish("pair", fields, files)
    watch.look()
    watch.look()
    assert len(follower.taken) == 2
    (published.folder.parent / "2" / "manifest.abc.sig").write_bytes(b"x")  # a file beside the others
    watch.look()
    assert len(follower.taken) == 3
    shutil.rmtree(published.folder.parent)
    watch.look()
    assert len(follower.taken) == 4
    watch.look()
    assert len(follower.taken) == 4


@pytest.mark.usefixtures("published")
def test_a_refusal_is_said_until_something_is_taken(
    repository: Repository,
    fields: dict[str, Any],
    files: dict[str, bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = Watch()
    follower = Follower(watch, repository)
    follower.error = ManifestMismatch("expected this,\ngot that")
    caplog.set_level(logging.INFO, "trocar.server")
    watch.look()
    watch.look()
    key = ("tests", "pair")
    assert _families(watch)["trocar_model_newest_refused"] == {key: 1.0}
    assert _families(watch)["trocar_model_reloads"] == {(*key, "refused"): 1}
    assert "tests: a change of model pair is refused: expected this, got that" in caplog.text
    follower.error = None
    repository.publish("pair", fields, files)
    watch.look()
    assert _families(watch)["trocar_model_newest_refused"] == {}
    assert _families(watch)["trocar_model_reloads"] == {(*key, "refused"): 1, (*key, "taken"): 1}
    assert "tests: model pair is now version 2" in caplog.text


@pytest.mark.usefixtures("published")
def test_what_a_device_failed_at_is_tried_again(repository: Repository) -> None:
    watch = Watch()
    follower = Follower(watch, repository)
    follower.error = DeviceError("out of memory")
    watch.look()
    watch.look()
    assert len(follower.taken) == 2


@pytest.mark.usefixtures("published")
def test_a_fault_of_a_follower_does_not_end_the_watch(repository: Repository) -> None:
    told = threading.Event()
    watch = Watch(every_s=0.01)

    def broken(_: str) -> str | None:
        raise ZeroDivisionError

    watch.follow("broken", repository, lambda: ("pair",), broken)
    watch.follow("tests", repository, lambda: ("pair",), lambda _: told.set())
    watch.start()
    assert told.wait(20)
    watch.close()
    assert _families(watch)["trocar_model_newest_refused"] == {("broken", "pair"): 1.0}


def test_without_an_interval_nobody_looks(repository: Repository) -> None:
    watch = Watch()
    follower = Follower(watch, repository)
    watch.start()
    watch.close()
    assert follower.taken == []
