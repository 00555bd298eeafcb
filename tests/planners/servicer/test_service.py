"""What the service does with a caller's patience; the rest is in tests/integration and tests/hostile."""

from collections.abc import Callable
from typing import Any

import pytest

from trocar.planners import intake
from trocar.planners.requests import Search, Settings
from trocar.planners.servicer.service import Call, PlanningConfig
from trocar.planners.servicer.work import TIGHT_MS, within
from trocar.runtime.errors import DeadlineExceeded


class Caller:
    """A gRPC context: a deadline, and a way to leave."""

    def __init__(self, remaining_s: float | None, *, already_gone: bool = False) -> None:
        self._remaining_s, self._gone = remaining_s, already_gone
        self.leave: Callable[[], None] = lambda: None

    def time_remaining(self) -> float | None:
        return self._remaining_s

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self.leave = callback
        return not self._gone


def _call(remaining_s: float | None, reserve_ms: float = 400.0, **more: Any) -> tuple[Call, Caller]:
    caller = Caller(remaining_s, **more)
    return Call(caller, reserve_ms), caller  # type: ignore[arg-type]


def test_without_a_deadline_the_search_is_its_own_master() -> None:
    call, _ = _call(None)
    assert call.search_left_ms() is None
    assert call.end_s is None


def test_a_deadline_keeps_the_reserve() -> None:
    call, _ = _call(2.0, reserve_ms=400.0)
    left_ms = call.search_left_ms()
    assert left_ms is not None
    assert 1500 < left_ms <= 1600


def test_a_deadline_within_the_reserve_is_refused_with_figures() -> None:
    call, _ = _call(0.3, reserve_ms=400.0)
    with pytest.raises(DeadlineExceeded, match=r"more than 400 ms, got (300|29\d) ms"):
        call.search_left_ms()


def test_a_caller_that_leaves_cancels_its_job() -> None:
    call, caller = _call(None)
    assert not call.gone()
    caller.leave()
    assert call.gone()
    assert call.job.cancelled.is_set()


def test_a_caller_that_left_before_we_looked() -> None:
    call, _ = _call(None, already_gone=True)
    assert call.gone()


def test_artifacts_take_their_time() -> None:
    config = PlanningConfig()
    assert config.kept_ms(["dvh.png"]) == config.kept_ms([]) + config.render_ms
    assert config.kept_ms(["dvh.png"], 3) == config.kept_ms(["dvh.png"]) + 2 * config.reserve_ms


@pytest.mark.parametrize(
    ("search", "left_ms", "budget_ms"),
    [
        (Search(budget_ms=500.0), None, 500.0),
        (Search(budget_ms=500.0), 800.0, 500.0),
        (Search(budget_ms=500.0), 300.0, 300.0),
        (Search(moves=1000), 300.0, None),
        (Search(), None, None),
        (Search(), TIGHT_MS, None),
        (Search(), 300.0, 300.0),
    ],
)
def test_the_search_fits_the_deadline(search: Search, left_ms: float | None, budget_ms: float | None) -> None:
    asked = intake.plan_request(Settings(), search)
    assert within(asked, left_ms).budget_ms == budget_ms
    assert within(asked, left_ms).moves == asked.moves


def test_contexts_of_grpc_have_what_we_call() -> None:
    """The fake above stands for this."""
    import grpc

    assert {"time_remaining", "add_callback"} <= set(dir(grpc.ServicerContext))
