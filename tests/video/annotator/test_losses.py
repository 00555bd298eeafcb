from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from trocar.video.annotator.labels import ANY_INSTRUMENT, IGNORE  # noqa: E402
from trocar.video.annotator.losses import _SMOOTH, cross_entropy, soft_dice, tips_loss  # noqa: E402

ONES = torch.ones(5)


def labels(*values):
    return torch.tensor(values, dtype=torch.int64).reshape(1, 1, len(values))


def test_equal_logits_cost_the_logarithm_of_the_classes():
    assert float(cross_entropy(torch.zeros(1, 5, 1, 3), labels(0, 2, 4), ONES)) == pytest.approx(math.log(5))


def test_cross_entropy_is_the_mean_by_weight_and_leaves_out_what_is_unknown():
    logits = torch.zeros(1, 5, 1, 3)
    logits[0, 2, 0, 0] = math.log(4)  # class 2 has 4 / 8 there
    weights = torch.tensor([1.0, 1.0, 3.0, 1.0, 1.0])
    expected = (3 * math.log(2) + 1 * math.log(5)) / 4
    assert float(cross_entropy(logits, labels(2, 0, IGNORE), weights)) == pytest.approx(expected)


def test_any_instrument_is_right_where_its_parts_together_are():
    logits = torch.zeros(1, 5, 1, 2)
    # 3 of 5 equal classes are an instrument.
    found = cross_entropy(logits, labels(ANY_INSTRUMENT, IGNORE), ONES)
    assert float(found) == pytest.approx(math.log(5 / 3))
    mixed = cross_entropy(logits, labels(ANY_INSTRUMENT, 1), ONES)
    assert float(mixed) == pytest.approx((math.log(5 / 3) + math.log(5)) / 2)


def test_the_fast_and_the_merged_way_agree_where_nothing_is_merged():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 3, 4)
    known = torch.randint(0, 5, (2, 3, 4))
    known[0, 0, 0] = IGNORE
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0, 1.5])
    fast = cross_entropy(logits, known, weights)
    # One merged pixel, and the same without it.
    both = known.clone()
    both[1, 2, 3] = ANY_INSTRUMENT
    without = known.clone()
    without[1, 2, 3] = IGNORE
    merged = -torch.log(torch.softmax(logits[1, :, 2, 3], 0)[2:].sum())
    weight = weights[without.clamp_max(4)][without != IGNORE].sum()
    expected = (cross_entropy(logits, without, weights) * weight + merged * weights[2:].mean()) / (
        weight + weights[2:].mean()
    )
    assert float(cross_entropy(logits, both, weights)) == pytest.approx(float(expected), rel=1e-5)
    assert math.isfinite(float(fast))


def test_dice_by_hand():
    probability = torch.zeros(1, 2, 1, 4)
    probability[0, 1] = torch.tensor([1.0, 0.5, 0.0, 0.0])
    probability[0, 0] = 1 - probability[0, 1]
    # Many times over, so that what smooths is little.
    found = float(soft_dice(probability.tile(1, 1, 1, 1000), labels(1, 1, 0, 0).tile(1, 1, 1000)))
    first = (2 * 2000 + _SMOOTH) / (2500 + 2000 + _SMOOTH)
    second = (2 * 1500 + _SMOOTH) / (1500 + 2000 + _SMOOTH)
    assert found == pytest.approx(1 - (first + second) / 2, abs=1e-5)
    assert found == pytest.approx(1 - (8 / 9 + 6 / 7) / 2, abs=0.01)


def test_dice_leaves_out_frames_whose_parts_nobody_marked():
    torch.manual_seed(0)
    probability = torch.softmax(torch.randn(2, 5, 4, 4), 1)
    truth = torch.randint(0, 5, (2, 4, 4))
    merged = truth.clone()
    merged[1, 0, 0] = ANY_INSTRUMENT
    assert float(soft_dice(probability, merged)) == pytest.approx(
        float(soft_dice(probability[:1], truth[:1]))
    )


def test_tips_cost_by_hand_and_nothing_where_nobody_marked_them():
    bells = torch.tensor([1.0, 0.5, 0.0]).reshape(1, 1, 1, 3)
    # At even odds: 1/4 ln 2 at the tip, 1/4 (1/2)^4 ln 2 beside it, 1/4 ln 2 away from it.
    expected = 0.25 * math.log(2) * (1 + 0.5**4 + 1)
    assert float(tips_loss(torch.zeros(1, 1, 1, 3), bells)) == pytest.approx(expected)
    assert float(tips_loss(torch.zeros(1, 1, 1, 3), torch.full((1, 1, 1, 3), -1.0))) == 0.0
    sure = torch.tensor([9.0, 0.0, -9.0]).reshape(1, 1, 1, 3)
    assert float(tips_loss(sure, bells)) < 0.02
