"""Real worker processes: answered, refused, cancelled, killed, stuck."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trocar.runtime.errors import Cancelled, DeadlineExceeded, InvalidInput, ModelNotFound, Unavailable
from trocar.runtime.server import pool as pool_module
from trocar.runtime.server.pool import Job, Pool, PoolSpec, WorkerFailure

DOUBLES = Path(__file__).parent / "doubles"


@pytest.fixture(autouse=True)
def _doubles_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(DOUBLES), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(PoolSpec("workers:open_echo", {"prefix": "> "}, cpu="low"))
    pool.start()
    yield pool
    pool.close()


def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.01)


def _gone(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return True


def test_bytes_go_there_and_back_in_one_process(pool: Pool) -> None:
    large = os.urandom(3 << 20)
    for body in (b"", b"x", large):
        assert pool.run("echo", body, Job()) == b"> " + body
    assert pool.run("pid", b"", Job()) == pool.run("pid", b"", Job()) != str(os.getpid()).encode()


def test_it_is_nicer_than_the_server(pool: Pool) -> None:
    assert int(pool.run("nice", b"", Job())) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)


def test_errors_are_the_handlers_own_and_the_process_stays(pool: Pool) -> None:
    pid = pool.run("pid", b"", Job())
    with pytest.raises(InvalidInput, match="expected something else, got this"):
        pool.run("refuse", b"", Job())
    with pytest.raises(WorkerFailure, match="ZeroDivisionError: a bug"):
        pool.run("fail", b"", Job())
    assert pool.run("pid", b"", Job()) == pid


@pytest.mark.parametrize("how", ["die", "exit"])
def test_a_process_that_ends_costs_its_request_and_no_more(pool: Pool, tmp_path: Path, how: str) -> None:
    begun, other = tmp_path / "begun", Job()
    with ThreadPoolExecutor(1) as threads:
        searching = threads.submit(pool.run, "search", str(begun).encode(), other, until_s=None)
        until(begun.exists)
        with pytest.raises(Unavailable, match="it may be sent again"):
            pool.run(how, b"", Job())
        assert pool.run("echo", b"next", Job()) == b"> next"
        assert not searching.done()
        other.cancel()
        with pytest.raises(Cancelled):
            searching.result(30)


def test_an_idle_process_that_was_killed_is_replaced(pool: Pool) -> None:
    pid = int(pool.run("pid", b"", Job()))
    (idle,) = pool._idle
    os.kill(pid, signal.SIGKILL)
    # Its first thread may be gone before the others: until all are, it could cost a request.
    until(lambda: not idle.alive())
    assert int(pool.run("pid", b"", Job())) != pid


def test_a_search_ends_with_its_time(pool: Pool, tmp_path: Path) -> None:
    body = str(tmp_path / "begun").encode()
    assert pool.run("search", body, Job(), until_s=time.monotonic() + 0.2) == b"stopped in time"


def test_a_cancelled_search_stops_and_its_process_goes_on(pool: Pool, tmp_path: Path) -> None:
    pid = pool.run("pid", b"", Job())
    begun, job = tmp_path / "begun", Job()
    with ThreadPoolExecutor(1) as threads:
        searching = threads.submit(pool.run, "search", str(begun).encode(), job)
        until(begun.exists)
        job.cancel()
        with pytest.raises(Cancelled):
            searching.result(30)
    assert pool.run("pid", b"", Job()) == pid


def test_a_job_that_is_cancelled_before_it_begins(pool: Pool, tmp_path: Path) -> None:
    job = Job()
    job.cancel()
    with pytest.raises(Cancelled):
        pool.run("search", str(tmp_path / "begun").encode(), job)


def test_a_cancellation_that_comes_late_stops_nobody_else(pool: Pool, tmp_path: Path) -> None:
    late = Job()
    pool.run("echo", b"", late)
    begun = tmp_path / "begun"
    with ThreadPoolExecutor(1) as threads:
        searching = threads.submit(
            pool.run, "search", str(begun).encode(), Job(), until_s=time.monotonic() + 2
        )
        until(begun.exists)
        late.cancel()
        assert searching.result(30) == b"stopped in time"


def test_a_process_that_does_not_notice_is_ended(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "NOTICE_S", 0.1)
    pid = pool.run("pid", b"", Job())
    with pytest.raises(DeadlineExceeded):
        pool.run("stuck", str(tmp_path / "a").encode(), Job(), end_s=time.monotonic() + 0.1)
    begun, job = tmp_path / "b", Job()
    threading.Thread(target=lambda: (until(begun.exists), job.cancel())).start()
    with pytest.raises(Cancelled):
        pool.run("stuck", str(begun).encode(), job)
    assert pool.run("pid", b"", Job()) != pid


def test_a_process_that_cannot_work_says_why() -> None:
    with pytest.raises(ModelNotFound, match="expected a model, got none"):
        Pool(PoolSpec("workers:open_nothing")).start()
    with pytest.raises(Unavailable):
        Pool(PoolSpec("workers:open_dying")).start()


def test_no_process_outlives_a_killed_server(tmp_path: Path) -> None:
    program = f"""
import sys, threading
from trocar.runtime.server.pool import Job, Pool, PoolSpec
pool = Pool(PoolSpec("workers:open_echo", {{"prefix": ""}}))
print(pool.run("pid", b"", Job()).decode(), flush=True)
pool.run("search", {str(tmp_path / "begun").encode()!r}, Job())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        worker = int(server.stdout.readline())
        until((tmp_path / "begun").exists)
        server.kill()
    until(lambda: _gone(worker))
