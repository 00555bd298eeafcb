from __future__ import annotations

import numpy as np
import pytest

from trocar.video.annotator.renderer.noise import FEATURE_PX, SIZE, cut, tiles

KINDS = ("cloud", "rough", "grain", "cells", "streak")


@pytest.mark.parametrize("kind", KINDS)
def test_a_tile_has_no_mean_and_unit_deviation_and_no_seam(kind):
    for tile in tiles()[kind]:
        assert tile.shape == (SIZE, SIZE)
        assert abs(float(tile.mean())) < 1e-4
        assert float(tile.std()) == pytest.approx(1.0, abs=1e-4)
        # A seam would be a jump larger than any inside.
        inner = np.abs(np.diff(tile, axis=0)).max()
        assert np.abs(tile[0] - tile[-1]).max() <= 1.5 * inner


def test_tiles_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        tiles()["cloud"][0][0, 0] = 1.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(256, 448), (33, 57), (1, 1)])
def test_a_cut_has_its_shape_and_is_the_seeds(kind, shape):
    first, again, other = (cut(np.random.default_rng(seed), kind, shape, 40.0) for seed in (3, 3, 4))
    assert first.shape == shape
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert shape == (1, 1) or not np.array_equal(first, other)


def test_larger_features_change_more_slowly():
    def roughness(feature_px):
        window = cut(np.random.default_rng(1), "cloud", (200, 200), feature_px)
        return float(np.abs(np.diff(window, axis=1)).mean())

    assert roughness(4 * FEATURE_PX) < 0.5 * roughness(FEATURE_PX) < 0.25 * roughness(FEATURE_PX / 4)
