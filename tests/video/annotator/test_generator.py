from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from trocar.video.annotator.generator import Generator, _shuffled, normalised  # noqa: E402
from trocar.video.annotator.settings import NetworkSettings  # noqa: E402


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return Generator(NetworkSettings()).eval()


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 256, 448), (2, 64, 96)])
def test_label_maps_are_as_large_as_the_picture_and_tips_a_quarter(generator, batch, height, width):
    with torch.no_grad():
        logits, tips = generator(torch.rand(batch, 3, height, width))
    assert logits.shape == (batch, 5, height, width)
    assert tips.shape == (batch, 1, height // 4, width // 4)
    assert 0 <= float(tips.min()) <= float(tips.max()) <= 1
    assert float(tips.max()) < 0.5  # an untrained network expects no tips


def test_a_polyp_network_has_two_classes_and_no_tips():
    logits = Generator(NetworkSettings(classes=2, tips=False)).eval()(torch.rand(1, 3, 64, 64))
    assert logits.shape == (1, 2, 64, 64)


def test_a_lean_network_s_first_class_is_what_the_others_are_measured_by(generator):
    with torch.no_grad():
        logits, _ = generator(torch.rand(1, 3, 64, 64))
        beside = Generator(NetworkSettings(lean=False)).eval()(torch.rand(1, 3, 64, 64))[0]
    assert logits.shape == beside.shape
    assert not logits[:, 0].any()
    assert logits[:, 1:].any()
    assert beside[:, 0].any()


def test_tips_are_the_convolution_that_was_trained(generator):
    deep = torch.rand(2, 32, 12, 20)
    with torch.no_grad():
        torch.testing.assert_close(
            generator.tips(deep),
            torch.nn.functional.conv2d(deep, generator.tips.weight, generator.tips.bias, padding=1),
            atol=1e-5,
            rtol=1e-5,
        )


def test_channels_become_pixels_where_torch_puts_them():
    channels = torch.rand(2, 12, 5, 7)
    assert torch.equal(_shuffled(channels), torch.nn.functional.pixel_shuffle(channels, 2))


def test_frames_of_a_batch_do_not_touch_each_other(generator):
    pictures = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        both, alone = generator(pictures)[0], generator(pictures[1:])[0]
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)


def test_exposure_white_balance_and_surround_leave_the_second_three_channels_alone():
    torch.manual_seed(0)
    picture = 0.2 + 0.5 * torch.rand(1, 3, 32, 32)
    found = normalised(picture)
    assert found.shape == (1, 6, 32, 32)
    torch.testing.assert_close(found[:, :3], 2 * picture - 1)
    brighter = normalised(1.4 * picture)[:, 3:]
    torch.testing.assert_close(brighter, found[:, 3:], atol=0.01, rtol=0.05)
    shifted = normalised(picture + torch.tensor([0.1, 0.0, 0.05]).reshape(1, 3, 1, 1))[:, 3:]
    torch.testing.assert_close(shifted, found[:, 3:], atol=0.01, rtol=0.05)
    framed = torch.zeros(1, 3, 48, 48)
    framed[..., 8:40, 8:40] = picture
    torch.testing.assert_close(normalised(framed)[:, 3:, 8:40, 8:40], found[:, 3:], atol=0.02, rtol=0.08)
    # A black frame is no division by nothing.
    assert torch.isfinite(normalised(torch.zeros(1, 3, 32, 32))).all()
