"""The hand-written reading of ModelInfer against protobuf's own."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from trocar.inference_v2 import open_inference_pb2 as pb
from trocar.runtime.errors import InvalidInput
from trocar.runtime.server.inference import wire

TEXT = st.text(max_size=20)
TENSORS = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=TEXT,
    datatype=TEXT,
    shape=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
)
REQUESTS = st.builds(
    pb.ModelInferRequest,
    model_name=TEXT,
    model_version=TEXT,
    id=TEXT,
    inputs=st.lists(TENSORS, max_size=3),
    raw_input_contents=st.lists(st.binary(max_size=300), max_size=3),
)


@given(REQUESTS)
def test_a_request_comes_apart_as_protobuf_reads_it(request: pb.ModelInferRequest) -> None:
    split = wire.split(request.SerializeToString())
    assert [bytes(raw) for raw in split.raw] == list(request.raw_input_contents)
    assert split.id.decode() == request.id
    request.ClearField("raw_input_contents")
    request.ClearField("id")
    assert pb.ModelInferRequest.FromString(split.head) == request


@given(REQUESTS, REQUESTS)
def test_fields_in_any_order(first: pb.ModelInferRequest, second: pb.ModelInferRequest) -> None:
    """Two messages one after the other are one message: later text wins, lists go on."""
    message = first.SerializeToString() + second.SerializeToString()
    whole, split = pb.ModelInferRequest.FromString(message), wire.split(message)
    assert [bytes(raw) for raw in split.raw] == list(whole.raw_input_contents)
    assert split.id.decode() == whole.id
    assert list(pb.ModelInferRequest.FromString(split.head).inputs) == list(whole.inputs)


@given(st.binary(max_size=60))
def test_noise_is_refused_or_read_as_protobuf_reads_it(message: bytes) -> None:
    try:
        split = wire.split(message)
        head = pb.ModelInferRequest.FromString(split.head)
    except (InvalidInput, DecodeError):
        return
    try:
        whole = pb.ModelInferRequest.FromString(message)
    except DecodeError:
        return
    assert [bytes(raw) for raw in split.raw] == list(whole.raw_input_contents)
    assert head.model_name == whole.model_name


@given(st.integers(0, 2**64 - 1))
def test_numbers_as_protobuf_writes_them(value: int) -> None:
    assert pb.StatisticDuration(count=value).SerializeToString() == (
        b"\x08" + wire.varint(value) if value else b""
    )


@pytest.mark.parametrize(
    "message",
    [
        b"\x3a",  # a tensor, and no length
        b"\x3a\xff\xff\xff\xff\x0f",  # of 4 GB that are not there
        b"\x3a" + b"\xff" * 9 + b"\x01",  # of 2^64 - 1
        b"\x3a" + b"\xff" * 20,  # of a number without end
        b"\x3a\x05abcd",  # one byte short
        b"\x0b",  # a group
        b"\x02\x00",  # field 0
        b"\x0f",  # a kind of field that does not exist
        b"\x1a\x02\xff\xfe",  # an id that is not UTF-8
        b"\x09abc",  # eight bytes, of which three are there
    ],
)
def test_lies_are_refused(message: bytes) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        wire.split(message)


def test_bounds() -> None:
    with pytest.raises(InvalidInput, match="at most 4096 fields"):
        wire.split(b"\x3a\x00" * 4097)
    with pytest.raises(InvalidInput, match="travel raw"):
        wire.split(b"\x2a" + wire.varint(9 << 20) + bytes(9 << 20))
    assert len(wire.split(b"\x3a\x00" * 4096).raw) == 4096
    with pytest.raises(InvalidInput, match="an id of at most 1024 bytes"):
        wire.split(wire.delimited(3, 1025) + b"x" * 1025)


def test_a_reply_is_what_protobuf_would_write() -> None:
    head = pb.ModelInferResponse(model_name="pair", model_version="1")
    head.outputs.add(name="total", datatype="FP32", shape=[1, 2])
    pieces = wire.reply(head.SerializeToString(), "é".encode(), [memoryview(b"12345678"), b""])
    expected = pb.ModelInferResponse()
    expected.CopyFrom(head)
    expected.id = "é"
    expected.raw_output_contents.extend([b"12345678", b""])
    assert pb.ModelInferResponse.FromString(b"".join(pieces)) == expected
    streamed = pb.ModelStreamInferResponse.FromString(wire.in_stream(pieces))
    assert (streamed.error_message, streamed.infer_response) == ("", expected)
    assert pb.ModelStreamInferResponse.FromString(wire.stream_error("no é")).error_message == "no é"
