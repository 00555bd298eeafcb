from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from trocar.runtime.errors import Cancelled, DeadlineExceeded
from trocar.runtime.session.interrupt import Interrupt, current
from trocar.runtime.session.ort import open_session

TURNS = Path(__file__).parents[2] / "data" / "models" / "turns.onnx"
FOR_EVER = {"turns": np.array(10**15)}


@pytest.mark.parametrize("bound", [False, True])
def test_a_run_is_ended_from_another_thread_and_says_why(bound: bool) -> None:
    session = open_session(TURNS, device="cpu")
    interrupt, counted = Interrupt(), np.zeros((), np.int64)
    ender = threading.Timer(0.1, interrupt.end, [DeadlineExceeded("it took too long")])
    ender.start()
    run: Callable[[], object] = partial(session.run, FOR_EVER)
    if bound:
        run = session.bind(FOR_EVER, {"counted": counted}).run
    with pytest.raises(DeadlineExceeded, match="it took too long"), interrupt:
        run()
    assert current() is None
    assert session.run({"turns": np.array(3)})["counted"] == 3


def test_one_that_was_ended_before_does_not_begin() -> None:
    session, interrupt = open_session(TURNS, device="cpu"), Interrupt()
    interrupt.end(Cancelled("first"))
    interrupt.end(DeadlineExceeded("second"))
    with pytest.raises(Cancelled, match="first"), interrupt:
        session.run(FOR_EVER)


def test_another_thread_s_runs_are_not_ended() -> None:
    session, interrupt = open_session(TURNS, device="cpu"), Interrupt()
    found: list[int] = []
    other = threading.Thread(target=lambda: found.append(int(session.run({"turns": np.array(5)})["counted"])))
    with interrupt:
        interrupt.end(Cancelled("this one's"))
        other.start()
        other.join(30)
    assert found == [5]


def test_a_run_is_never_ended_by_what_ended_an_earlier_one() -> None:
    """Runs share their options one after the other, and an end may come just as its run is over."""
    session, counted = open_session(TURNS, device="cpu"), np.zeros((), np.int64)
    run = session.bind({"turns": np.array(300)}, {"counted": counted}).run
    current_run: list[Interrupt] = []
    over = threading.Event()
    ended = 0

    def end_some() -> None:
        while not over.is_set():
            if current_run:
                current_run[-1].end(Cancelled("for this run alone"))

    ender = threading.Thread(target=end_some)
    ender.start()
    try:
        for _ in range(300):
            interrupt, counted[()] = Interrupt(), 0
            current_run.append(interrupt)
            try:
                with interrupt:
                    run()
            except Cancelled:
                ended += 1
            current_run.clear()
            with Interrupt():
                run()
            assert counted == 300
    finally:
        over.set()
        ender.join()
    assert ended, "no end fell into a run: this tests nothing"
