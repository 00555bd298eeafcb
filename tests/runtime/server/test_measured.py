from trocar.runtime.server.measured import LEAST_RUNS, OLD_S, Measured


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def _runs(measured: Measured, clock: Clock, *took_s: float, kind: str = "") -> None:
    for each in took_s:
        clock.now_s += each
        measured.add(kind, each, clock.now_s)


def test_a_few_runs_say_nothing() -> None:
    clock = Clock()
    measured = Measured()
    _runs(measured, clock, *[1.0] * (LEAST_RUNS - 1))
    assert measured.least_s("", clock.now_s) == 0.0
    _runs(measured, clock, 1.0)
    assert measured.least_s("", clock.now_s) == 1.0


def test_one_in_ten_was_quicker() -> None:
    clock = Clock()
    measured = Measured()
    _runs(measured, clock, *[0.1] * 6, *[0.2] * 58)
    assert abs(measured.least_s("", clock.now_s) - 0.2) < 1e-6  # the seventh of 64, from below
    _runs(measured, clock, *[0.05] * 8)
    assert abs(measured.least_s("", clock.now_s) - 0.05) < 1e-6


def test_kinds_are_apart_and_the_oldest_go() -> None:
    clock = Clock()
    measured = Measured()
    _runs(measured, clock, *[0.1] * LEAST_RUNS, kind="a")
    _runs(measured, clock, *[0.3] * LEAST_RUNS, kind="b")
    assert measured.least_s("a", clock.now_s) < measured.least_s("b", clock.now_s)
    assert measured.least_s("c", clock.now_s) == 0.0
    for number in range(63):
        _runs(measured, clock, 0.001, kind=str(number))
    assert measured.least_s("a", clock.now_s) == 0.0
    assert measured.least_s("b", clock.now_s) > 0.0


def test_what_was_measured_long_ago_is_forgotten() -> None:
    clock = Clock()
    measured = Measured()
    _runs(measured, clock, *[0.5] * 64)
    clock.now_s += OLD_S + 1
    assert measured.least_s("", clock.now_s) == 0.0
    _runs(measured, clock, *[0.1] * LEAST_RUNS)  # the slow ones count no more
    assert abs(measured.least_s("", clock.now_s) - 0.1) < 1e-6


def test_a_change_of_pace_is_followed() -> None:
    clock = Clock()
    measured = Measured()
    _runs(measured, clock, *[0.5] * 64, *[0.05] * 16)
    assert abs(measured.least_s("", clock.now_s) - 0.05) < 1e-6
