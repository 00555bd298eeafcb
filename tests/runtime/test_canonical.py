import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trocar.runtime.canonical import canonical_json, sha256_of


def test_one_spelling():
    assert canonical_json({"b": [1, 2.5], "a": None}) == '{"a":null,"b":[1,2.5]}'
    assert canonical_json({"x": 145.0, "y": (True, "\u00b5")}) == '{"x":145,"y":[true,"\\u00b5"]}'
    assert canonical_json(np.array([[1.0, 0.1]])) == "[[1,0.1]]"


@given(st.integers(-(2**53), 2**53))
def test_whole_numbers_are_one_number(value):
    assert canonical_json(value) == canonical_json(float(value))


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_other_figures_are_other_digests(one, other):
    assert (sha256_of(one) == sha256_of(other)) is (one == other)


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_only_finite_figures(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)
