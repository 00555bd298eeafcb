"""Raw tensors at any address of a message."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trocar.inference_v2 import open_inference_pb2 as pb
from trocar.runtime.server.inference import once, wire

MOVED = once._MOVED_BYTES


def _address(data: bytes) -> int:
    return int(np.frombuffer(data, np.uint8).ctypes.data)


def _message(pad: int, *tensors: np.ndarray) -> bytes:
    """A message of the test's own: `aligned` writes to it."""
    request = pb.ModelInferRequest(model_name="m" * pad)
    request.raw_input_contents.extend(tensor.tobytes() for tensor in tensors)
    return request.SerializeToString()


@given(
    pad=st.integers(0, 20),
    dtype=st.sampled_from(["uint8", "float16", "int16", "float32", "int64", "float64"]),
    sizes=st.lists(st.sampled_from([0, 1, 7, 1000, MOVED // 2, MOVED]), min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_tensor_is_read_as_it_was_sent(pad: int, dtype: str, sizes: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    sent = [random.integers(0, 256, size * np.dtype(dtype).itemsize, np.uint8).view(dtype) for size in sizes]
    message = _message(pad, *sent)
    views = wire.split(message).raw
    for turn in (range(len(sent)), reversed(range(len(sent)))):
        if turn != range(len(sent)):  # a fresh one: the first was written to
            message = _message(pad, *sent)
            views = wire.split(message).raw
        read = {index: once.aligned(views[index], np.dtype(dtype)) for index in turn}
        for index, array in read.items():
            assert array.flags.aligned
            assert array.tobytes() == sent[index].tobytes()


@pytest.mark.parametrize("pad", range(8))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_large_one_stays_in_its_message(pad: int, dtype: str) -> None:
    sent = np.arange(MOVED, dtype=dtype)
    message = _message(pad, sent)
    (view,) = wire.split(message).raw
    before = np.frombuffer(view, np.uint8).ctypes.data
    array = once.aligned(view, np.dtype(dtype))
    shift = before % np.dtype(dtype).alignment
    inside = 0 <= array.ctypes.data - _address(message) < len(message)
    assert inside == (shift <= once._LENGTH_BYTES)
    assert not inside or array.ctypes.data == before - shift
    assert np.array_equal(array, sent)


def test_a_small_one_leaves_its_message_as_it_is() -> None:
    for pad in range(8):
        message = _message(pad, np.arange(100, dtype=np.float32))
        copy = bytes(bytearray(message))
        once.aligned(wire.split(message).raw[0], np.dtype(np.float32))
        assert message == copy
