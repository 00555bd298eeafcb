"""Hostile requests to the Open Inference Protocol: one clear error each, and the server goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from trocar.inference_v2 import open_inference_pb2 as pb
from trocar.runtime.server.inference import wire

SERVICE = "/inference.GRPCInferenceService/"
INVALID, EXHAUSTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
ONES = np.ones((1, 2, 3), np.float32).tobytes()
Tensor = pb.ModelInferRequest.InferInputTensor


def _request(**changes: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="pair", raw_input_contents=[ONES, ONES])
    request.inputs.add(name="left", datatype="FP32", shape=[1, 2, 3])
    request.inputs.add(name="right", datatype="FP32", shape=[1, 2, 3])
    for key, value in changes.items():
        request.ClearField(key)
        request.MergeFrom(pb.ModelInferRequest(**{key: value}))
    return request


@pytest.fixture
def channel(inference_server: Any) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(inference_server.target, options=options) as channel:
        yield channel


@pytest.fixture(autouse=True)
def _alive_after(inference_server: Any, channel: grpc.Channel) -> Iterator[None]:
    yield
    assert inference_server.process.poll() is None
    reply = pb.ModelInferResponse.FromString(_call(channel, "ModelInfer", _request().SerializeToString()))
    assert np.frombuffer(reply.raw_output_contents[0], np.float32).tolist() == [2.0] * 6


def _call(channel: grpc.Channel, method: str, message: bytes) -> bytes:
    answer: bytes = channel.unary_unary(SERVICE + method)(message, timeout=30)
    return answer


def _refused(channel: grpc.Channel, method: str, message: bytes) -> tuple[grpc.StatusCode, str]:
    start = time.monotonic()
    with pytest.raises(grpc.RpcError) as raised:
        _call(channel, method, message)
    assert time.monotonic() - start < 10
    details = raised.value.details()
    assert "\n" not in details
    assert len(details) <= 1000
    return raised.value.code(), details


def _named(name: str, *, shape: tuple[int, ...] = (1, 2, 3), datatype: str = "FP32") -> list[Tensor]:
    return [
        Tensor(name=name, datatype=datatype, shape=shape),
        Tensor(name="right", datatype="FP32", shape=[1, 2, 3]),
    ]


REQUESTS = {
    "nothing": (pb.ModelInferRequest(), "got ''"),
    "a path for a model": (_request(model_name="../../etc/passwd"), "got '../../etc/passwd'"),
    "a huge name": (_request(model_name="x" * 100_000), "got 'xxx"),
    "no inputs": (_request(inputs=[]), "expected inputs left, right, got none"),
    "10000 inputs": (
        _request(inputs=[Tensor(name=f"t{number}") for number in range(10_000)]),
        "at most 4096 fields",
    ),
    "4000 inputs": (
        _request(inputs=[Tensor(name=f"t{number}") for number in range(4_000)]),
        "expected inputs left, right, got t0, t1",
    ),
    "one input twice": (_request(inputs=_named("right")), "expected inputs left, right, got right, right"),
    "10000 tensors": (_request(raw_input_contents=[b""] * 10_000), "at most 4096 fields"),
    "4000 tensors": (_request(raw_input_contents=[b""] * 4_000), "expected 2 raw_input_contents"),
    "no tensors": (_request(raw_input_contents=[]), "expected 2 raw_input_contents"),
    "a byte short": (
        _request(raw_input_contents=[ONES[:-1], ONES]),
        "input left: expected 24 bytes in raw_input_contents for float32 [1, 2, 3], got 23",
    ),
    "a byte long": (_request(raw_input_contents=[ONES, ONES + b"x"]), "input right: expected 24 bytes"),
    "a shape of 2^63": (
        _request(inputs=_named("left", shape=(2**63 - 1, 2, 3))),
        "expected 221360928884514619368 bytes",
    ),
    "a batch of 0": (_request(inputs=_named("left", shape=(0, 2, 3))), "got FP32 [0, 2, 3]"),
    "a batch of -1": (_request(inputs=_named("left", shape=(-1, 2, 3))), "got FP32 [-1, 2, 3]"),
    "no shape": (_request(inputs=_named("left", shape=())), "got FP32 []"),
    "a million axes": (_request(inputs=_named("left", shape=(1,) * 1_000_000)), "1, 1, ...]"),
    "no datatype": (_request(inputs=_named("left", datatype="")), "expected a datatype of BOOL"),
    "a made-up datatype": (_request(inputs=_named("left", datatype="FP31" * 1000)), "got 'FP31"),
    "text": (_request(inputs=_named("left", datatype="BYTES")), "got BYTES [1, 2, 3]"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_requests(channel: grpc.Channel, name: str) -> None:
    request, expected = REQUESTS[name]
    code, details = _refused(channel, "ModelInfer", request.SerializeToString())
    assert code in (INVALID, grpc.StatusCode.NOT_FOUND)
    assert expected in details


@pytest.mark.parametrize(
    "method",
    ["ModelInfer", "ModelReady", "ModelMetadata", "RepositoryModelLoad", "SystemSharedMemoryRegister"],
)
def test_garbage(channel: grpc.Channel, method: str) -> None:
    for message in (b"\xff" * 64, b"\x0a\xff\xff\xff\xff\x07x", b"\x0a\x02\xff\xfe", os.urandom(4096)):
        code, details = _refused(channel, method, message)
        assert code in (INVALID, grpc.StatusCode.NOT_FOUND)
        assert "expected" in details


def test_every_byte_of_a_good_request_changed_or_cut(channel: grpc.Channel) -> None:
    """Each is answered, or refused as the caller's mistake."""
    good = _request(id="7").SerializeToString()
    infer = channel.unary_unary(SERVICE + "ModelInfer")
    for place in range(len(good)):
        changed = bytearray(good)
        changed[place] ^= 0xFF
        for message in (bytes(changed), good[:place]):
            code = infer.future(message, timeout=20).code()
            assert code in (grpc.StatusCode.OK, INVALID, grpc.StatusCode.NOT_FOUND), message


