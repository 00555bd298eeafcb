"""Which calls ask for their messages, and when; calls of the test's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from trocar.runtime.server import intake as module
from trocar.runtime.server.intake import LARGE_BYTES, MOST_BYTES, Intake

# Longer than any test waits for what happens at once.
LONG_S = 60.0
VOLUME = 9 << 20


class Call:
    """Notes that it asked."""

    def __init__(self, client: str = "a", method: str = "/t/m", failure: Exception | None = None) -> None:
        self.client, self.method, self.failure = client, method, failure
        self.asked = threading.Event()

    def ask(self) -> None:
        self.asked.set()
        if self.failure is not None:
            raise self.failure


Make = Callable[..., Intake]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Intake] = []

    def one(**changes: Any) -> Intake:
        made.append(Intake(**{"patience_s": LONG_S, **changes}))
        return made[-1]

    yield one
    for each in made:
        each.close()


def _entered(intake: Intake, *calls: Call) -> list[bool]:
    for call in calls:
        intake.enter(call)
    return [call.asked.is_set() for call in calls]


def _had(intake: Intake, size: int, **who: str) -> None:
    """A client had a message of that size answered."""
    call = Call(**who)
    intake.enter(call)
    assert call.asked.wait(LONG_S)
    intake.came(call, size)
    intake.leave(call)


def test_small_messages_never_wait(make: Make) -> None:
    intake = make()
    for size in (0, 100, LARGE_BYTES - 1):
        _had(intake, size)
        assert _entered(intake, *(Call() for _ in range(20))) == 20 * [True]


def _asked(calls: list[Call]) -> int:
    return sum(call.asked.is_set() for call in calls)


def test_one_volume_comes_beside_one_that_is_computed(make: Make) -> None:
    intake = make()
    _had(intake, VOLUME)
    calls = [Call() for _ in range(4)]
    assert _entered(intake, *calls) == [True, False, False, False]
    intake.came(calls[0], VOLUME)
    assert _asked(calls) == 2
    intake.came(calls[1], VOLUME)
    assert _asked(calls) == 2
    intake.leave(calls[0])
    assert _asked(calls) == 3
    intake.leave(calls[2])  # it ended, and no message came
    assert _asked(calls) == 4


def test_as_many_as_fit(make: Make) -> None:
    intake = make()
    _had(intake, MOST_BYTES // 12)
    assert _entered(intake, *(Call() for _ in range(6))) == 4 * [True] + 2 * [False]


def test_one_that_is_larger_than_all_may_be_comes_alone(make: Make) -> None:
    intake = make()
    _had(intake, 3 * MOST_BYTES)
    first, second = Call(), Call()
    assert _entered(intake, first, second) == [True, False]
    intake.leave(first)
    assert second.asked.is_set()


def test_a_new_client_is_like_the_largest_of_its_method(make: Make) -> None:
    intake = make()
    _had(intake, VOLUME)
    _had(intake, 10, method="/t/small")
    assert _entered(intake, Call()) == [True]
    assert _entered(intake, Call("b"), Call("c", "/t/small"), Call("d", "/t/other")) == [False, True, True]


def test_a_client_that_sends_both_does_not_wait(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that share a connection with volumes."""
    intake = make()
    _had(intake, VOLUME)
    _had(intake, 10)
    _had(intake, VOLUME)
    assert _entered(intake, Call(), Call()) == [True, True]
    monkeypatch.setattr(module, "_MIXED_S", 0.0)  # for as long as it did not
    time.sleep(0.001)
    assert _entered(intake, Call(), Call()) == [True, False]


def test_a_small_message_where_a_large_one_was_expected_makes_room(make: Make) -> None:
    intake = make()
    _had(intake, VOLUME)
    calls = [Call("b"), Call("c")]
    assert _entered(intake, *calls) == [True, False]
    intake.came(calls[0], 10)
    assert calls[1].asked.is_set()


def test_nobody_waits_for_long(make: Make) -> None:
    intake = make(patience_s=0.02)
    _had(intake, VOLUME)
    calls = [Call() for _ in range(50)]
    begin = time.monotonic()
    _entered(intake, *calls)
    assert all(call.asked.wait(LONG_S) for call in calls)
    assert time.monotonic() - begin < LONG_S / 2


def test_what_is_slow_does_not_count_after_a_moment(make: Make) -> None:
    intake = make(patience_s=0.02)
    _had(intake, VOLUME)
    slow, computes = Call(), Call()
    intake.enter(slow)
    time.sleep(0.03)
    assert _entered(intake, computes) == [True]
    intake.came(computes, VOLUME)
    time.sleep(0.03)
    assert _entered(intake, Call()) == [True]


def test_one_that_fails_to_ask_is_its_own_matter(make: Make) -> None:
    intake = make()
    _had(intake, VOLUME)
    first, broken, third = Call(), Call(failure=RuntimeError("no such call")), Call()
    _entered(intake, first, broken, third)
    intake.leave(first)
    assert (broken.asked.is_set(), third.asked.is_set()) == (True, False)
    intake.leave(broken)
    assert third.asked.is_set()


def test_at_the_end_all_are_let_in(make: Make) -> None:
    intake = make()
    _had(intake, VOLUME)
    calls = [Call() for _ in range(5)]
    assert _entered(intake, *calls) == [True, False, False, False, False]
    intake.close()
    assert all(call.asked.is_set() for call in calls)
    assert _entered(intake, Call()) == [True]


def test_few_clients_are_remembered(make: Make) -> None:
    intake = make()
    _had(intake, VOLUME)
    for number in range(3 * module._CLIENTS):
        _had(intake, 10, client=str(number))
    assert len(intake._clients) == module._CLIENTS


def test_many_threads(make: Make) -> None:
    """Every call asks once, whoever else comes and goes, and nothing is left."""
    intake = make(patience_s=0.001, most_bytes=4 * VOLUME)
    sizes = (10, VOLUME, LARGE_BYTES)
    failures: list[Exception] = []

    def client(name: str, size: int) -> None:
        try:
            for _ in range(200):
                _had(intake, size, client=name)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=client, args=(str(i), sizes[i % 3])) for i in range(9)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(LONG_S)
    assert not failures
    assert (intake._inside, list(intake._waiting)) == ({}, [])
