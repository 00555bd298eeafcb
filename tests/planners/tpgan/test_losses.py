from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the losses need torch")

from trocar.planners.tpgan import losses  # noqa: E402
from trocar.planners.tpgan.settings import ARMS, LossWeights  # noqa: E402

SHAPE = (1, 16, 16, 16)


def plan(*sites):
    seeds = torch.zeros(SHAPE)
    for plane, row, column in sites:
        seeds[0, plane, row, column] = 1.0
    return seeds


def features(candidates, **distances):
    made = torch.full((1, 8, 16, 16, 16), 1.5)
    made[:, losses.CANDIDATE] = candidates
    for name, sites in distances.items():
        made[:, getattr(losses, name.upper())][sites > 0] = -1.0
    return made


def test_cross_entropy_over_two_candidates_by_hand():
    target, sites = plan((3, 3, 3)), plan((3, 3, 3), (9, 9, 9))
    logits = torch.full(SHAPE, 5.0)  # what is no candidate does not count
    logits[0, 3, 3, 3], logits[0, 9, 9, 9] = 0.0, math.log(0.25 / 0.75)
    expected = (2.0 * math.log(2.0) - math.log(0.75)) / 2.0
    value = losses.cross_entropy(logits, target, features(sites), positive=2.0)
    assert float(value) == pytest.approx(expected, rel=1e-6)


def test_soft_l1_by_hand():
    target, sites = plan((3, 3, 3)), plan((3, 3, 3), (9, 9, 9))
    probability = 0.5 * plan((3, 3, 3)) + 0.1 * plan((9, 9, 9))
    # Beyond 0.2: |d| - 0.1; within: d^2 / 0.4.
    expected = ((0.5 - 0.1) + 0.1**2 / 0.4) / 2.0
    assert float(losses.soft_l1(probability, target, features(sites))) == pytest.approx(expected, rel=1e-5)


def test_adjacency_is_zero_for_a_legal_plan(example):
    assert float(losses.adjacency(torch.from_numpy(example(1).seeds).float()[None])) == 0.0
    # Two planes on along the needle, a diagonal neighbour in the plane, a stagger: all allowed.
    assert float(losses.adjacency(plan((3, 3, 3), (5, 3, 3), (3, 4, 4), (4, 3, 4)))) == 0.0


@pytest.mark.parametrize("other", [(4, 3, 3), (2, 3, 3), (3, 4, 3), (3, 2, 3), (3, 3, 4), (3, 3, 2)])
def test_adjacency_counts_each_forbidden_pair_once(other):
    assert float(losses.adjacency(plan((3, 3, 3), other))) == pytest.approx(1.0 / 3.0)
    assert float(losses.adjacency(0.5 * plan((3, 3, 3), other))) == pytest.approx(0.25 / 2.0)


def test_adjacency_does_not_wrap_round_the_window():
    assert float(losses.adjacency(plan((0, 0, 0), (15, 0, 0), (0, 15, 0), (0, 0, 15)))) == 0.0


