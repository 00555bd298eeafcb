import threading
import time

import pytest

from trocar.runtime.errors import Cancelled, DeadlineExceeded, QueueFull
from trocar.runtime.server.admission import Admission


class Held:
    """A slot held by another thread until told to leave."""

    def __init__(self, admission: Admission, log: list[str] | None = None, name: str = "") -> None:
        self.inside, self.leave = threading.Event(), threading.Event()

        def hold() -> None:
            with admission.slot():
                if log is not None:
                    log.append(name)
                self.inside.set()
                self.leave.wait(10)

        self._thread = threading.Thread(target=hold)
        self._thread.start()

    def done(self) -> None:
        self.leave.set()
        self._thread.join(10)


def _settle() -> None:
    time.sleep(0.15)


def test_beyond_the_queue_is_refused_at_once() -> None:
    admission = Admission(max_running=1, max_queued=1)
    running = Held(admission)
    assert running.inside.wait(5)
    waiting = Held(admission)
    _settle()
    start = time.monotonic()
    with pytest.raises(QueueFull, match="at most 1 running and 1 waiting"), admission.slot():
        pass
    assert time.monotonic() - start < 0.1
    running.done()
    assert waiting.inside.wait(5)
    waiting.done()
    with admission.slot():
        pass


def test_no_queue_at_all_still_runs_one() -> None:
    admission = Admission(max_running=1, max_queued=0)
    with admission.slot(), pytest.raises(QueueFull), admission.slot():
        pass
    with admission.slot():
        pass


def test_first_come_first_served() -> None:
    admission, log = Admission(max_running=1, max_queued=3), []
    first = Held(admission)
    assert first.inside.wait(5)
    others = []
    for name in "abc":
        others.append(Held(admission, log, name))
        _settle()
    first.done()
    for other in others:
        assert other.inside.wait(5)
        other.done()
    assert log == ["a", "b", "c"]


def test_a_caller_that_leaves_gives_its_place_back() -> None:
    admission = Admission(max_running=1, max_queued=1)
    running = Held(admission)
    assert running.inside.wait(5)
    with pytest.raises(Cancelled), admission.slot(abandoned=lambda: True):
        pass
    waiting = Held(admission)
    _settle()
    running.done()
    assert waiting.inside.wait(5)
    waiting.done()


def test_a_deadline_that_passes_in_the_queue() -> None:
    admission = Admission(max_running=1, max_queued=1)
    running = Held(admission)
    assert running.inside.wait(5)
    with pytest.raises(DeadlineExceeded), admission.slot(start_by_s=time.monotonic() + 0.1):
        pass
    running.done()


def test_a_failure_inside_gives_the_slot_back() -> None:
    admission = Admission(max_running=1, max_queued=0)
    with pytest.raises(ValueError, match="inside"), admission.slot():
        raise ValueError("inside")
    with admission.slot():
        pass
