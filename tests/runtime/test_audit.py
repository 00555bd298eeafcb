"""The log against whoever edits it: by SQL, by bytes, by the clock, by kill -9, and many at once."""

import hashlib
import random
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trocar.runtime.audit import FIRST, AuditLog, default_path
from trocar.runtime.canonical import canonical_json
from trocar.runtime.errors import InvalidInput

COUNT = 6
WRITER = """
import sys
from pathlib import Path
from trocar.runtime.audit import AuditLog
log = AuditLog(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for index in range(int(sys.argv[3])):
    print(log.append({"by": sys.argv[2], "index": index}).sha256, flush=True)
"""


@pytest.fixture
def log(tmp_path):
    made = AuditLog(tmp_path / "audit.sqlite")
    for index in range(COUNT):
        made.append({"action": "approve", "by": "A", "index": index})
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a log, and its entries."""
    made = AuditLog(tmp_path_factory.mktemp("log") / "audit.sqlite")
    for index in range(COUNT):
        made.append({"action": "approve", "by": "A", "index": index, "text": "x" * 700})
    return made.path.read_bytes(), made.verify().entries


def _edit(log, *statements, triggers=False):
    with closing(sqlite3.connect(log.path)) as database:
        kept = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in () if triggers else kept:
            database.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            database.execute(*statement) if isinstance(statement, tuple) else database.execute(statement)
        for _, sql in () if triggers else kept:
            database.execute(sql)
        database.commit()


def test_an_entry_holds_what_was_decided_and_the_hash_before(log):
    verdict = log.verify()
    assert not verdict.problems
    assert [entry.document["index"] for entry in verdict.entries] == list(range(COUNT))
    previous = FIRST
    for number, entry in enumerate(verdict.entries, 1):
        assert (entry.number, entry.document["number"], entry.document["previous"]) == (
            number,
            number,
            previous,
        )
        previous = hashlib.sha256(canonical_json(entry.document).encode()).hexdigest()
        assert entry.sha256 == previous
    assert verdict.head == previous


def test_only_its_owner_reads_it(log):
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    assert [path.name for path in log.path.parent.iterdir()] == [log.path.name]


def test_the_place_is_the_accounts_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "trocar" / "audit.sqlite"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/x")
    assert str(default_path()) == "/home/x/.local/state/trocar/audit.sqlite"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET entry = '{}' WHERE number = 2",
        "DELETE FROM entries",
        "DELETE FROM entries WHERE number = 6",
        "INSERT OR REPLACE INTO entries VALUES (2, '{}', '')",
        "REPLACE INTO entries VALUES (6, '{}', '')",
        "INSERT INTO entries VALUES (9, '{}', '')",
        "INSERT INTO entries VALUES (NULL, '{}', '')",
    ],
)
def test_the_database_refuses(log, statement):
    before = log.path.read_bytes()
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        _edit(log, statement, triggers=True)
    assert log.path.read_bytes() == before
    assert not log.verify().problems


def _rewritten(entry, **changes):
    """An entry with other content and a hash that fits it."""
    text = canonical_json({**entry.document, **changes})
    return text, hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("number", [1, 3, 6])
def test_an_edit_is_found(log, number):
    entry = log.verify().entries[number - 1]
    text, _ = _rewritten(entry, by="B")
    _edit(log, ("UPDATE entries SET entry = ? WHERE number = ?", (text, number)))
    assert log.verify().problems == (f"entry {number} was changed",)


@pytest.mark.parametrize("number", [1, 3])
def test_an_edit_with_its_own_hash_mended_breaks_the_chain(log, number):
    text, sha256 = _rewritten(log.verify().entries[number - 1], by="B")
    _edit(log, ("UPDATE entries SET entry = ?, sha256 = ? WHERE number = ?", (text, sha256, number)))
    assert log.verify().problems == (f"entry {number + 1} does not follow the one before it",)


def test_a_log_written_anew_is_found_by_a_hash_kept_elsewhere(log):
    kept = log.verify().entries[3].sha256
    assert not log.verify(expect=(kept,)).problems
    entries = [entry.document for entry in log.verify().entries]
    log.path.unlink()
    for document in entries:
        log.append({**document, "by": "B"})
    assert not log.verify().problems
    assert log.verify(expect=(kept,)).problems == (f"no entry has the hash {kept}",)


@pytest.mark.parametrize("number", range(1, COUNT + 1))
def test_a_deletion_is_found_also_of_the_last(log, number):
    _edit(log, f"DELETE FROM entries WHERE number = {number}")
    assert log.verify().problems


def test_a_tail_cut_off_with_every_trace_is_found_by_a_hash_kept_elsewhere(log):
    kept = log.verify().head
    _edit(log, "DELETE FROM entries WHERE number > 3", "UPDATE sqlite_sequence SET seq = 3")
    assert not log.verify().problems
    assert log.verify(expect=(kept,)).problems == (f"no entry has the hash {kept}",)


@pytest.mark.parametrize(("one", "other"), [(1, 2), (2, 5), (5, 6)])
def test_a_reordering_is_found(log, one, other):
    _edit(
        log,
        f"UPDATE entries SET number = -1 WHERE number = {one}",
        f"UPDATE entries SET number = {one} WHERE number = {other}",
        f"UPDATE entries SET number = {other} WHERE number = -1",
    )
    assert log.verify().problems


def test_missing_triggers_are_found_and_nothing_is_added_to_such_a_log(log):
    _edit(log, "DROP TRIGGER no_delete", triggers=True)
    assert log.verify().problems == ("its tables or triggers were changed",)
    with pytest.raises(InvalidInput, match="triggers were changed"):
        log.append({})


def test_nothing_is_added_after_a_changed_entry(log):
    _edit(log, "UPDATE entries SET entry = '{}' WHERE number = 6")
    with pytest.raises(InvalidInput, match="entry 6 was changed"):
        log.append({})


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_any_bytes_edited_either_break_it_or_change_no_entry(whole, tmp_path_factory, data):
    content, entries = whole
    at = data.draw(st.integers(0, len(content) - 1))
    # Half of the edits hit a page of entries, the rest anything.
    if data.draw(st.booleans()):
        at = content.index(b'{"action"') + at % 3000
    kind = data.draw(st.sampled_from(("flip", "insert", "delete", "truncate", "swap")))
    size = data.draw(st.integers(1, 64))
    changed = bytearray(content)
    if kind == "flip":
        changed[at] ^= data.draw(st.integers(1, 255))
    elif kind == "insert":
        changed[at:at] = data.draw(st.binary(min_size=size, max_size=size))
    elif kind == "delete":
        del changed[at : at + size]
    elif kind == "truncate":
        del changed[at:]
    else:
        other = data.draw(st.integers(0, len(content) - size))
        at = min(at, len(content) - size)
        changed[at : at + size], changed[other : other + size] = (
            changed[other : other + size],
            changed[at : at + size],
        )
    path = tmp_path_factory.mktemp("edited") / "audit.sqlite"
    path.write_bytes(changed)
    found = AuditLog(path).verify()
    assert found.problems or found.entries == entries


def test_every_byte_of_every_entry_counts(whole, tmp_path):
    """Edits within the stored text and hash are found, each of them."""
    content, entries = whole
    generator = random.Random(8)
    path = tmp_path / "audit.sqlite"
    for entry in entries:
        text = canonical_json(entry.document).encode()
        start = content.index(text)
        span = len(text) + len(entry.sha256)
        assert content[start + len(text) : start + span].decode() == entry.sha256
        for _ in range(40):
            changed = bytearray(content)
            changed[start + generator.randrange(span)] ^= generator.randrange(1, 256)
            path.write_bytes(changed)
            assert AuditLog(path).verify().problems


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"nothing of the kind" * 300])
def test_another_file_is_no_log(tmp_path, content):
    path = tmp_path / "audit.sqlite"
    path.write_bytes(content)
    assert AuditLog(path).verify().problems
    with pytest.raises(InvalidInput, match="audit log"):
        AuditLog(path).append({})
    assert path.read_bytes() == content


def test_another_database_is_no_log(tmp_path):
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE mine (x)")
    with pytest.raises(InvalidInput, match="another kind of database"):
        AuditLog(path).append({})


def test_no_file_is_no_log(tmp_path):
    with pytest.raises(InvalidInput, match="found none"):
        AuditLog(tmp_path / "audit.sqlite").verify()
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="audit log"):
        AuditLog(tmp_path / "file" / "audit.sqlite").append({})


def _writer(path, name, count):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_many_writers_at_once_make_one_chain(tmp_path):
    path, count, names = tmp_path / "audit.sqlite", 25, "abcd"
    writers = [_writer(path, name, count) for name in names]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    said = {sha256 for writer in writers for sha256 in writer.communicate(timeout=240)[0].split()}
    assert [writer.returncode for writer in writers] == [0] * len(names)
    verdict = AuditLog(path).verify(expect=tuple(said))
    assert not verdict.problems
    assert len(verdict.entries) == len(said) == count * len(names)
    for name in names:
        mine = [entry.document["index"] for entry in verdict.entries if entry.document["by"] == name]
        assert mine == list(range(count))


def test_a_killed_writer_leaves_a_whole_chain(tmp_path):
    path = tmp_path / "audit.sqlite"
    generator, written, interrupted = random.Random(8), 0, 0
    for _ in range(12):
        with _writer(path, "a", 10_000) as writer:
            assert writer.stdout.readline() == "ready\n"
            writer.stdin.write("go\n")
            writer.stdin.flush()
            first = writer.stdout.readline().strip()
            time.sleep(generator.uniform(0, 0.03))
            writer.kill()
            said = [first, *(line for line in writer.stdout.read().splitlines() if len(line) == 64)]
        interrupted += path.with_name("audit.sqlite-journal").exists()
        verdict = AuditLog(path).verify(expect=tuple(said))
        assert not verdict.problems
        # One more than it could say: killed between the commit and the word.
        assert len(verdict.entries) - written in (len(said), len(said) + 1)
        written = len(verdict.entries)
    assert interrupted, "no kill fell into a transaction; it tests nothing"
    assert AuditLog(path).append({}).document["previous"] == verdict.head


FULL = """
import resource, sys
from pathlib import Path
from trocar.runtime.audit import AuditLog
from trocar.runtime.errors import InvalidInput

log, most = AuditLog(Path(sys.argv[1])), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
try:
    for _ in range(1000):
        log.append({"why": "x" * 500})
except InvalidInput as error:
    sys.exit(str(error))
"""


def test_a_full_disk_adds_no_entry_and_leaves_a_whole_chain(tmp_path):
    """A limit on the file's size stands for it: at first there is room for no log, then for some entries."""
    path = tmp_path / "audit.sqlite"
    for most, has in ((2_000, False), (100_000, True)):
        command = [sys.executable, "-c", FULL, str(path), str(most)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 1, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert "audit log" in done.stderr
        assert path.exists() is has
    verdict = AuditLog(path).verify()
    assert not verdict.problems
    assert len(verdict.entries) > 10
    assert AuditLog(path).append({}).document["number"] == len(verdict.entries) + 1
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
