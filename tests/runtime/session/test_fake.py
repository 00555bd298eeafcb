from __future__ import annotations

import numpy as np
import pytest

from trocar.runtime.errors import DeviceError, InvalidInput
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


def test_an_answer_of_another_shape_than_its_buffer_is_not_spread_over_it() -> None:
    session = FakeSession([SPEC], [SPEC], lambda feeds: {"x": feeds["x"][:1]})
    with pytest.raises(DeviceError, match=r"output x: the answer is \[1, 3\], not as bound"):
        session.run_into({"x": np.zeros((2, 3), np.float32)}, {"x": np.zeros((2, 3), np.float32)})
