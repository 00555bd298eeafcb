"""Sessions of a repository's models, one for all who run the same one."""

from __future__ import annotations

import threading
import weakref

from trocar.runtime.repository.load import open_model
from trocar.runtime.repository.store import Model, Repository
from trocar.runtime.session.base import Session


class Sessions:
    """Opens models; who opens one that somebody else still holds gets the same session.

    A session is let go when its last holder lets go of it: requests that run it are holders too.

    Parameters
    ----------
    repository : where models come from.
    """

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self._opening = threading.Lock()
        self._held: weakref.WeakValueDictionary[tuple[bytes, int], Session] = weakref.WeakValueDictionary()

    def open(self, name: str, version: int | None = None, *, threads: int = 1) -> tuple[Model, Session]:
        """Open a model.

        Parameters
        ----------
        name, version : as in `Repository.open`, which checks every file each time.
        threads : of the session; with another number it is another session.

        Raises
        ------
        TrocarError
            See `Repository.open` and `open_model`.
        """
        with self._opening:
            model = self.repository.open(name, version)
            # The manifest has the name, the version and every file's digest.
            key = (model.manifest_bytes, threads)
            session = self._held.get(key)
            if session is None:
                session = self._held[key] = open_model(model, threads=threads)
            return model, session
