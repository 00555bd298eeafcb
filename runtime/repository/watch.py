"""Looks at repositories now and then, and has those who serve their models take what changed."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trocar.runtime.errors import DeviceError, InvalidInput, TrocarError
from trocar.runtime.telemetry import Family

if TYPE_CHECKING:
    from trocar.runtime.repository.store import Repository

# How long the end waits for a look to be over.
_CLOSE_S = 1.0
LOG = logging.getLogger("trocar.server")

# Takes what a model of that name has become: returns the version now served, or None where it is what was
# served before; raises why it is not taken, and goes on with the old one.
Take = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class _Follower:
    user: str
    repository: Repository
    names: Callable[[], Iterable[str]]
    take: Take


class Watch:
    """Tells followers of changes; without an interval, never.

    Parameters
    ----------
    every_s : how often; 0 never.
    """

    def __init__(self, every_s: float = 0.0) -> None:
        self._every_s = every_s
        self._followers: list[_Follower] = []
        self._seen: dict[tuple[str, str], object] = {}
        self._refused: dict[tuple[str, str], str] = {}
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def follow(
        self, user: str, repository: Repository, names: Callable[[], Iterable[str]], take: Take
    ) -> None:
        """Tell somebody of changes.

        Parameters
        ----------
        user : which service it is, for logs and metrics.
        repository : what to look at.
        names : the models that it wants to hear of, asked for each time.
        take : called from the watching thread, once after the start and then after every change.
        """
        self._followers.append(_Follower(user, repository, names, take))

    def start(self) -> None:
        """Begin to look."""
        if self._every_s > 0:
            self._thread.start()

    def close(self) -> None:
        """Look no more; a model that is just being taken is not waited for."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)

    def look(self) -> None:
        """Look once."""
        for follower in self._followers:
            try:
                names = sorted(follower.names())
            except (TrocarError, OSError) as error:
                LOG.warning("the repository cannot be read: %s", type(error).__name__)
                continue
            for name in names:
                self._look_at(follower, name)

    def families(self) -> Iterator[Family]:
        """What came of changes, for whoever looks."""
        yield Family(
            "trocar_model_reloads",
            "counter",
            "Versions that were taken or refused while the server ran.",
            ("service", "model", "outcome"),
            [(key, count) for key, count in sorted(self._counts.copy().items())],
        )
        yield Family(
            "trocar_model_newest_refused",
            "gauge",
            "1 while an older version is served because the newest is refused.",
            ("service", "model"),
            [(key, 1.0) for key in sorted(self._refused.copy())],
        )

    def _run(self) -> None:
        while not self._ending.wait(self._every_s):
            self.look()

    def _look_at(self, follower: _Follower, name: str) -> None:
        key = (follower.user, name)
        state = _state(follower.repository, name)
        if key in self._seen and self._seen[key] == state:
            return
        self._seen[key] = state
        facts = {"user": follower.user, "model": name}
        try:
            version = follower.take(name)
        except TrocarError as error:
            why = " ".join(str(error).split())
            self._refused[key] = why
            self._counts[(*key, "refused")] += 1
            if isinstance(error, DeviceError):  # of this machine's moment, not of the files
                del self._seen[key]
            LOG.error("%s: a change of model %s is refused: %s", follower.user, name, why, extra=facts)
        except Exception:  # the next look must come, whatever this one met
            self._refused[key] = "internal error"
            self._counts[(*key, "refused")] += 1
            LOG.exception("%s: a change of model %s failed", follower.user, name, extra=facts)
        else:
            self._refused.pop(key, None)
            if version is not None:
                self._counts[(*key, "taken")] += 1
                LOG.info(
                    "%s: model %s is now version %s",
                    follower.user,
                    name,
                    version,
                    extra={**facts, "version": version},
                )


def _state(repository: Repository, name: str) -> object:
    """Return what differs once a model's newest version is another, or a file of it changed."""
    try:
        versions = repository.versions(name)
    except (InvalidInput, OSError):
        return None
    if not versions:
        return None
    folder = repository.root / name / str(versions[-1])
    try:
        with os.scandir(folder) as entries:
            files = sorted(
                (entry.name, facts.st_mtime_ns, facts.st_size, facts.st_ino)
                for entry in entries
                if (facts := entry.stat(follow_symlinks=False))
            )
    except OSError:
        files = []
    return versions[-1], files
