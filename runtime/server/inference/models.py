"""The models that are loaded: one session each, from the repository that the server trusts."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

from trocar.runtime.config import limits
from trocar.runtime.errors import InvalidInput, ModelNotFound, TrocarError, Unavailable
from trocar.runtime.repository.load import open_model
from trocar.runtime.repository.manifest import is_name
from trocar.runtime.repository.store import Repository
from trocar.runtime.server.scheduler import Queue, Scheduler
from trocar.runtime.session.base import Session
from trocar.runtime.session.batching import BatchingSession

LOG = logging.getLogger("trocar.server")


@dataclass(frozen=True, slots=True)
class Batching:
    """The `[services.inference.batching]` table.

    Parameters
    ----------
    models : whose requests are merged, by name with commas between; each has one axis of any size, its first.
    max_batch : rows of a batch; a larger request is run as it is.
    window_ms : how long the first request of a batch waits for others.
    """

    models: str = ""
    max_batch: int = field(default=8, metadata=limits(2, 1024))
    window_ms: float = field(default=2.0, metadata=limits(0, 1000))

    @property
    def names(self) -> set[str]:
        """The models' names."""
        return {name.strip() for name in self.models.split(",") if name.strip()}


@dataclass(slots=True)
class Duration:
    """How often, and how long altogether, ns."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count once."""
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class Statistics:
    """What happened to a model's requests since it was loaded."""

    last_ms: int = 0
    inferences: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    inputs: Duration = field(default_factory=Duration)
    run: Duration = field(default_factory=Duration)
    outputs: Duration = field(default_factory=Duration)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def succeeded(self, marks_ns: tuple[int, int, int, int, int]) -> None:
        """Count an answer; `marks_ns` are when it came, asked for a slot, had it, had run, was written."""
        came, asked, began, ran, written = marks_ns
        with self.lock:
            self.last_ms = time.time_ns() // 1_000_000
            self.inferences += 1
            self.success.add(written - came)
            self.queue.add(began - asked)
            self.inputs.add(asked - came)
            self.run.add(ran - began)
            self.outputs.add(written - ran)

    def failed(self, ns: int) -> None:
        """Count a request that got an error."""
        with self.lock:
            self.fail.add(ns)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready, and the queue before it."""

    name: str
    version: str
    session: Session
    queue: Queue
    statistics: Statistics = field(default_factory=Statistics)


class Models:
    """The loaded models, by name; the newest version of each.

    Parameters
    ----------
    repository : where they come from.
    scheduler : who makes their queues.
    max_queued : requests that may wait for each.
    threads : of each session.
    batching : which of them merge requests.
    """

    def __init__(
        self,
        repository: Repository,
        scheduler: Scheduler,
        *,
        max_queued: int,
        threads: int = 1,
        batching: Batching | None = None,
    ) -> None:
        self._repository, self._scheduler, self._max_queued = repository, scheduler, max_queued
        self._threads, self._batching = threads, batching or Batching()
        self._loading = threading.Lock()
        # Replaced as a whole, so that requests read it without a lock.
        self._loaded: dict[str, Loaded] = {}
        self._reasons: dict[str, str] = {}

    def load_all(self) -> None:
        """Load every model of the repository; one that does not is logged, and `ready` says so."""
        for name in self._repository.names():
            try:
                self.load(name)
            except TrocarError as error:
                LOG.error("model %s is not loaded: %s", name, error)

    def load(self, name: str) -> None:
        """Load a model's newest version, in place of the one that is loaded.

        Raises
        ------
        TrocarError
            It cannot be opened; what was loaded before stays.
        """
        if not is_name(name):
            raise InvalidInput(f"expected a model's name, got {name!r:.80}")
        with self._loading:
            try:
                model = self._repository.open(name)
                session = open_model(model, threads=self._threads)
                loaded = Loaded(name, str(model.manifest.version), *self._queued(name, session))
            except ModelNotFound:
                raise
            except TrocarError as error:
                self._reasons = {**self._reasons, name: " ".join(str(error).split())}
                raise
            self._reasons = {key: why for key, why in self._reasons.items() if key != name}
            self._loaded = {**self._loaded, name: loaded}

    def _queued(self, name: str, session: Session) -> tuple[Session, Queue]:
        if name not in self._batching.names:
            return session, self._scheduler.queue(name, max_queued=self._max_queued)
        batched = BatchingSession(
            session, max_batch=self._batching.max_batch, window_s=self._batching.window_ms / 1000
        )
        # While one batch runs the next gathers: slots of its own, or there would be none to wait for.
        slots = 2 * self._batching.max_batch
        return batched, self._scheduler.queue(name, max_queued=self._max_queued, slots=slots)

    def unload(self, name: str) -> None:
        """Let go of a model; requests that run end first."""
        with self._loading:
            self._require_known(name)
            self._loaded = {key: model for key, model in self._loaded.items() if key != name}
            self._reasons = {**self._reasons, name: "unloaded"}

    def get(self, name: str, version: str = "") -> Loaded:
        """Return a loaded model.

        Raises
        ------
        ModelNotFound
            There is none of that name, or another version is loaded.
        Unavailable
            It is not loaded.
        """
        found = self._loaded.get(name)
        if found is None:
            self._require_known(name)
            raise Unavailable(
                f"model {name!r} is not loaded: {self._reasons.get(name, 'nobody asked for it')}"
            )
        if version and version != found.version:
            raise ModelNotFound(
                f"expected version {found.version} of {name!r}, which is loaded, got {version!r:.40}"
            )
        return found

    def all(self) -> list[Loaded]:
        """Return what is loaded, by name."""
        return [self._loaded[name] for name in sorted(self._loaded)]

    def index(self) -> list[tuple[str, str, str, str]]:
        """Return name, version, state and reason of each model, loaded or only there to load."""
        rows = [(each.name, each.version, "READY", "") for each in self.all()]
        for name in self._repository.names():
            if name not in self._loaded:
                newest = str(max(self._repository.versions(name), default=0))
                rows.append((name, newest, "UNAVAILABLE", self._reasons.get(name, "not loaded")))
        return sorted(rows)

    def ready(self) -> bool:
        """Whether no model failed to load; one that was unloaded on request did not fail."""
        return all(why == "unloaded" for why in self._reasons.values())

    def _require_known(self, name: str) -> None:
        if name in self._loaded or (is_name(name) and self._repository.versions(name)):
            return
        have = ", ".join(self._repository.names()) or "none"
        raise ModelNotFound(f"expected a model of {have}, got {name!r:.80}")
