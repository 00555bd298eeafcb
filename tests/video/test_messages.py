"""What a damaged worker can send: an error, and never anything that reaches the picture."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trocar.runtime.errors import DeviceError
from trocar.video.frames import Annotation, Instance
from trocar.video.messages import (
    MAX_BYTES,
    MAX_INSTANCES,
    annotation_document,
    decode,
    encode,
    read_annotation,
)

LABELS = np.zeros((20, 30), np.uint8)
GOOD = {
    "instances": [["instrument", [1, 2, 11, 12], 60, 0.5, [3.5, 4.5]]],
    "object_from": 2,
    "confidence": 0.5,
    "stage_ms": {"model": 1.0},
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def read(document: dict[str, Any]) -> Annotation:
    return read_annotation(document, frame_index=7, pts_s=0.5, labels=LABELS)


@given(st.binary(max_size=200))
def test_garbage_is_never_anything_but_a_device_error(data: bytes) -> None:
    with contextlib.suppress(DeviceError):
        assert isinstance(decode(data), dict)


def test_nesting_without_end_is_a_device_error() -> None:
    with pytest.raises(DeviceError, match="expected a message"):
        decode(b"[" * (MAX_BYTES - 1))


@given(st.sampled_from(sorted(GOOD)), VALUES)
def test_a_field_of_any_other_value_is_a_device_error_or_sound(name: str, value: Any) -> None:
    try:
        found = read(GOOD | {name: value})
    except DeviceError:
        return
    assert 0 <= found.confidence <= 1
    assert len(found.instances) <= MAX_INSTANCES
    assert all(np.isfinite(ms) for ms in found.stage_ms.values())


@pytest.mark.parametrize(
    "instance",
    [
        ["instrument", [-1, 2, 11, 12], 60, 0.5, None],
        ["instrument", [1, 2, 31, 12], 60, 0.5, None],
        ["instrument", [11, 2, 1, 12], 60, 0.5, None],
        ["instrument", [1, 2, 11], 60, 0.5, None],
        ["instrument", [1, 2, 11, 12], -1, 0.5, None],
        ["instrument", [1, 2, 11, 12], float("inf"), 0.5, None],
        ["instrument", [1, 2, 11, 12], 60, 1.5, None],
        ["instrument", [1, 2, 11, 12], 60, float("nan"), None],
        ["instrument", [1, 2, 11, 12], 60, 0.5, [float("nan"), 1.0]],
        ["instrument", [1, 2, 11, 12], 60, 0.5, [1.0, 1e300]],
    ],
)
def test_an_instance_outside_the_frame_is_refused(instance: list[Any]) -> None:
    with pytest.raises(DeviceError, match="expected an annotation"):
        read(GOOD | {"instances": [instance]})


def test_more_instances_than_a_message_holds_are_refused() -> None:
    with pytest.raises(DeviceError, match="at most"):
        read(GOOD | {"instances": GOOD["instances"] * (MAX_INSTANCES + 1)})


def test_an_annotation_survives_the_way() -> None:
    one = Instance("instrument", (1, 2, 11, 12), 60, 0.5, (3.5, 4.5))
    sent = Annotation(
        7, 0.5, LABELS, 2, (one, Instance("instrument", (0, 0, 30, 20), 1, 1.0)), 0.25, {"model": 2.5}
    )
    assert read(decode(encode(annotation_document(sent)))) == sent


def test_what_is_not_a_number_is_not_sent() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode({"confidence": float("nan")})
    assert json.loads(encode({"a": 1})) == {"a": 1}
