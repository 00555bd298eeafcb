"""An append-only log of decisions in SQLite, each entry chained to the one before by its hash.

The database refuses updates, deletions and entries out of order; whoever goes around it breaks the chain,
which `AuditLog.verify` finds. What no log can show of itself is that its newest entries were cut off, or that
all of it was written anew: for that, an entry's hash is kept elsewhere and given back to `verify`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trocar.runtime.canonical import canonical_json
from trocar.runtime.errors import InvalidInput

FIRST = "0" * 64
_APPLICATION_ID = 0x54524341  # "TRCA"
_WAIT_S = 60.0
_MOST_PROBLEMS = 20
_SCHEMA = (
    # AUTOINCREMENT keeps the largest number ever given: a deleted tail leaves it behind.
    "CREATE TABLE entries "
    "(number INTEGER PRIMARY KEY AUTOINCREMENT, entry TEXT NOT NULL, sha256 TEXT NOT NULL)",
    "CREATE TRIGGER no_update BEFORE UPDATE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END",
    "CREATE TRIGGER no_delete BEFORE DELETE ON entries "
    "BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END",
    # INSERT OR REPLACE deletes without asking the trigger above.
    "CREATE TRIGGER in_order BEFORE INSERT ON entries "
    "WHEN NEW.number IS NOT (SELECT coalesce(max(number), 0) + 1 FROM entries) "
    "BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision. `document` holds `number`, `at`, the `previous` entry's hash, and what was decided."""

    number: int
    document: Mapping[str, Any]
    sha256: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a log holds, and what is wrong with it. `head` is the newest entry's hash."""

    entries: tuple[Entry, ...]
    head: str
    problems: tuple[str, ...]


def default_path() -> Path:
    """Where the log is by default: one for all plans of this account, away from the plans' folders."""
    state = os.environ.get("XDG_STATE_HOME", "")
    root = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return root / "trocar" / "audit.sqlite"


class AuditLog:
    """A log file. Any number of processes may append at once; a killed one leaves a whole chain.

    Parameters
    ----------
    path : the file, on a local disk: SQLite's locks are not reliable on network shares. `append` makes it,
        for its owner alone, where it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, decided: Mapping[str, Any], *, at: datetime | None = None) -> Entry:
        """Add an entry, on the disk when this returns.

        Parameters
        ----------
        decided : what JSON can hold; `number`, `at` and `previous` are the log's own.
        at : when; now if absent.

        Raises
        ------
        InvalidInput
            The file cannot be written, or it is not a log, or its newest entry is not what was written.
        """
        moment = (at or datetime.now(UTC)).isoformat(timespec="seconds")
        with self._opened(create=True) as database:
            problems = _schema_problems(database)
            if problems:
                raise InvalidInput(f"audit log {self.path}: {problems[0]}")
            database.execute("BEGIN IMMEDIATE")
            row = database.execute("SELECT * FROM entries ORDER BY number DESC LIMIT 1").fetchone()
            number, previous = (row[0] + 1, row[2]) if row else (1, FIRST)
            if row and _sha256(str(row[1])) != row[2]:
                raise InvalidInput(f"audit log {self.path}: entry {row[0]} was changed; nothing is added")
            document = {**decided, "number": number, "at": moment, "previous": previous}
            text = canonical_json(document)
            sha256 = _sha256(text)
            database.execute("INSERT INTO entries VALUES (?, ?, ?)", (number, text, sha256))
            database.execute("COMMIT")
        return Entry(number, document, sha256)

    def verify(self, *, expect: tuple[str, ...] = ()) -> Verdict:
        """Read the whole log and check it.

        Parameters
        ----------
        expect : hashes that were kept elsewhere, each of an entry that must be there.

        Raises
        ------
        InvalidInput
            There is no such file.
        """
        problems: list[str] = []
        entries: list[Entry] = []
        head = FIRST
        try:
            with self._opened(create=False) as database:
                problems += _schema_problems(database)
                database.execute("BEGIN")
                for row in database.execute("SELECT * FROM entries ORDER BY number"):
                    entry, wrong = _checked(row, len(entries) + 1, head)
                    problems += wrong
                    entries.append(entry)
                    head = entry.sha256
                problems += _count_problems(database, len(entries))
        except sqlite3.Error as error:
            problems.append(f"the file is damaged: {error}")
        held = {entry.sha256 for entry in entries}
        problems += [f"no entry has the hash {sha256}" for sha256 in expect if sha256 not in held]
        return Verdict(tuple(entries), head, tuple(problems[:_MOST_PROBLEMS]))

    @contextmanager
    def _opened(self, *, create: bool) -> Iterator[sqlite3.Connection]:
        try:
            if create:
                _make(self.path)
            elif not self.path.is_file():
                raise InvalidInput(f"audit log: expected a file, found none at {self.path}")
            address = f"{self.path.absolute().as_uri()}?mode=rw"
            # Closing gives up a transaction that was not committed.
            with closing(sqlite3.connect(address, _WAIT_S, isolation_level=None, uri=True)) as database:
                database.execute("PRAGMA synchronous = EXTRA")
                yield database
        except OSError as error:
            raise InvalidInput(f"audit log: cannot open {self.path}: {error.strerror}") from error
        except sqlite3.Error as error:
            if not create:
                raise
            raise InvalidInput(f"audit log {self.path}: expected to append to it, got {error}") from error


def _make(path: Path) -> None:
    """Make an empty log where there is none; it appears complete."""
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp's files are their owner's alone.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    try:
        with closing(sqlite3.connect(name, isolation_level=None)) as database:
            for statement in (*_SCHEMA, f"PRAGMA application_id = {_APPLICATION_ID}"):
                database.execute(statement)
        # Unlike a rename, a link does not replace the log that another process just made.
        os.link(name, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(name)


def _schema_problems(database: sqlite3.Connection) -> list[str]:
    if database.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
        return ["expected an audit log, got another kind of database"]
    found = database.execute("SELECT sql FROM sqlite_master WHERE name <> 'sqlite_sequence'")
    if sorted(str(row[0]) for row in found) != sorted(_SCHEMA):
        return ["its tables or triggers were changed"]
    return []


def _count_problems(database: sqlite3.Connection, count: int) -> list[str]:
    """What SQLite itself knows: its file's state, and how many entries there once were."""
    problems = []
    state = database.execute("PRAGMA integrity_check").fetchone()[0]
    if state != "ok":
        problems.append(f"the file is damaged: {state}")
    largest = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entries'").fetchone()
    if (largest[0] if largest else 0) != count:
        problems.append(f"{largest[0] if largest else 0} entries were written, {count} are there")
    return problems


def _checked(row: tuple[Any, ...], number: int, previous: str) -> tuple[Entry, list[str]]:
    """Check an entry against its own hash and the one before it."""
    found, text, sha256 = row
    problems = []
    document: Any = None
    try:
        document = json.loads(text)
        spelled = canonical_json(document)
    except (TypeError, ValueError, RecursionError):
        spelled = ""
    if not isinstance(document, dict):
        document = {}
    if spelled != text or _sha256(text) != sha256:
        problems.append(f"entry {found} was changed")
    if found != number or document.get("number") != number:
        problems.append(f"expected entry {number}, got {found}, which says it is {document.get('number')}")
    if document.get("previous") != previous:
        problems.append(f"entry {found} does not follow the one before it")
    return Entry(found, document, str(sha256)), problems


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
