"""Hand-worked motion."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trocar.video.motion import MotionSettings, ldlj, measure, sparc

SETTINGS = MotionSettings(idle_per_s=0.02, gap_s=0.2)


def straight(seconds: float = 2.0, rate: float = 25.0, speed: float = 50.0) -> tuple[np.ndarray, np.ndarray]:
    times = np.arange(round(seconds * rate) + 1) / rate
    return times, np.column_stack([10 + speed * times, np.full(len(times), 7.0)])


def test_a_straight_line_at_constant_speed() -> None:
    times, tips = straight()
    found = measure(times, tips, diagonal_px=1000, settings=SETTINGS)
    assert found.unit == "px"
    assert found.path_length == pytest.approx(100)
    assert found.in_view_s == pytest.approx(2)
    assert found.mean_speed == pytest.approx(50)
    assert found.peak_speed == pytest.approx(50)
    assert found.idle_s == 0
    assert found.economy_of_area == 0  # a line has no area


def test_millimetres_need_a_calibration() -> None:
    times, tips = straight()
    found = measure(times, tips, diagonal_px=1000, settings=SETTINGS, mm_per_px=0.2)
    assert found.unit == "mm"
    assert found.path_length == pytest.approx(20)
    assert found.idle_s == 0  # the threshold scales with the unit


def test_an_instrument_that_rests_is_idle() -> None:
    times = np.arange(51) / 25
    tips = np.zeros((51, 2))
    found = measure(times, tips, diagonal_px=1000, settings=SETTINGS)
    assert found.idle_s == pytest.approx(2)
    assert found.path_length == 0
    assert found.economy_of_area is None
    assert found.ldlj is None
    assert found.sparc is None


def test_nothing_is_measured_across_a_gap() -> None:
    times, tips = straight()
    times = np.concatenate([times, times + 10])
    tips = np.concatenate([tips, tips + 5000])
    found = measure(times, tips, diagonal_px=1000, settings=SETTINGS)
    assert found.path_length == pytest.approx(200)
    assert found.in_view_s == pytest.approx(4)
    assert found.peak_speed == pytest.approx(50)


def test_a_square_round_has_the_economy_of_a_square() -> None:
    # Four sides of 10: area 100 over path 40 squared.
    corners = np.array([[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]], float)
    found = measure(np.arange(5) * 0.1, corners, diagonal_px=100, settings=SETTINGS)
    assert found.economy_of_area == pytest.approx(100 / 1600)


def bell(seconds: float, rate: float) -> np.ndarray:
    """Minimum-jerk speed: 30 t^2 (1 - t)^2 over the duration."""
    t = np.arange(round(seconds * rate)) / (seconds * rate)
    return 30 * t**2 * (1 - t) ** 2


def test_ldlj_of_the_minimum_jerk_movement() -> None:
    # v = 30 t^2 (1-t)^2: v'' = 60 (1 - 6 t + 6 t^2), whose square integrates to 720 over 0..1; peak 1.875.
    expected = -math.log(720 / 1.875**2)
    assert ldlj(bell(1.0, 1000.0), 1000.0) == pytest.approx(expected, abs=0.02)


def test_ldlj_knows_neither_size_nor_duration() -> None:
    once = ldlj(bell(1.0, 500.0), 500.0)
    assert ldlj(7 * bell(1.0, 500.0), 500.0) == pytest.approx(once, abs=1e-9)
    assert ldlj(bell(4.0, 500.0), 500.0) == pytest.approx(once, abs=0.02)


def test_sparc_of_the_minimum_jerk_movement_is_as_published() -> None:
    # Balasubramanian et al. 2015: smooth reaching is about -1.4 to -1.6 by SPARC.
    assert -1.65 < sparc(bell(1.0, 100.0), 100.0) < -1.35


def test_a_broken_movement_is_less_smooth_by_both_measures() -> None:
    rate = 100.0
    smooth = bell(2.0, rate)
    t = np.arange(len(smooth)) / rate
    broken = smooth * (1 + 0.6 * np.sin(2 * np.pi * 4 * t))
    assert ldlj(broken, rate) < ldlj(smooth, rate) - 1
    assert sparc(broken, rate) < sparc(smooth, rate) - 0.3
