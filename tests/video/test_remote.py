"""The watchdog's own edges: no process, no listener, no parent; each frame is answered once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from stills import double

from trocar.video import remote
from trocar.video.frames import Annotation, Frame
from trocar.video.remote import ENDING, Remote, Task, WatchdogSettings
from trocar.video.ring import Ring

SETTINGS = WatchdogSettings(stuck_ms=300, start_s=20, retry_least_s=0.01, retry_most_s=0.05)


class Answers:
    def __init__(self, fails: int = 0) -> None:
        self.reasons: list[str] = []
        self.fails = fails
        self._changed = threading.Condition()

    def __call__(self, task: Task, annotation: Annotation | None, reason: str) -> None:
        with self._changed:
            self.reasons.append("" if annotation is not None else reason)
            self._changed.notify()
            if self.fails >= len(self.reasons):
                raise ZeroDivisionError("a fault of whoever listens")

    def wait(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.reasons) >= count, timeout=20)


def offer(engine: Remote, ring: Ring, index: int = 0) -> None:
    slot = ring.acquire(timeout_s=10)
    assert slot is not None
    engine.offer(Frame(index, index / 25, time.monotonic(), slot.image_bgr), slot)
    slot.release()


def test_a_frame_offered_after_the_end_is_answered_and_no_descriptor_is_touched() -> None:
    answers, ring = Answers(), Ring.create(2, 4, 4)
    engine = Remote(double(), SETTINGS, answers)
    engine.close()
    readers = [os.pipe() for _ in range(8)]  # one of these takes the number that was closed
    try:
        offer(engine, ring)
        assert answers.reasons == [ENDING]
        assert ring.holders == [0, 0]
        engine.close()
    finally:
        for pair in readers:
            for descriptor in pair:
                os.close(descriptor)


def test_a_machine_without_room_for_a_process_answers_and_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    real, refused = subprocess.Popen, threading.Event()

    def full(*arguments: object, **more: object) -> object:
        if not refused.is_set():
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real(*arguments, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(remote.subprocess, "Popen", full)
    answers, ring = Answers(), Ring.create(2, 4, 4)
    engine = Remote(double(), SETTINGS, answers)
    try:
        offer(engine, ring)
        answers.wait(1)
        assert "temporarily unavailable" in answers.reasons[0]
        refused.set()
        engine.wait_ready()
        offer(engine, ring, 1)
        answers.wait(2)
        assert answers.reasons[1] == ""
    finally:
        engine.close()


def test_a_listener_that_raises_does_not_end_the_watch() -> None:
    answers, ring = Answers(fails=1), Ring.create(2, 4, 4)
    engine = Remote(double(), SETTINGS, answers)
    try:
        engine.wait_ready()
        offer(engine, ring)
        answers.wait(1)
        while engine.starts < 2:
            time.sleep(0.01)
        engine.wait_ready()
        offer(engine, ring, 1)
        answers.wait(2)
        assert answers.reasons[1] == ""
    finally:
        engine.close()
    assert ring.holders == [0, 0]


_HANGS = """
import os, sys, time
from trocar.video.frames import Frame
from trocar.video.remote import Remote, WatchdogSettings, WorkerSpec
from trocar.video.ring import Ring
spec = WorkerSpec("doubles:double", {"fault": "hang", "flag": sys.argv[1]})
engine = Remote(spec, WatchdogSettings(stuck_ms=60000), lambda *_: None)
engine.wait_ready()
slot = Ring.create(1, 4, 4).acquire()
engine.offer(Frame(0, 0.0, time.monotonic(), slot.image_bgr), slot)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
print("under way", flush=True)
time.sleep(600)
"""


def test_a_worker_that_hangs_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", _HANGS, str(tmp_path / "hangs")], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"under way\n"
    children = _children(parent.pid)
    assert children
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until_s = time.monotonic() + 10
    while any(_lives(one) for one in children) and time.monotonic() < until_s:
        time.sleep(0.02)
    assert not any(_lives(one) for one in children)


def _children(pid: int) -> list[int]:
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children") as file:
            found += [int(one) for one in file.read().split()]
    return found


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