def test_bool_bytes_that_are_no_bools(channel: grpc.Channel) -> None:
    request = pb.ModelInferRequest(model_name="mixed", raw_input_contents=[bytes(4), b"\2"])
    request.inputs.add(name="pixels", datatype="UINT8", shape=[1, 4])
    request.inputs.add(name="mask", datatype="BOOL")
    code, details = _refused(channel, "ModelInfer", request.SerializeToString())
    assert (code, details) == (INVALID, "input mask: expected BOOL as bytes of 0 and 1, got others")


def test_oversize(channel: grpc.Channel) -> None:
    huge = _request(raw_input_contents=[bytes(65 << 20), ONES]).SerializeToString()
    assert _refused(channel, "ModelInfer", huge)[0] is EXHAUSTED
    typed = b"\x2a" + wire.varint(9 << 20) + bytes(9 << 20)
    assert "large tensors travel raw" in _refused(channel, "ModelInfer", typed)[1]
    fat = pb.ModelReadyRequest(name="x" * (2 << 20)).SerializeToString()
    assert "expected ModelReadyRequest of at most" in _refused(channel, "ModelReady", fat)[1]


def test_a_field_for_every_two_bytes_takes_no_time(channel: grpc.Channel) -> None:
    start = time.monotonic()
    code, details = _refused(channel, "ModelInfer", b"\x3a\x00" * (16 << 20))
    assert (code, "at most 4096 fields" in details) == (INVALID, True)
    assert time.monotonic() - start < 5


def test_garbage_in_a_stream_is_answered_in_the_stream(channel: grpc.Channel) -> None:
    good = _request().SerializeToString()
    messages = [b"\xff" * 9, good, b"", good]
    answers = channel.stream_stream(SERVICE + "ModelStreamInfer")(iter(messages), timeout=30)
    read = [pb.ModelStreamInferResponse.FromString(answer) for answer in answers]
    assert [bool(answer.error_message) for answer in read] == [True, False, True, False]
    assert len(read[3].infer_response.raw_output_contents[0]) == 24


def test_clients_that_vanish(inference_server: Any) -> None:
    """Killed with a stream open and requests under way, more often than the server has streams."""
    script = """
import sys, threading, grpc
channel = grpc.insecure_channel(sys.argv[1])
message = bytes.fromhex(sys.argv[2])
hold = threading.Event()
def messages():
    yield message
    hold.wait()
stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(messages())
next(stream)
infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
calls = [infer.future(message) for _ in range(20)]
print("ready", flush=True)
hold.wait()
"""
    message = _request().SerializeToString().hex()
    for _ in range(2):
        command = [sys.executable, "-c", script, inference_server.target, message]
        clients = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(3)
        ]
        for client in clients:
            assert client.stdout is not None
            client.stdout.readline()
            client.kill()
            client.wait()
            client.stdout.close()
        time.sleep(0.3)


def test_shared_memory_of_the_servers_own_cannot_be_had(channel: grpc.Channel, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    place = Path("/dev/shm") / f"trocar_hostile_{os.getpid()}"
    place.symlink_to(tmp_path / "secret")
    try:
        for key in (f"/{place.name}", f"/../..{tmp_path}/secret", str(tmp_path / "secret"), "/proc/self/mem"):
            request = pb.SystemSharedMemoryRegisterRequest(name="r", key=key, byte_size=16)
            assert _refused(channel, "SystemSharedMemoryRegister", request.SerializeToString())[0] is INVALID
    finally:
        place.unlink()


def test_nothing_of_all_this_was_an_internal_error(inference_server: Any) -> None:
    log = inference_server.log.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") - 200 :][:6000]
