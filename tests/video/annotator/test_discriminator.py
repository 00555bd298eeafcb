from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from trocar.training.judge import Verdict, generator_loss, judge_loss  # noqa: E402
from trocar.video.annotator.discriminator import (  # noqa: E402
    Discriminator,
    matching_loss,
    softened,
)


def verdict(score, *layers):
    return Verdict(torch.tensor([score]), tuple(torch.tensor([layer]) for layer in layers))


def test_hinge_losses_by_hand():
    real, generated, other = verdict(0.25), verdict(-0.5), verdict(2.0)
    assert float(judge_loss(real, generated, None, 0.3)) == pytest.approx(0.75 + 0.5)
    assert float(judge_loss(real, generated, other, 0.3)) == pytest.approx(0.75 + 0.7 * 0.5 + 0.3 * 3.0)
    assert float(judge_loss(verdict(1.5), verdict(-1.5), None, 0.0)) == 0.0
    assert float(generator_loss(generated)) == 0.5


def test_matching_is_the_mean_difference_and_teaches_the_generator_alone():
    layer = torch.tensor([1.0, 3.0], requires_grad=True)
    real = Verdict(torch.zeros(1), (layer,))
    made = torch.tensor([2.0, 2.0], requires_grad=True)
    loss = matching_loss(real, Verdict(torch.zeros(1), (made,)))
    assert float(loss) == 1.0
    loss.backward()
    assert layer.grad is None
    assert made.grad is not None


def test_softened_maps_keep_their_class_and_their_sum():
    maps = softened(torch.tensor([[[0, 4], [2, 1]]]), 5, torch.ones(1, 1, 1, 1))
    assert maps.shape == (1, 5, 2, 2)
    torch.testing.assert_close(maps.sum(1), torch.ones(1, 2, 2))
    assert maps.argmax(1).tolist() == [[[0, 4], [2, 1]]]
    assert float(maps.max()) == pytest.approx(0.85 + 0.15 / 5)


def test_the_judge_sees_frame_and_map_and_answers_by_patches():
    torch.manual_seed(0)
    judge = Discriminator(5).eval()
    image, maps = torch.rand(1, 3, 32, 64), torch.rand(1, 5, 32, 64)
    first = judge(image, maps).score
    assert first.shape == (1, 1, 4, 8)
    changed = maps.clone()
    changed[..., :4] = 0
    far = judge(image, changed).score
    assert not torch.equal(first[..., 0], far[..., 0])
    torch.testing.assert_close(first[..., -1], far[..., -1])
    assert not torch.equal(first, judge(1 - image, maps).score)
