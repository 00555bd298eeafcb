"""An unmodified tritonclient against `trocar serve`: every datatype, raw and typed."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
from tritons import (
    NUMBERS,
    TEXT,
    TYPED,
    check_kinds,
    infer,
    kinds,
    pair,
    refused,
    tensor,
    triton,
    typed,
)


def test_other_datatypes(client: Any) -> None:
    pixels = np.arange(8, dtype=np.uint8).reshape(2, 4)
    for mask in (False, True):
        inputs = [tensor("pixels", pixels, "UINT8"), tensor("mask", np.array(mask), "BOOL")]
        reply = client.infer("mixed", inputs)
        assert reply.as_numpy("wide").dtype == np.int64
        assert np.array_equal(reply.as_numpy("wide"), pixels)
        assert reply.as_numpy("inverse") == (not mask)
    image = np.random.default_rng(1).random((3, 2, 8, 8)).astype(np.float16)
    logits = client.infer("half", [tensor("image", image, "FP16")]).as_numpy("logits")
    assert (logits.dtype, logits.shape) == (np.dtype("float16"), (3, 4, 8, 8))
    assert np.any(logits != 0)


def test_text_and_numbers_of_any_size(client: Any) -> None:
    metadata = {tensor.name: tensor.datatype for tensor in client.get_model_metadata("kinds").inputs}
    assert metadata == {"text": "BYTES", **{name: datatype for name, (datatype, _) in TYPED.items()}}
    config = {tensor.name: tensor.data_type for tensor in client.get_model_config("kinds").config.input}
    assert config["text"] == 13  # TYPE_STRING
    for _ in range(3):
        check_kinds(client.infer("kinds", kinds()))


def test_typed_text_and_numbers_of_any_size(client: Any) -> None:
    tensors = [typed("text", "BYTES", [2, 2], bytes_contents=TEXT.reshape(-1).tolist())]
    for name, (datatype, place) in TYPED.items():
        tensors.append(typed(name, datatype, [2, 2], **{place: NUMBERS[name].reshape(-1).tolist()}))
    check_kinds(triton.InferResult(infer(client, "kinds", *tensors)))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "expected 4 elements for BYTES [2, 2]"),
        (b"\1\0\0\0a" * 3, "expected 4 elements"),
        (b"\1\0\0\0a" * 5, "expected 4 elements"),
        (b"\1\0\0\0a" * 3 + b"\xff\xff\xff\xff", "expected 4 elements"),
        (b"\1\0\0\0a" * 3 + b"\0\0", "expected 4 elements"),
        (b"\1\0\0\0a" * 3 + b"\1\0\0\0\xff", "expected BYTES in UTF-8"),
    ],
)
def test_text_that_is_none(client: Any, raw: bytes, said: str) -> None:
    inputs = kinds()
    inputs[0]._raw_content = raw
    code, text = refused(lambda: client.infer("kinds", inputs))
    assert code == "INVALID_ARGUMENT"
    assert said in text


def test_bfloat16(client: Any) -> None:
    """From the second request on the network is bound."""
    assert client.get_model_metadata("brain").outputs[0].datatype == "BF16"
    assert client.get_model_config("brain").config.input[0].data_type == 14  # TYPE_BF16
    for number in range(4):
        array = np.array([[number, 2.5]], np.float32)
        brain = triton.InferInput("brain", [1, 2], "BF16")
        brain.set_data_from_numpy(array.astype(triton.triton_to_np_dtype("BF16")))
        reply = client.infer("brain", [brain])
        assert reply.as_numpy("same").astype(np.float32).tolist() == array.tolist()
        assert reply.as_numpy("wide").tolist() == array.tolist()


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [
        ("FP64", np.float64),
        ("FP16", np.float16),
        ("BF16", "bfloat16"),
        ("INT8", np.int8),
        ("INT16", np.int16),
        ("INT32", np.int32),
        ("INT64", np.int64),
        ("UINT8", np.uint8),
        ("UINT16", np.uint16),
        ("UINT32", np.uint32),
        ("UINT64", np.uint64),
        ("BOOL", np.bool_),
        ("BYTES", np.object_),
    ],
)
def test_a_datatype_that_the_model_does_not_take(client: Any, datatype: str, dtype: Any) -> None:
    if datatype == "BF16":
        dtype = triton.triton_to_np_dtype("BF16")
    array = np.full((1, 2, 3), b"x", dtype) if datatype == "BYTES" else np.ones((1, 2, 3), dtype)
    inputs = [tensor("left", array, datatype), pair()[1]]
    code, text = refused(lambda: client.infer("pair", inputs))
    assert code == "INVALID_ARGUMENT"
    assert text == f"input left: expected FP32 [batch, 2, 3], got {datatype} [1, 2, 3]"


def test_typed_contents(client: Any) -> None:
    reply = infer(
        client,
        "mixed",
        typed("pixels", "UINT8", [1, 4], uint_contents=[0, 1, 254, 255]),
        typed("mask", "BOOL", [], bool_contents=[True]),
    )
    assert np.frombuffer(reply.raw_output_contents[0], np.int64).tolist() == [0, 1, 254, 255]
    assert reply.raw_output_contents[1] == b"\0"
    halves = [float(value) for value in range(6)]
    reply = infer(
        client, "pair", *(typed(side, "FP32", [1, 2, 3], fp32_contents=halves) for side in ("left", "right"))
    )
    assert np.frombuffer(reply.raw_output_contents[0], np.float32).tolist() == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize(
    ("datatype", "shape", "contents", "expected"),
    [
        ("UINT8", [1, 4], {"uint_contents": [0, 1, 2]}, "expected 4 elements for [1, 4], got 3"),
        ("UINT8", [1, 4], {"uint_contents": [0, 1, 2, 256]}, "expected elements that UINT8 holds"),
        (
            "UINT8",
            [1, 4],
            {"int_contents": [0, 1, 2, 3]},
            "expected UINT8 in uint_contents, got int_contents",
        ),
        ("UINT8", [1, 4], {"bytes_contents": [b"abcd"]}, "in uint_contents, got bytes_contents"),
    ],
)
def test_typed_contents_that_do_not_fit(
    client: Any, datatype: str, shape: list[int], contents: dict[str, Any], expected: str
) -> None:
    mask = typed("mask", "BOOL", [], bool_contents=[True])
    with pytest.raises(grpc.RpcError) as raised:
        infer(client, "mixed", typed("pixels", datatype, shape, **contents), mask)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert expected in raised.value.details()


def test_half_precision_travels_raw(client: Any) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        infer(client, "half", typed("image", "FP16", [1, 2, 8, 8], fp32_contents=[0.0] * 128))
    assert raised.value.details() == "input image: expected FP16 in raw_input_contents, got typed contents"
