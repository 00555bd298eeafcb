from __future__ import annotations

import numpy as np
import pytest

from trocar.video.annotator.labels import tip_bells


def test_a_bell_is_one_at_its_cell_and_falls_off_evenly():
    bells = tip_bells(np.array([[10.0, 6.9]]), (32, 48))
    assert bells.shape == (8, 12)
    assert bells[1, 2] == 1.0
    assert bells[1, 1] == bells[1, 3] == bells[0, 2] == bells[2, 2] == pytest.approx(np.exp(-1 / 2.88))


def test_where_bells_meet_the_higher_counts_and_what_is_outside_does_not():
    bells = tip_bells(np.array([[2.0, 2.0], [10.0, 2.0], [-1.0, 2.0], [400.0, 2.0]]), (16, 16))
    assert bells.max() == 1.0
    assert (bells == 1.0).sum() == 2
    assert bells[0, 1] == pytest.approx(np.exp(-1 / 2.88))
    assert not tip_bells(np.zeros((0, 2)), (16, 16)).any()
