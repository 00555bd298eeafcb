from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from trocar.runtime.server.notify import keep_alive, notify, watchdog_period_s


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service manager's end of the socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_a_state_reaches_the_manager(manager: socket.socket) -> None:
    assert notify("READY=1\nSTATUS=up")
    assert manager.recv(100) == b"READY=1\nSTATUS=up"


def test_an_abstract_name(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"trocar-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        listening.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        assert notify("READY=1")
        assert listening.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all", "vsock:2:1"])
def test_without_a_manager_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "period_s"),
    [("10000000", None, 5.0), ("10000000", "1", None), ("0", None, None), ("soon", None, None)],
)
def test_the_period_is_half_of_what_the_manager_waits(
    usec: str, pid: str | None, period_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
    assert watchdog_period_s() == period_s


def test_a_hung_server_is_not_vouched_for(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "40000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    well = threading.Event()
    well.set()
    asked = threading.Semaphore(0)

    def responsive(_timeout_s: float) -> bool:
        asked.release()
        return well.is_set()

    keep_alive(responsive)
    assert manager.recv(100) == b"WATCHDOG=1"
    well.clear()
    manager.setblocking(False)
    for _ in range(5):  # beats on their way are gone by then
        assert asked.acquire(timeout=10)
    with contextlib.suppress(BlockingIOError):
        while manager.recv(100):
            pass
    for _ in range(5):
        assert asked.acquire(timeout=10)
    with pytest.raises(BlockingIOError):
        manager.recv(100)
