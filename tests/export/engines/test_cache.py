from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trocar.export.engines.cache import EngineCache
from trocar.runtime.errors import InvalidInput

KEY = {"model": "ab" * 32, "batch": (1, 2, 4)}
FACTS = {"layers": [["head", "conv", []]], "seconds": 1.5}
CONTENT = bytes(range(256)) * 4 + b"\n\n"


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "deep" / "cache")


def test_what_was_put_is_got(cache: EngineCache) -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, FACTS, CONTENT)
    assert cache.get(KEY) == (FACTS, CONTENT)
    assert cache.get({**KEY, "batch": (1, 2, 5)}) is None
    assert [path.suffix for path in cache.folder.iterdir()] == [".entry"]
    assert cache.folder.stat().st_mode & 0o777 == 0o700


def test_an_entry_can_be_empty_and_replaced(cache: EngineCache) -> None:
    cache.put(KEY, {}, b"")
    assert cache.get(KEY) == ({}, b"")
    cache.put(KEY, {}, b"new")
    assert cache.get(KEY) == ({}, b"new")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.data())
def test_an_altered_entry_is_none(cache: EngineCache, data: st.DataObject) -> None:
    cache.put(KEY, FACTS, CONTENT)
    whole = cache.path(KEY).read_bytes()
    if data.draw(st.booleans()):
        altered = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        altered = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    cache.path(KEY).write_bytes(altered)
    assert cache.get(KEY) is None


def test_an_entry_under_the_name_of_another_is_none(cache: EngineCache) -> None:
    other = {**KEY, "model": "cd" * 32}
    cache.put(other, FACTS, CONTENT)
    os.rename(cache.path(other), cache.path(KEY))
    assert cache.get(KEY) is None


def test_a_link_and_a_folder_are_none(cache: EngineCache, tmp_path: Path) -> None:
    cache.put(KEY, FACTS, CONTENT)
    os.rename(cache.path(KEY), tmp_path / "elsewhere")
    cache.path(KEY).symlink_to(tmp_path / "elsewhere")
    assert cache.get(KEY) is None
    cache.path(KEY).unlink()
    cache.path(KEY).mkdir()
    assert cache.get(KEY) is None


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot write to the engine cache"):
        EngineCache(tmp_path / "file").put(KEY, FACTS, CONTENT)


WRITER = """
import sys
from pathlib import Path
from trocar.export.engines.cache import EngineCache
cache = EngineCache(Path(sys.argv[1]))
print("ready", flush=True)
number = 0
while True:
    number += 1
    cache.put({"key": 1}, {"number": number}, bytes([number % 256]) * 3_000_000)
"""


def test_a_writer_killed_at_any_moment_leaves_an_entry_that_is_whole(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.put({"key": 1}, {"number": 0}, bytes(3_000_000))
    for pause_s in (0.0, 0.003, 0.011, 0.02, 0.031):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(pause_s)
            process.send_signal(signal.SIGKILL)
        found = cache.get({"key": 1})
        assert found is not None
        assert found[1] == bytes([found[0]["number"] % 256]) * 3_000_000


def test_what_a_killed_writer_left_is_swept_later(cache: EngineCache) -> None:
    cache.put(KEY, FACTS, CONTENT)
    old, new = cache.folder / ".old.part", cache.folder / ".new.part"
    for path, age_s in ((old, 7200), (new, 0)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age_s,) * 2)
    cache.put(KEY, FACTS, CONTENT)
    assert (old.exists(), new.exists()) == (False, True)
