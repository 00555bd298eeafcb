"""The models that are loaded: one session each, from the repository that the server trusts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from trocar.runtime.config import limits
from trocar.runtime.errors import InvalidInput, ManifestMismatch, ModelNotFound, TrocarError, Unavailable
from trocar.runtime.repository.manifest import is_name
from trocar.runtime.repository.sessions import Sessions
from trocar.runtime.server.inference.overseer import Overseer
from trocar.runtime.server.scheduler import Queue, Scheduler
from trocar.runtime.session.base import Session
from trocar.runtime.session.batching import BatchingSession
from trocar.runtime.telemetry import Family, served_models

LOG = logging.getLogger("trocar.server")
# Why a model that was loaded is not.
UNLOADED, WITHDRAWN = "unloaded", "withdrawn from the repository"


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
    # What `session` runs, where that gathers batches.
    opened: Session | None = None


class Models:
    """The loaded models, by name; the newest version of each.

    Parameters
    ----------
    sessions : what opens them.
    scheduler : who makes their queues.
    max_queued : requests that may wait for each.
    threads : of each session.
    batching : which of them merge requests.
    overseer : knows which of them hang.
    """

    def __init__(
        self,
        sessions: Sessions,
        scheduler: Scheduler,
        *,
        max_queued: int,
        threads: int = 1,
        batching: Batching | None = None,
        overseer: Overseer | None = None,
    ) -> None:
        self._sessions, self._repository = sessions, sessions.repository
        self._scheduler, self._max_queued = scheduler, max_queued
        self._threads, self._batching = threads, batching or Batching()
        self._overseer = overseer
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
            self._swap(name, *self._open(name))

    def take(self, name: str) -> str | None:
        """Serve what the repository has of a model by now, beside which the old one ends its requests.

        Unlike `load` it never breaks those who call the model: a version with other tensors is refused. What
        was unloaded on request stays so.

        Returns
        -------
        The version, where it is another than before.

        Raises
        ------
        TrocarError
            It is refused; what was loaded before stays.
        """
        with self._loading:
            before = self._loaded.get(name)
            if before is None and self._reasons.get(name) == UNLOADED:
                return None
            if before is not None and not self._repository.versions(name):
                self._drop(name, WITHDRAWN)
                return "none"
            version, session = self._open(name, before)
            if before is not None and session is before.opened:
                self._forgive(name)
                return None
            self._swap(name, version, session)
            return version

    def _open(self, name: str, before: Loaded | None = None) -> tuple[str, Session]:
        with self._blamed(name):
            model, session = self._sessions.open(name, threads=self._threads)
            if before is not None:
                _require_same_tensors(before, session, model.manifest.version)
        return str(model.manifest.version), session

    def _swap(self, name: str, version: str, session: Session) -> None:
        with self._blamed(name):
            loaded = Loaded(name, version, *self._queued(name, session), opened=session)
        self._forgive(name)
        self._loaded = {**self._loaded, name: loaded}

    @contextmanager
    def _blamed(self, name: str) -> Iterator[None]:
        """Keep why a model could not be opened; that there is none of its name is no reason."""
        try:
            yield
        except ModelNotFound:
            raise
        except TrocarError as error:
            self._reasons = {**self._reasons, name: " ".join(str(error).split())}
            raise

    def _forgive(self, name: str) -> None:
        self._reasons = {key: why for key, why in self._reasons.items() if key != name}

    def _drop(self, name: str, why: str) -> None:
        self._loaded = {key: model for key, model in self._loaded.items() if key != name}
        self._reasons = {**self._reasons, name: why}

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
            self._drop(name, UNLOADED)

    def known(self) -> set[str]:
        """Return the names of models that are loaded, or there to load."""
        return {*self._loaded, *self._repository.names()}

    def names(self) -> set[str]:
        """Return the names of models that are loaded."""
        return set(self._loaded)

    def get(self, name: str, version: str = "") -> Loaded:
        """Return a loaded model.

        Raises
        ------
        ModelNotFound
            There is none of that name, or another version is loaded.
        Unavailable
            It is not loaded, or hangs.
        """
        found = self._loaded.get(name)
        if found is None:
            self._require_known(name)
            raise Unavailable(
                f"model {name!r} is not loaded: {self._reasons.get(name, 'nobody asked for it')}"
            )
        if why := self._hung().get(name):
            raise Unavailable(f"model {name!r} takes no requests: {why}")
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
        hung = self._hung()
        rows = [
            (
                each.name,
                each.version,
                "UNAVAILABLE" if each.name in hung else "READY",
                hung.get(each.name, ""),
            )
            for each in self.all()
        ]
        for name in self._repository.names():
            # A newest version that was refused stands beside the one that is served.
            if name not in self._loaded or name in self._reasons:
                newest = str(max(self._repository.versions(name), default=0))
                rows.append((name, newest, "UNAVAILABLE", self._reasons.get(name, "not loaded")))
        return sorted(rows)

    def ready(self) -> bool:
        """Whether no model failed to load, and none hangs. One that was unloaded or withdrawn did not fail.

        Nor did one of which an older version is up.
        """
        return not self._hung() and all(
            why in (UNLOADED, WITHDRAWN) or name in self._loaded for name, why in self._reasons.items()
        )

    def families(self) -> Iterator[Family]:
        """What happened to requests, by model; see `trocar.runtime.telemetry.Telemetry.collect`."""
        names = ("model", "version")
        loaded = self.all()
        yield served_models("inference", [f"{one.name}/{one.version}" for one in loaded])
        done = Family("trocar_model_requests", "counter", "Requests by outcome.", (*names, "outcome"))
        families = {
            "queue": Family("trocar_model_queue_seconds", "summary", "Wait for a slot.", names),
            "inputs": Family("trocar_model_input_seconds", "summary", "Reading the request.", names),
            "run": Family("trocar_model_compute_seconds", "summary", "The network's run.", names),
            "outputs": Family("trocar_model_output_seconds", "summary", "Writing the answer.", names),
        }
        for one in loaded:
            labels, statistics = (one.name, one.version), one.statistics
            with statistics.lock:
                for outcome in ("success", "fail"):
                    done.rows.append(((*labels, outcome), float(getattr(statistics, outcome).count)))
                for key, family in families.items():
                    spent: Duration = getattr(statistics, key)
                    family.rows.append((labels, (float(spent.count), spent.ns / 1e9)))
        yield from (done, *families.values())

    def _hung(self) -> Mapping[str, str]:
        return {} if self._overseer is None else self._overseer.hung

    def _require_known(self, name: str) -> None:
        if name in self._loaded or (is_name(name) and self._repository.versions(name)):
            return
        have = ", ".join(self._repository.names()) or "none"
        raise ModelNotFound(f"expected a model of {have}, got {name!r:.80}")


def _require_same_tensors(before: Loaded, session: Session, version: int) -> None:
    for kind, served, found in (
        ("inputs", before.session.inputs, session.inputs),
        ("outputs", before.session.outputs, session.outputs),
    ):
        if served != found:
            said = [", ".join(f"{spec.name} {spec}" for spec in specs) for specs in (served, found)]
            raise ManifestMismatch(
                f"{before.name} version {version}: expected the {kind} of version {before.version}, "
                f"which its callers rely on, {said[0]}, got {said[1]}; RepositoryModelLoad takes it as it is"
            )
