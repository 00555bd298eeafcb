from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the discriminator needs torch")

from trocar.planners.tpgan.discriminator import (  # noqa: E402
    Discriminator,
    matching_loss,
    straight_through,
)
from trocar.planners.tpgan.losses import SiteDose  # noqa: E402
from trocar.training.judge import Verdict, generator_loss, judge_loss  # noqa: E402

SHAPE = (2, 16, 16, 16)


def verdict(score, *layers):
    return Verdict(torch.full((1, 4, 4, 4), float(score)), tuple(layers))


def test_straight_through_draws_and_passes_the_gradient_on():
    probability = torch.full(SHAPE, 0.3, requires_grad=True)
    seeds = straight_through(probability, torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)))
    assert set(seeds.detach().unique().tolist()) == {0.0, 1.0}
    assert float(seeds.detach().mean()) == pytest.approx(0.3, abs=0.02)
    (seeds * 2.0).sum().backward()
    assert torch.equal(probability.grad, torch.full(SHAPE, 2.0))


def test_where_no_seed_may_stand_none_is_drawn():
    assert not straight_through(torch.zeros(SHAPE), torch.zeros(SHAPE)).any()


def test_hinge_losses_by_hand():
    assert float(judge_loss(verdict(0.4), verdict(-0.3), None, 0.5)) == pytest.approx(0.6 + 0.7)
    # Beyond the margin nothing is gained.
    assert float(judge_loss(verdict(3.0), verdict(-3.0), None, 0.5)) == 0.0
    mixed = judge_loss(verdict(0.4), verdict(-0.3), verdict(1.0), 0.25)
    assert float(mixed) == pytest.approx(0.6 + 0.75 * 0.7 + 0.25 * 2.0)
    assert float(generator_loss(verdict(-0.3))) == pytest.approx(0.3)


def test_matching_compares_style_not_place():
    layer = torch.rand((1, 3, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    moved = layer.flip(2, 4)
    assert float(matching_loss(verdict(0, layer), verdict(0, moved))) == pytest.approx(0.0, abs=1e-6)
    assert float(matching_loss(verdict(0, layer), verdict(0, layer + 0.5))) == pytest.approx(0.5, rel=1e-5)


def test_its_gradient_reaches_the_generator(kernel_gy_u, example):
    from trocar.planners.tpgan.generator import CANDIDATE, Generator
    from trocar.planners.tpgan.settings import NetworkSettings

    torch.manual_seed(0)
    generator, judge = Generator(NetworkSettings((8, 8, 16))), Discriminator()
    torch.nn.init.normal_(generator.head.weight, std=0.1)
    features = torch.from_numpy(example(0).features)[None]
    probability = generator(features, torch.randn(1, 2, 16, 16, 16))
    assert not probability[features[:, CANDIDATE] == 0].any()
    seeds = straight_through(probability, torch.rand(1, 16, 16, 16))
    dose = SiteDose(torch.from_numpy(kernel_gy_u))(seeds, torch.tensor([0.42 / 145.0]))
    generator_loss(judge(features, seeds, dose)).backward()
    assert all(bool(weights.grad.abs().sum() > 0) for weights in generator.parameters())


def test_scores_follow_anatomy_and_dose():
    torch.manual_seed(0)
    judge = Discriminator().eval()
    features, seeds, dose = torch.randn(2, 8, 16, 16, 16), torch.zeros(SHAPE), torch.ones(SHAPE)
    score = judge(features, seeds, dose).score
    assert score.shape == (2, 4, 4, 4)
    assert not torch.allclose(score, judge(features.roll(1, 0), seeds, dose).score)
    assert not torch.allclose(score, judge(features, seeds, 2 * dose).score)