def test_site_dose_is_the_convolution(kernel_gy_u):
    random = np.random.default_rng(1)
    probability = random.random((2, 16, 16, 16)) * (random.random((2, 16, 16, 16)) < 0.1)
    strength = np.array([0.42, 0.5]) / 145.0
    expected = np.zeros_like(probability)
    for case, plane, row, column in np.argwhere(probability):
        sent = kernel_gy_u[15 - plane : 31 - plane, 15 - row : 31 - row, 15 - column : 31 - column]
        expected[case] += probability[case, plane, row, column] * strength[case] * sent
    dose = losses.SiteDose(torch.from_numpy(kernel_gy_u))(
        torch.from_numpy(probability).float(), torch.from_numpy(strength).float()
    )
    np.testing.assert_allclose(dose.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_site_dose_of_the_engine_at_1_cm(engine):
    from trocar.planners.features import dose_kernel_gy_u

    dose = losses.SiteDose(torch.from_numpy(dose_kernel_gy_u(engine, 5.0, 5.0)))(
        plan((8, 8, 8)), torch.tensor([0.42 / 145.0])
    )
    expected = engine.points_gy(np.zeros((1, 3)), 0.42, np.array([[10.0, 0.0, 0.0]]))[0] / 145.0
    assert float(dose[0, 8, 8, 10]) == pytest.approx(float(expected), rel=1e-4)


def test_dose_misfit_by_hand():
    ctv, urethra, rectum = plan((1, 1, 1), (2, 2, 2)), plan((5, 5, 5)), plan((7, 7, 7))
    made = features(torch.ones(SHAPE), ctv=ctv, ptv=ctv, urethra=urethra, rectum=rectum)
    dose = torch.zeros(SHAPE)
    dose[0, 1, 1, 1], dose[0, 2, 2, 2], dose[0, 5, 5, 5], dose[0, 7, 7, 7] = 0.6, 3.0, 1.7, 1.1
    expected = 1.5 * 0.4 / 2.0 + (0.2 + 0.25 * 0.45) + 0.1
    assert float(losses.dose_misfit(dose, made)) == pytest.approx(expected, rel=1e-5)


def test_a_case_without_organs_has_no_organ_misfit():
    assert float(losses.dose_misfit(torch.full(SHAPE, 9.0), features(torch.ones(SHAPE)))) == 0.0


def test_style_counts_seeds_needles_and_pairs_by_hand():
    seeds = plan((3, 3, 3), (5, 3, 3), (4, 4, 4))  # a needle of two, one of one, two staggers of 1, 1, 1
    found = losses.style(seeds, seeds)[0] * 4.0
    by_pair = dict(zip(losses.STYLE_PAIRS, found[2:].tolist(), strict=True))
    assert found[:2].tolist() == pytest.approx([3.0, 2.0])
    assert by_pair[2, 0, 0] == pytest.approx(1.0)
    assert by_pair[1, 1, 1] == pytest.approx(1.0)
    assert by_pair[0, 1, 1] == 0.0
    assert float(losses.style_misfit(seeds, seeds)) == 0.0
    assert float(losses.style_misfit(plan((3, 3, 3)), seeds)) > 0.1


def test_most_wanted_takes_the_targets_number_and_breaks_ties_in_order():
    probability = 0.2 * plan((1, 1, 1), (2, 2, 2), (3, 3, 3)) + 0.7 * plan((9, 9, 9))
    wanted = losses.most_wanted(probability, plan((0, 0, 0), (0, 0, 1)))
    assert torch.equal(wanted, plan((9, 9, 9), (1, 1, 1)))


def test_dice_by_hand():
    assert float(losses.dice(plan((1, 1, 1), (2, 2, 2)), plan((1, 1, 1)))) == pytest.approx(2.0 / 3.0)
    assert float(losses.dice(torch.zeros(SHAPE), plan((1, 1, 1)))) == 0.0


def test_an_arm_has_the_terms_it_says():
    target = plan((8, 8, 8))
    made, dose = features(torch.ones(SHAPE)), torch.ones(SHAPE)
    names = {
        arm: set(losses.supervised(torch.zeros(SHAPE), target, made, dose, weights))
        for arm, weights in ARMS.items()
    }
    assert names["bce"] == {"cross_entropy"}
    assert names["no-dose"] == names["full"] - {"dose"}
    assert names["no-adversarial"] == names["full"]
    assert ARMS["no-adversarial"] == replace(LossWeights(), adversarial=0.0, feature_matching=0.0)


def test_terms_are_weighted():
    target, made = plan((8, 8, 8)), features(torch.ones(SHAPE))
    for name in ("cross_entropy", "soft_l1", "adjacency"):
        one, three = (
            losses.supervised(
                torch.zeros(SHAPE), target, made, torch.ones(SHAPE), replace(LossWeights(), **{name: weight})
            )[name]
            for weight in (1.0, 3.0)
        )
        assert float(three) == pytest.approx(3.0 * float(one), rel=1e-6)
