from __future__ import annotations

import numpy as np
import pytest

from trocar.runtime.errors import InvalidInput
from trocar.runtime.session.base import TensorSpec
from trocar.runtime.session.fake import FakeSession

SPEC = TensorSpec("x", "float32", (None, 3))


def test_it_keeps_its_calls() -> None:
    session = FakeSession([SPEC], [SPEC], dict)
    feeds = {"x": np.zeros((2, 3), np.float32)}
    session.run(feeds)
    assert [list(call) for call in session.calls] == [["x"]]


def test_a_function_that_breaks_its_own_outputs_is_caught() -> None:
    session = FakeSession([SPEC], [SPEC], lambda feeds: {"x": feeds["x"].astype(np.float64)})
    with pytest.raises(InvalidInput, match=r"output x: expected float32 \[\?, 3\], got float64 \[2, 3\]"):
        session.run({"x": np.zeros((2, 3), np.float32)})
