from __future__ import annotations

import time
from collections.abc import Callable

from trocar.runtime.errors import Cancelled, DeadlineExceeded
from trocar.runtime.server.inference.overseer import Overseer


def _until(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.005)


def test_a_run_beyond_the_limit_is_told_and_then_hangs_until_it_ends() -> None:
    overseer = Overseer(0.05, look_s=0.01, grace_s=0.1)
    with overseer.watch("slow", lambda: False) as none:
        assert none is None
        _until(lambda: overseer.hung)
        assert set(overseer.hung) == {"slow"}
        assert overseer.hung["slow"].startswith("a run of it does not end, after ")
    _until(lambda: not overseer.hung)


def test_why_a_run_was_ended() -> None:
    overseer, gone = Overseer(60, look_s=0.01), [False]
    run = overseer.watch("left", lambda: gone[0])
    with run:
        time.sleep(0.05)
        assert run.interrupt.why is None
        gone[0] = True
        _until(lambda: run.interrupt.why)
    assert isinstance(run.interrupt.why, Cancelled)
    run = Overseer(0.02, look_s=0.01).watch("late", lambda: False)
    with run:
        _until(lambda: run.interrupt.why)
    assert isinstance(run.interrupt.why, DeadlineExceeded)
    assert str(run.interrupt.why) == (
        "model 'late': expected a run of at most 0.02 s, got one that was ended"
    )


def test_a_caller_whose_state_cannot_be_read_costs_no_other_run() -> None:
    overseer = Overseer(0.1, look_s=0.01)

    def broken() -> bool:
        raise ValueError("no such call")

    with overseer.watch("broken", broken):
        run = overseer.watch("late", lambda: False)
        with run:
            _until(lambda: run.interrupt.why)
