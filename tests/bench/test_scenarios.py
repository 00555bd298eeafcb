import threading
import time

import pytest

from trocar.bench import scenarios
from trocar.bench.scenarios import Outcome, highest_rate, merged, multi_stream, offline, server, single_stream
from trocar.bench.timing import Timing


def counter():
    calls = []
    return calls, lambda: calls.append(threading.get_ident())


def failing_every(number):
    calls = []

    def call():
        calls.append(1)
        if len(calls) % number == 0:
            raise RuntimeError("a failure of the server under load")

    return call


def test_single_stream_asks_one_after_the_other():
    calls, call = counter()
    found = single_stream(call, 10, warmup=3)
    assert (len(calls), found.requests, len(found.timing.samples_ms)) == (13, 10, 10)
    assert (found.scenario, found.failures, found.facts) == ("SingleStream", 0, {"streams": 1})


def test_multi_stream_waits_for_the_slowest():
    fast, slow = counter()[1], lambda: time.sleep(0.02)
    found = multi_stream([fast, slow], 4)
    assert (found.requests, len(found.timing.samples_ms)) == (8, 4)
    assert min(found.timing.samples_ms) >= 20.0


def test_multi_stream_asks_at_once():
    both = threading.Barrier(2, timeout=30)
    assert multi_stream([both.wait, both.wait], 3, warmup=0).failures == 0


def test_offline_shares_the_work_out():
    both = threading.Barrier(2, timeout=30)  # no stream could do it alone
    found = offline([both.wait, both.wait], 10, warmup=0)
    assert (found.requests, found.failures) == (10, 0)
    assert found.rate_per_s > 0


def test_failures_are_counted_and_not_timed_away():
    found = single_stream(failing_every(5), 20, warmup=0)
    assert (found.requests, found.failures, len(found.timing.samples_ms)) == (20, 4, 20)
    assert found.rate_per_s == pytest.approx(16 / found.seconds)


def test_a_call_that_fails_before_the_load_is_an_error():
    with pytest.raises(RuntimeError):
        single_stream(failing_every(1), 5)


def test_who_waits_behind_a_stall_has_waited():
    calls = []

    def call():
        calls.append(1)
        if len(calls) == 11:  # the tenth after the warm-up
            time.sleep(0.3)

    found = server([call], 200.0, 60, bound_ms=10_000.0)
    late = [value for value in found.timing.samples_ms if value > 100.0]
    # 0.3 s at 200 a second: some sixty came meanwhile, and of those left nearly all waited 0.1 s or more.
    assert len(late) >= 20
    assert found.facts["held"] is True
    assert found.facts["reached_ms"] >= 250.0


def test_a_load_that_counts_from_sending_would_not_have_seen_it():
    calls = []

    def call():
        calls.append(1)
        if len(calls) == 11:
            time.sleep(0.3)

    found = single_stream(call, 60)
    assert sum(value > 100.0 for value in found.timing.samples_ms) < 20


def test_requests_come_at_the_rate_and_alike_each_time():
    begun = time.perf_counter()
    found = server([lambda: None] * 2, 400.0, 80, bound_ms=1000.0, seed=5)
    assert found.requests == 80
    assert time.perf_counter() - begun >= 0.1  # 80 at 400 a second take 0.2 s
    assert found.facts["asked_rate_per_s"] == 400.0


def test_a_hopeless_rate_is_given_up():
    found = server([lambda: time.sleep(0.01)], 10_000.0, 5000, bound_ms=1.0)
    assert found.facts["held"] is False
    assert found.requests < 5000


def test_a_failure_breaks_the_bound():
    assert server([failing_every(7)], 1000.0, 20, bound_ms=10_000.0).facts["held"] is False


def ideal(limit_per_s):
    def load(rate):
        held = rate <= limit_per_s
        facts = {"asked_rate_per_s": rate, "held": held, "reached_ms": 1.0 if held else 9.0}
        return Outcome("Server", Timing((1.0,)), 10, 0, 1.0, facts)

    return load


@pytest.mark.parametrize("start_per_s", [3.0, 100.0, 7000.0])
def test_the_highest_rate_is_found_from_below_and_above(start_per_s):
    best, tried = highest_rate(ideal(137.0), start_per_s)
    assert 137.0 / 1.05 <= best.facts["asked_rate_per_s"] <= 137.0
    assert best.facts["held"]
    assert len(tried) < 20


def test_where_no_rate_holds_the_search_ends():
    best, tried = highest_rate(ideal(0.0), 1000.0)
    assert not best.facts["held"]
    assert len(tried) == 12


def test_parts_of_a_load_add_up():
    facts = {"held": True, "reached_ms": 3.0}
    parts = [
        Outcome("Server", Timing((1.0, 2.0)), 2, 0, 1.0, facts),
        Outcome("Server", Timing((3.0,)), 2, 1, 1.0, {"held": False, "reached_ms": 5.0}),
    ]
    found = merged(parts)
    assert found.timing.samples_ms == (1.0, 2.0, 3.0)
    assert (found.requests, found.failures, found.rate_per_s) == (4, 1, 1.5)
    assert found.facts == {"held": False, "reached_ms": 5.0}
    assert found.document()["rate_per_s"] == 1.5


def test_ctrl_c_ends_a_load(monkeypatch):
    from trocar.bench.progress import Stop

    stop = Stop()
    monkeypatch.setattr(scenarios, "current_stop", lambda: stop)
    calls = []

    def call():
        calls.append(1)
        stop.asked = len(calls) >= 5

    assert offline([call], 1000, warmup=0).requests == 5
