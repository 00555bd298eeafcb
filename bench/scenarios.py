"""Loads as in MLPerf Inference: SingleStream, MultiStream, Server and Offline.

Reddi et al., "MLPerf Inference Benchmark", ISCA 2020. SingleStream asks again once the answer is there;
MultiStream asks several at once and waits for all; Offline has everything at hand and counts answers a
second; Server is asked at random moments, as by callers that know nothing of each other. In Server a
latency begins at the moment that the request was *to be* sent. One that had to wait because the ones
before it were slow has waited, whoever made it wait; a load that sends late and counts from there omits
just the latencies that matter (Tene, "coordinated omission").
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from trocar.bench.progress import current_stop, stop_was_asked, track
from trocar.bench.timing import Timing

Call = Callable[[], object]

_HOPELESS = 20.0
"""A request so many times later than the bound shows that the rate is too high: the rest is not sent."""
_CLOSE = 1.05
"""The search for a rate ends where the highest that held and the lowest that did not are so close."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a load found.

    Parameters
    ----------
    timing : latencies in the order in which the requests were to be sent.
    requests, failures : that were sent; of them, those whose call raised.
    seconds : from the first to the last answer.
    facts : what else the scenario says.
    """

    scenario: str
    timing: Timing
    requests: int
    failures: int
    seconds: float
    facts: dict[str, Any]

    @property
    def rate_per_s(self) -> float:
        """Answers a second."""
        return (self.requests - self.failures) / self.seconds

    def document(self) -> dict[str, Any]:
        """Plain JSON, a timing among it."""
        return {
            **self.timing.document(),
            "scenario": self.scenario,
            "requests": self.requests,
            "failures": self.failures,
            "rate_per_s": self.rate_per_s,
            **self.facts,
        }


def single_stream(call: Call, requests: int, *, warmup: int = 1) -> Outcome:
    """One request after the other."""
    _warm(call, warmup)
    return multi_stream([call], requests, warmup=0, scenario="SingleStream")


def multi_stream(
    calls: Sequence[Call], queries: int, *, warmup: int = 1, scenario: str = "MultiStream"
) -> Outcome:
    """Queries one after the other, each of one request a stream at once; it took as long as its slowest.

    Parameters
    ----------
    calls : a stream each; each is called by a thread of its own.
    """
    for call in calls:
        _warm(call, warmup)
    samples, failures = [], 0
    with ThreadPoolExecutor(len(calls)) as pool:
        begun = time.perf_counter()
        for _ in track(range(queries), scenario):
            start = time.perf_counter()
            # One stream needs no thread, nor what handing over to one costs.
            answered = [_answers(calls[0])] if len(calls) == 1 else list(pool.map(_answers, calls))
            samples.append((time.perf_counter() - start) * 1e3)
            failures += answered.count(False)
        seconds = time.perf_counter() - begun
    sent = len(samples) * len(calls)
    return Outcome(scenario, Timing(tuple(samples)), sent, failures, seconds, {"streams": len(calls)})


def offline(calls: Sequence[Call], requests: int, *, warmup: int = 1) -> Outcome:
    """Everything at hand at once; each stream takes the next. Latencies are those of single requests."""
    for call in calls:
        _warm(call, warmup)
    found = _drain(calls, np.zeros(requests), bound_ms=None, from_schedule=False)
    return Outcome("Offline", found.timing, found.requests, found.failures, found.seconds, found.facts)


def server(
    calls: Sequence[Call],
    rate_per_s: float,
    requests: int,
    *,
    bound_ms: float,
    percentile: float = 99.0,
    seed: int = 0,
    warmup: int = 1,
) -> Outcome:
    """Requests at random moments, `rate_per_s` on average; a latency counts from the scheduled moment.

    Parameters
    ----------
    calls : a connection each. More requests than these are in flight wait, and their waiting counts.
    bound_ms, percentile : the load is held where nothing failed and that percentile is within the bound.
    seed : of the moments: exponential gaps, the same in every run.
    """
    for call in calls:
        _warm(call, warmup)
    moments_s = np.cumsum(np.random.default_rng(seed).exponential(1.0 / rate_per_s, requests))
    found = _drain(calls, moments_s, bound_ms=bound_ms, from_schedule=True)
    reached_ms = found.timing.percentile_ms(percentile)
    facts = {
        "asked_rate_per_s": rate_per_s,
        "bound_ms": bound_ms,
        "bound_percentile": percentile,
        "reached_ms": reached_ms,
        "held": found.requests == requests and not found.failures and reached_ms <= bound_ms,
        **found.facts,
    }
    return Outcome("Server", found.timing, found.requests, found.failures, found.seconds, facts)


def merged(parts: Sequence[Outcome]) -> Outcome:
    """One outcome of the parts of a load; a bound is held where each part held it."""
    first = parts[0]
    cpu_ms = tuple(value for part in parts for value in part.timing.cpu_ms)
    timing = Timing(tuple(value for part in parts for value in part.timing.samples_ms), cpu_ms)
    facts = dict(first.facts)
    if "held" in facts:
        facts["held"] = all(part.facts["held"] for part in parts)
        facts["reached_ms"] = max(part.facts["reached_ms"] for part in parts)
    return Outcome(
        first.scenario,
        timing,
        sum(part.requests for part in parts),
        sum(part.failures for part in parts),
        sum(part.seconds for part in parts),
        facts,
    )


def highest_rate(
    load: Callable[[float], Outcome], start_per_s: float
) -> tuple[Outcome, list[dict[str, Any]]]:
    """The load of the highest rate that held its bound, within 5 %, and every rate that was tried.

    Parameters
    ----------
    load : a Server load at a rate.
    start_per_s : tried first: then halved until one holds and doubled until one does not.

    Returns
    -------
    the best load, or the slowest tried if none held
    """
    held: Outcome | None = None
    broken_per_s, rate_per_s = math.inf, start_per_s
    tried: list[dict[str, Any]] = []
    while True:
        found = load(rate_per_s)
        tried.append(
            {
                "rate_per_s": rate_per_s,
                "requests": found.requests,
                "reached_ms": found.facts["reached_ms"],
                "held": found.facts["held"],
            }
        )
        if found.facts["held"]:
            held = found
        else:
            broken_per_s = rate_per_s
        low = held.facts["asked_rate_per_s"] if held else 0.0
        if stop_was_asked() or (low and broken_per_s / low <= _CLOSE) or (not low and len(tried) >= 12):
            return held or found, tried
        if not low:
            rate_per_s /= 2.0
        elif math.isinf(broken_per_s):
            rate_per_s *= 2.0
        else:
            rate_per_s = math.sqrt(low * broken_per_s)


@dataclass(slots=True)
class _Shared:
    """What the streams of one load share; `lock` is held to touch it."""

    lock: threading.Lock
    next_request: int = 0
    hopeless: bool = False


def _drain(calls: Sequence[Call], moments_s: Any, *, bound_ms: float | None, from_schedule: bool) -> Outcome:
    """Send request k at moment k, or as soon after as a stream is free."""
    latency_ms, late_ms = np.full(len(moments_s), np.nan), np.zeros(len(moments_s))
    failed = np.zeros(len(moments_s), dtype=bool)
    shared, stop = _Shared(threading.Lock()), current_stop()
    begun = time.perf_counter() + 0.01

    def stream(call: Call) -> None:
        while True:
            with shared.lock:
                index = shared.next_request
                if index >= len(moments_s) or shared.hopeless or (index and stop.asked):
                    return
                shared.next_request += 1
            due = begun + moments_s[index]
            if (wait_s := due - time.perf_counter()) > 0:
                time.sleep(wait_s)
            sent = time.perf_counter()
            failed[index] = not _answers(call)
            latency_ms[index] = (time.perf_counter() - (due if from_schedule else sent)) * 1e3
            late_ms[index] = (sent - due) * 1e3
            if bound_ms is not None and latency_ms[index] > _HOPELESS * bound_ms:
                shared.hopeless = True

    with ThreadPoolExecutor(len(calls)) as pool:
        waiting = [pool.submit(stream, call) for call in calls]
    seconds = time.perf_counter() - begun
    for one in waiting:
        one.result()
    done = ~np.isnan(latency_ms)
    facts: dict[str, Any] = {"streams": len(calls)}
    if from_schedule:
        facts["sent_late_p50_ms"] = float(np.median(late_ms[done]))
    timing = Timing(tuple(latency_ms[done].tolist()))
    return Outcome("", timing, int(done.sum()), int(failed.sum()), seconds, facts)


def _answers(call: Call) -> bool:
    """Whether the call gave an answer; what it raised is counted, since a load goes on without it."""
    try:
        call()
    except Exception:
        return False
    return True


def _warm(call: Call, times: int) -> None:
    """Calls before the clock starts; a failure here is the caller's to see."""
    for _ in range(times):
        call()
