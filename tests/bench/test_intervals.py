import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trocar.bench.intervals import median_interval, ratio_interval

times_ms = st.lists(st.floats(0.001, 1000.0), min_size=6, max_size=60)


def test_equal_samples_leave_no_doubt():
    assert median_interval([2.0] * 20) == (2.0, 2.0)
    assert ratio_interval([2.0] * 20, [3.0] * 20) == (1.5, 1.5)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_few_samples_give_no_interval(count):
    assert median_interval([1.0] * count) is None
    assert ratio_interval([1.0] * 20, [1.0] * count) is None
    assert ratio_interval([0.0] * 20, [1.0] * 20) is None


@given(times_ms)
@settings(deadline=None, max_examples=30)
def test_an_interval_lies_within_the_samples_and_scales_with_them(samples):
    low, high = median_interval(samples)
    assert min(samples) <= low <= high <= max(samples)
    assert median_interval([2.0 * one for one in samples]) == pytest.approx((2.0 * low, 2.0 * high))


def test_a_shift_is_told_from_noise():
    random = np.random.default_rng(1)
    before, after = random.lognormal(0.0, 0.1, (2, 200))
    low, high = ratio_interval(before, 1.3 * after)
    assert 1.0 < low < 1.3 < high
    low, high = ratio_interval(before, after)
    assert low < 1.0 < high


def test_slow_stretches_widen_the_interval():
    # The same samples in the order of a slow drift, and shuffled: neighbours that are alike say less.
    random = np.random.default_rng(2)
    drifting = np.repeat(random.normal(10.0, 1.0, 10), 20) + random.normal(0.0, 0.1, 200)
    shuffled = random.permutation(drifting)

    def width(samples):
        low, high = median_interval(samples)
        return high - low

    assert width(drifting) > 1.5 * width(shuffled)


def test_the_interval_covers_the_median_as_often_as_it_says():
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(60):
        low, high = median_interval(random.exponential(1.0, 60))
        covered += low <= np.log(2.0) <= high
    assert covered >= 51  # of 60; 57 are expected of 95 %
