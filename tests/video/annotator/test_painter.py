from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("safetensors", reason="training needs safetensors")

from trocar.runtime.errors import InvalidInput  # noqa: E402
from trocar.video.annotator.data import RendererSource  # noqa: E402
from trocar.video.annotator.painter import (  # noqa: E402
    Painter,
    PainterSettings,
    load_painter,
    one_hot,
    palettes_of,
    repainted,
    save_painter,
    train_painter,
)


def test_a_palette_is_mean_and_deviation_of_each_class_by_hand():
    image = torch.zeros(1, 3, 1, 4)
    image[0, 0, 0] = torch.tensor([0.2, 0.4, 1.0, 0.0])
    maps = one_hot(torch.tensor([[[1, 1, 0, 0]]]), 3)
    mean, spread = palettes_of(image, maps).reshape(1, 3, 2, 3).unbind(2)
    torch.testing.assert_close(mean[0, :, 0], torch.tensor([0.5, 0.3, 0.0]))
    torch.testing.assert_close(spread[0, :, 0], torch.tensor([0.5, 0.1, 0.0]), atol=1e-4, rtol=0)


def test_frames_come_from_map_palette_and_noise():
    torch.manual_seed(0)
    painter = Painter(5)
    maps = one_hot(torch.randint(0, 5, (2, 32, 48)), 5)
    palettes, noise = torch.rand(2, 30), torch.randn(2, 2, 32, 48)
    found = painter(maps, palettes, noise)
    assert found.shape == (2, 3, 32, 48)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    for other in (
        painter(maps.roll(1, 0), palettes, noise),
        painter(maps, palettes + 0.3, noise),
        painter(maps, palettes, -noise),
    ):
        assert not torch.allclose(found, other, atol=1e-3)


def test_repainting_keeps_a_class_its_neighbour_lacks_and_is_the_seeds():
    painter = Painter(3).eval()
    image = torch.rand(2, 3, 16, 16)
    labels = torch.zeros(2, 16, 16, dtype=torch.int64)
    labels[0, :8] = 2
    first, again, other = (
        repainted(painter, image, labels, 2, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == image.shape
    assert repainted(painter, image, labels, 1, torch.Generator().manual_seed(1)).shape == image[:1].shape
    assert not first.requires_grad


def test_a_painter_learns_and_comes_back_from_its_file(tmp_path):
    settings = PainterSettings(5, epochs=3, frames=16, batch_size=8)
    figures = []
    for painter, found in train_painter(RendererSource(0), settings, (32, 64)):
        figures.append(found["l1"])
        last = painter
    assert figures[-1] < figures[0]
    save_painter(tmp_path / "p.safetensors", last, {})
    back = load_painter(tmp_path / "p.safetensors", 5)
    for ours, theirs in zip(last.parameters(), back.parameters(), strict=True):
        np.testing.assert_array_equal(ours.detach().numpy(), theirs.detach().numpy())
    with pytest.raises(InvalidInput, match=r"p.safetensors: expected a painter of 2 classes, got 5"):
        load_painter(tmp_path / "p.safetensors", 2)
