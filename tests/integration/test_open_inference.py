"""An unmodified tritonclient against `trocar serve`: every RPC that it has."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from trocar.runtime.errors import TrocarError
from trocar.runtime.repository.store import Repository
from trocar.runtime.session.cuda import Gpu, find_gpu

triton = pytest.importorskip(
    "tritonclient.grpc", reason="tritonclient is not installed", exc_type=ImportError
)
shared = pytest.importorskip("tritonclient.utils.shared_memory", exc_type=ImportError)
from tritonclient.utils import InferenceServerException  # noqa: E402

FLOATS = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
PREFIX = f"trocar_oip_{os.getpid()}_"


@pytest.fixture
def client(inference_server: Any) -> Iterator[Any]:
    with triton.InferenceServerClient(inference_server.target) as client:
        yield client


def _input(name: str, array: np.ndarray, datatype: str) -> Any:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def _pair(left: np.ndarray = FLOATS, right: np.ndarray = FLOATS) -> list[Any]:
    return [_input("left", left, "FP32"), _input("right", right, "FP32")]


def _refused(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as raised:
        call()
    assert "\n" not in raised.value.message()
    return raised.value.status().removeprefix("StatusCode."), raised.value.message()


def _text(call: Callable[[], Any]) -> str:
    """Why a call was refused; empty where it was not."""
    try:
        call()
    except InferenceServerException as error:
        return str(error.message())
    return ""


def test_server(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready() is False  # one model of the repository is none; see below
    told = client.get_server_metadata()
    assert told.name == "trocar"
    assert told.version
    assert "system_shared_memory" in told.extensions


def test_a_healthy_repository_is_ready(start_server: Any) -> None:
    server = start_server()
    with triton.InferenceServerClient(server.target) as client:
        assert client.is_server_ready()
        assert client.is_model_ready("tpgan")


def test_models(client: Any) -> None:
    assert client.is_model_ready("pair")
    assert client.is_model_ready("pair", "1")
    assert not client.is_model_ready("pair", "2")
    assert not client.is_model_ready("nobody")
    told = client.get_model_metadata("mixed")
    assert (told.name, list(told.versions), told.platform) == ("mixed", ["1"], "onnxruntime_onnx")
    tensors = [(each.name, each.datatype, list(each.shape)) for each in (*told.inputs, *told.outputs)]
    assert tensors == [
        ("pixels", "UINT8", [-1, 4]),
        ("mask", "BOOL", []),
        ("wide", "INT64", [-1, 4]),
        ("inverse", "BOOL", []),
    ]
    config = client.get_model_config("half", as_json=True)["config"]
    assert (config["name"], config["backend"], config.get("max_batch_size", 0)) == ("half", "onnxruntime", 0)
    assert config["input"] == [{"name": "image", "data_type": "TYPE_FP16", "dims": ["-1", "2", "8", "8"]}]
    assert _refused(lambda: client.get_model_config("nobody")) == (
        "NOT_FOUND",
        "expected a model of brain, broken_graph, broken_run, half, kinds, mixed, pair, turns, got 'nobody'",
    )
    assert _refused(lambda: client.get_model_metadata("pair", "7")) == (
        "NOT_FOUND",
        "expected version 1 of 'pair', which is loaded, got '7'",
    )


def test_infer(client: Any) -> None:
    reply = client.infer("pair", _pair(FLOATS, FLOATS + 1), request_id="4711", model_version="1")
    assert np.array_equal(reply.as_numpy("total"), 2 * FLOATS + 1)
    assert np.array_equal(reply.as_numpy("difference"), np.full_like(FLOATS, -1))
    told = reply.get_response()
    assert (told.id, told.model_name, told.model_version) == ("4711", "pair", "1")
    assert client.infer("pair", _pair()).get_response().id == ""


def test_any_batch_and_any_order_of_inputs(client: Any) -> None:
    for batch in (1, 2, 3, 17):
        left = np.random.default_rng(batch).random((batch, 2, 3), dtype=np.float32)
        reply = client.infer("pair", _pair(left, left / 2)[::-1])
        assert np.array_equal(reply.as_numpy("difference"), left - left / 2)


def test_outputs_that_are_asked_for(client: Any) -> None:
    outputs = [triton.InferRequestedOutput(name) for name in ("difference", "total")]
    reply = client.infer("pair", _pair(), outputs=outputs)
    assert [output.name for output in reply.get_response().outputs] == ["difference", "total"]
    assert np.array_equal(reply.as_numpy("total"), 2 * FLOATS)
    reply = client.infer("pair", _pair(), outputs=outputs[:1])
    assert [output.name for output in reply.get_response().outputs] == ["difference"]
    for wrong in ([triton.InferRequestedOutput("sum")], [outputs[0], outputs[0]]):
        code, text = _refused(lambda wrong=wrong: client.infer("pair", _pair(), outputs=wrong))
        assert code == "INVALID_ARGUMENT"
        assert text.startswith("expected outputs of total, difference, each once, got ")
    classes = [triton.InferRequestedOutput("total", class_count=2)]
    code, text = _refused(lambda: client.infer("pair", _pair(), outputs=classes))
    assert (code, "got 'classification'" in text) == ("UNIMPLEMENTED", True)


def test_other_datatypes(client: Any) -> None:
    pixels = np.arange(8, dtype=np.uint8).reshape(2, 4)
    for mask in (False, True):
        inputs = [_input("pixels", pixels, "UINT8"), _input("mask", np.array(mask), "BOOL")]
        reply = client.infer("mixed", inputs)
        assert reply.as_numpy("wide").dtype == np.int64
        assert np.array_equal(reply.as_numpy("wide"), pixels)
        assert reply.as_numpy("inverse") == (not mask)
    image = np.random.default_rng(1).random((3, 2, 8, 8)).astype(np.float16)
    logits = client.infer("half", [_input("image", image, "FP16")]).as_numpy("logits")
    assert (logits.dtype, logits.shape) == (np.dtype("float16"), (3, 4, 8, 8))
    assert np.any(logits != 0)


_TEXT = np.array([[b"", "naïve\0".encode()], [b"x" * 300, b"b"]], object)
_NUMBERS = {
    "bool": np.array([[True, False], [False, True]]),
    "float32": np.array([[-0.0, np.inf], [1e-45, 3.4e38]], np.float32),
    "float64": np.array([[-0.0, -np.inf], [5e-324, 1.7e308]], np.float64),
    **{
        name: np.array([[np.iinfo(name).min, np.iinfo(name).max], [0, 1]], name)
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
}
# The protocol's name of each, and where typed elements of it stand.
_TYPED = {
    "bool": ("BOOL", "bool_contents"),
    "float32": ("FP32", "fp32_contents"),
    "float64": ("FP64", "fp64_contents"),
    "int8": ("INT8", "int_contents"),
    "int16": ("INT16", "int_contents"),
    "int32": ("INT32", "int_contents"),
    "int64": ("INT64", "int64_contents"),
    "uint8": ("UINT8", "uint_contents"),
    "uint16": ("UINT16", "uint_contents"),
    "uint32": ("UINT32", "uint_contents"),
    "uint64": ("UINT64", "uint64_contents"),
}


def _kinds() -> list[Any]:
    numbers = [_input(name, array, _TYPED[name][0]) for name, array in _NUMBERS.items()]
    return [_input("text", _TEXT, "BYTES"), *numbers]


def _check_kinds(reply: Any) -> None:
    for name, array in _NUMBERS.items():
        found = reply.as_numpy(f"{name}_out")
        assert (found.dtype, found.tobytes()) == (array.dtype, array.tobytes())
    assert reply.as_numpy("text_out").tolist() == _TEXT.tolist()


def test_text_and_numbers_of_any_size(client: Any) -> None:
    metadata = {tensor.name: tensor.datatype for tensor in client.get_model_metadata("kinds").inputs}
    assert metadata == {"text": "BYTES", **{name: datatype for name, (datatype, _) in _TYPED.items()}}
    config = {tensor.name: tensor.data_type for tensor in client.get_model_config("kinds").config.input}
    assert config["text"] == 13  # TYPE_STRING
    for _ in range(3):
        _check_kinds(client.infer("kinds", _kinds()))


def test_typed_text_and_numbers_of_any_size(client: Any) -> None:
    tensors = [_typed("text", "BYTES", [2, 2], bytes_contents=_TEXT.reshape(-1).tolist())]
    for name, (datatype, place) in _TYPED.items():
        tensors.append(_typed(name, datatype, [2, 2], **{place: _NUMBERS[name].reshape(-1).tolist()}))
    _check_kinds(triton.InferResult(_infer(client, "kinds", *tensors)))


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
    inputs = _kinds()
    inputs[0]._raw_content = raw
    code, text = _refused(lambda: client.infer("kinds", inputs))
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


def test_requests_that_repeat(client: Any) -> None:
    """The network stays bound to buffers: no answer may be another's."""
    for number in range(6):
        left = FLOATS[: 1 + number % 2] * number
        name = "" if number < 3 else f"request-{number}"
        reply = client.infer("pair", _pair(left, left + 1), request_id=name)
        assert np.array_equal(reply.as_numpy("total"), 2 * left + 1)
        assert np.array_equal(reply.as_numpy("difference"), np.full_like(left, -1))
        assert reply.get_response().id == name
    asked: SimpleQueue[Any] = SimpleQueue()
    for number in range(40):
        left = FLOATS + number
        client.async_infer(
            "pair",
            _pair(left, left),
            lambda result, error: asked.put((result, error)),
            request_id=str(number),
        )
    seen = set()
    for _ in range(40):
        result, error = asked.get(timeout=30)
        if error is not None:  # more than may wait
            assert "RESOURCE_EXHAUSTED" in str(error.status())
            continue
        number = int(result.get_response().id)
        assert np.array_equal(result.as_numpy("total"), 2 * (FLOATS + number))
        seen.add(number)
    assert seen


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
    inputs = [_input("left", array, datatype), _pair()[1]]
    code, text = _refused(lambda: client.infer("pair", inputs))
    assert code == "INVALID_ARGUMENT"
    assert text == f"input left: expected FP32 [batch, 2, 3], got {datatype} [1, 2, 3]"


def test_shapes_and_names(client: Any) -> None:
    wide = np.zeros((1, 2, 4), np.float32)
    assert _refused(lambda: client.infer("pair", _pair(wide))) == (
        "INVALID_ARGUMENT",
        "input left: expected FP32 [batch, 2, 3], got FP32 [1, 2, 4]",
    )
    code, text = _refused(lambda: client.infer("pair", _pair(FLOATS, FLOATS[:1])))
    assert code == "INVALID_ARGUMENT"
    assert "expected batch = 2 as in left" in text
    assert _refused(lambda: client.infer("pair", _pair()[:1]))[1] == "expected inputs left, right, got left"
    renamed = [*_pair()[:1], _input("wrong", FLOATS, "FP32")]
    assert (
        _refused(lambda: client.infer("pair", renamed))[1] == "expected inputs left, right, got left, wrong"
    )
    assert _refused(lambda: client.infer("nobody", _pair()))[0] == "NOT_FOUND"


def _typed(name: str, datatype: str, shape: list[int], **contents: Any) -> Any:
    from tritonclient.grpc import service_pb2

    tensor = service_pb2.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    return tensor


def _infer(client: Any, model: str, *tensors: Any) -> Any:
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name=model, inputs=tensors)
    return client._client_stub.ModelInfer(request, timeout=20)


def test_typed_contents(client: Any) -> None:
    reply = _infer(
        client,
        "mixed",
        _typed("pixels", "UINT8", [1, 4], uint_contents=[0, 1, 254, 255]),
        _typed("mask", "BOOL", [], bool_contents=[True]),
    )
    assert np.frombuffer(reply.raw_output_contents[0], np.int64).tolist() == [0, 1, 254, 255]
    assert reply.raw_output_contents[1] == b"\0"
    halves = [float(value) for value in range(6)]
    reply = _infer(
        client, "pair", *(_typed(side, "FP32", [1, 2, 3], fp32_contents=halves) for side in ("left", "right"))
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
    mask = _typed("mask", "BOOL", [], bool_contents=[True])
    with pytest.raises(grpc.RpcError) as raised:
        _infer(client, "mixed", _typed("pixels", datatype, shape, **contents), mask)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert expected in raised.value.details()


def test_half_precision_travels_raw(client: Any) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        _infer(client, "half", _typed("image", "FP16", [1, 2, 8, 8], fp32_contents=[0.0] * 128))
    assert raised.value.details() == "input image: expected FP16 in raw_input_contents, got typed contents"


def test_priorities_sequences_and_parameters_are_refused_by_name(client: Any) -> None:
    for priority in range(4):
        assert client.infer("pair", _pair(), priority=priority)
    for name, changes, expected in (
        ("priority", {"priority": 4}, "INVALID_ARGUMENT"),
        ("sequence_", {"sequence_id": 7, "sequence_start": True}, "UNIMPLEMENTED"),
        ("colour", {"parameters": {"colour": "red"}}, "INVALID_ARGUMENT"),
    ):
        code, text = _refused(lambda changes=changes: client.infer("pair", _pair(), **changes))
        assert (code, name in text) == (expected, True)


def test_timeouts(client: Any) -> None:
    assert client.infer("pair", _pair(), timeout=5_000_000)
    assert _refused(lambda: client.infer("pair", _pair(), timeout=-1))[1].startswith("parameter timeout: ")


def test_asynchronous_calls_and_compression(client: Any) -> None:
    answers: SimpleQueue[Any] = SimpleQueue()
    for _ in range(8):
        client.async_infer("pair", _pair(), callback=lambda result, error: answers.put((result, error)))
    for _ in range(8):
        _, error = answers.get(timeout=20)
        assert error is None or "try again later" in str(error)
    for algorithm in ("gzip", "deflate"):
        reply = client.infer("pair", _pair(), compression_algorithm=algorithm)
        assert np.array_equal(reply.as_numpy("total"), 2 * FLOATS)


def test_a_stream(client: Any) -> None:
    """In order; a refused request is an answer of its own and does not end it."""
    answers: SimpleQueue[Any] = SimpleQueue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(5):
        inputs = _pair()[: 1 if number == 2 else 2]
        client.async_stream_infer("pair", inputs, request_id=str(number))
    for number in range(5):
        result, error = answers.get(timeout=20)
        if number == 2:
            assert "expected inputs left, right, got left" in str(error)
        else:
            assert (error, result.get_response().id) == (None, str(number))
            assert np.array_equal(result.as_numpy("total"), 2 * FLOATS)
    client.stop_stream()


def test_a_stream_says_that_an_answer_is_the_last_where_it_is_asked(client: Any) -> None:
    answers: SimpleQueue[Any] = SimpleQueue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for final in (True, False, True):
        client.async_stream_infer("pair", _pair(), enable_empty_final_response=final)
    for final in (True, False, True):
        result, error = answers.get(timeout=20)
        assert error is None
        said = result.get_response().parameters
        assert [(key, value.bool_param) for key, value in said.items()] == [
            ("triton_final_response", True)
        ] * final
        assert np.array_equal(result.as_numpy("total"), 2 * FLOATS)
    client.stop_stream()


@pytest.fixture
def own_server(start_server: Any, inference_repository: Path) -> Any:
    return start_server(config=f'[server]\nservices = "inference"\nrepository = "{inference_repository}"\n')


def test_more_streams_than_there_are_threads_for(own_server: Any) -> None:
    clients = [triton.InferenceServerClient(own_server.target) for _ in range(5)]
    answers: SimpleQueue[Any] = SimpleQueue()
    for client in clients:
        client.start_stream(lambda result, error: answers.put((result, error)))
        _text(lambda client=client: client.async_stream_infer("pair", _pair()))  # it may be refused by now
    errors = [answers.get(timeout=20)[1] for _ in clients]
    assert [error is None for error in errors].count(False) == 1
    assert "expected at most 4 open streams" in str(next(filter(None, errors)))
    for client in clients:
        client.stop_stream()
        client.close()


def test_an_idle_stream_does_not_hold_up_the_end(own_server: Any) -> None:
    answers: SimpleQueue[Any] = SimpleQueue()
    with triton.InferenceServerClient(own_server.target) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("pair", _pair())
        assert answers.get(timeout=20)[1] is None
        start = time.monotonic()
        assert own_server.stop(signal.SIGTERM) == 0
        assert time.monotonic() - start < 10
        assert answers.get(timeout=20)[1] is not None


def test_the_repository(client: Any) -> None:
    def states() -> dict[str, tuple[str, str]]:
        index = client.get_model_repository_index(as_json=True)["models"]
        return {row["name"]: (row["state"], row.get("reason", "")) for row in index}

    assert states()["half"] == ("READY", "")
    client.unload_model("half")
    assert states()["half"] == ("UNAVAILABLE", "unloaded")
    assert not client.is_model_ready("half")
    image = _input("image", np.zeros((1, 2, 8, 8), np.float16), "FP16")
    assert _refused(lambda: client.infer("half", [image])) == (
        "UNAVAILABLE",
        "model 'half' is not loaded: unloaded",
    )
    client.load_model("half")
    assert client.infer("half", [image]).as_numpy("logits").shape == (1, 4, 8, 8)
    client.load_model("half")  # again, in place of itself
    assert client.is_model_ready("half")
    assert _refused(lambda: client.load_model("nobody"))[0] == "NOT_FOUND"
    assert _refused(lambda: client.unload_model("nobody"))[0] == "NOT_FOUND"
    assert _refused(lambda: client.load_model("../etc"))[0] == "INVALID_ARGUMENT"
    code, text = _refused(lambda: client.load_model("half", config='{"backend": "python"}'))
    assert (code, "expected no parameter 'config'" in text) == ("UNIMPLEMENTED", True)
    state, reason = states()["broken_graph"]
    assert state == "UNAVAILABLE"
    assert "expected an ONNX model" in reason


def test_statistics(client: Any) -> None:
    def told() -> Any:
        return client.get_inference_statistics("pair", "1").model_stats[0]

    before = told()
    client.infer("pair", _pair())
    _refused(lambda: client.infer("pair", _pair(FLOATS, FLOATS[:1])))
    after = told()
    assert after.inference_count - before.inference_count == 1
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1
    assert after.inference_stats.fail.count - before.inference_stats.fail.count == 1
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert abs(after.last_inference / 1000 - time.time()) < 60
    assert {"pair", "mixed"} <= {each.name for each in client.get_inference_statistics().model_stats}


def test_a_model_that_fails_when_it_runs(client: Any) -> None:
    left = [_input("left", FLOATS, "FP32")]
    code, text = _refused(lambda: client.infer("broken_run", left))
    assert code == "INTERNAL"
    assert "ONNX Runtime failed" in text


class _Region:
    def __init__(self, client: Any, name: str, size: int) -> None:
        self.client, self.name, self.key, self.size = client, PREFIX + name, f"/{PREFIX}{name}", size

    def __enter__(self) -> Any:
        self.handle = shared.create_shared_memory_region(self.name, self.key, self.size)
        return self

    def __exit__(self, *_: object) -> None:
        for region in self.client.get_system_shared_memory_status().regions:
            if region == self.name:
                self.client.unregister_system_shared_memory(self.name)
        shared.destroy_shared_memory_region(self.handle)

    def register(self) -> _Region:
        self.client.register_system_shared_memory(self.name, self.key, self.size)
        return self


def _shared_pair(region: Any) -> list[Any]:
    size = FLOATS.nbytes
    shared.set_shared_memory_region(region.handle, [FLOATS, FLOATS + 1])
    inputs = []
    for number, name in enumerate(("left", "right")):
        tensor = triton.InferInput(name, list(FLOATS.shape), "FP32")
        tensor.set_shared_memory(region.name, size, offset=number * size)
        inputs.append(tensor)
    return inputs


def _shared_outputs(region: Any, size: int = FLOATS.nbytes, start: int = 2) -> list[Any]:
    outputs = []
    for number, name in enumerate(("total", "difference")):
        output = triton.InferRequestedOutput(name)
        output.set_shared_memory(region.name, size, offset=(start + number) * FLOATS.nbytes)
        outputs.append(output)
    return outputs


def test_shared_memory(client: Any) -> None:
    size = FLOATS.nbytes
    with _Region(client, "a", 4 * size) as region:
        region.register()
        told = client.get_system_shared_memory_status(region.name).regions[region.name]
        assert (told.name, told.key, told.offset, told.byte_size) == (region.name, region.key, 0, 4 * size)
        for _ in range(3):
            reply = client.infer("pair", _shared_pair(region), outputs=_shared_outputs(region))
            assert [len(raw) for raw in reply.get_response().raw_output_contents] == [0, 0]
            parameters = reply.get_output("difference").parameters
            assert parameters["shared_memory_region"].string_param == region.name
            assert parameters["shared_memory_byte_size"].int64_param == size
            assert parameters["shared_memory_offset"].int64_param == 3 * size
            found = shared.get_contents_as_numpy(
                region.handle, np.float32, [2, *FLOATS.shape], offset=2 * size
            )
            assert np.array_equal(found[0], 2 * FLOATS + 1)
            assert np.array_equal(found[1], np.full_like(FLOATS, -1))
            found[:] = 0
        # One from memory and one from the request; one there and one in the reply.
        inputs = [_shared_pair(region)[0], _pair()[1]]
        outputs = [*_shared_outputs(region)[:1], triton.InferRequestedOutput("difference")]
        reply = client.infer("pair", inputs, outputs=outputs)
        assert np.array_equal(reply.as_numpy("difference"), np.zeros_like(FLOATS))
        found = shared.get_contents_as_numpy(region.handle, np.float32, list(FLOATS.shape), offset=2 * size)
        assert np.array_equal(found, 2 * FLOATS)
        client.unregister_system_shared_memory(region.name)
        code, text = _refused(lambda: client.infer("pair", _shared_pair(region)))
        assert (code, "expected a registered region of" in text) == ("INVALID_ARGUMENT", True)


def test_text_in_shared_memory(client: Any) -> None:
    with _Region(client, "text", 4096) as region:
        region.register()
        inputs = _kinds()
        raw = inputs[0]._get_content()
        shared.set_shared_memory_region(region.handle, [np.array(raw, object)])
        inputs[0].set_shared_memory(region.name, len(raw))
        output = triton.InferRequestedOutput("text_out")
        output.set_shared_memory(region.name, 2048, offset=2048)
        for _ in range(2):
            client.infer("kinds", inputs, outputs=[output])
            found = shared.get_contents_as_numpy(region.handle, np.object_, [2, 2], offset=2048)
            assert found.tolist() == _TEXT.tolist()
        output.set_shared_memory(region.name, len(raw) - 1, offset=2048)
        _, text = _refused(lambda: client.infer("kinds", inputs, outputs=[output]))
        assert text.endswith(f"expected {len(raw)} bytes of shared memory or more, got {len(raw) - 1}")


def test_a_region_that_takes_anothers_name(client: Any) -> None:
    """What was bound to the first must not read or write it any more."""
    size = FLOATS.nbytes
    for value in (1, 2):
        with _Region(client, "again", 4 * size) as region:
            region.register()
            for number in range(3):
                inputs = _shared_pair(region)
                shared.set_shared_memory_region(region.handle, [FLOATS * value, FLOATS * number])
                client.infer("pair", inputs, outputs=_shared_outputs(region))
                found = shared.get_contents_as_numpy(
                    region.handle, np.float32, list(FLOATS.shape), offset=2 * size
                )
                assert np.array_equal(found, FLOATS * (value + number))


def test_an_output_whose_shape_only_the_run_tells(client: Any) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    with _Region(client, "m", 256) as region:
        region.register()
        wide = triton.InferRequestedOutput("wide")
        wide.set_shared_memory(region.name, 200)
        inputs = [_input("pixels", pixels, "UINT8"), _input("mask", np.array(True), "BOOL")]
        reply = client.infer("mixed", inputs, outputs=[wide])
        assert reply.get_output("wide").parameters["shared_memory_byte_size"].int64_param == 96
        assert np.array_equal(shared.get_contents_as_numpy(region.handle, np.int64, [3, 4]), pixels)
        wide.set_shared_memory(region.name, 95)
        _, text = _refused(lambda: client.infer("mixed", inputs, outputs=[wide]))
        assert text == "output wide: expected 96 bytes of shared memory or more for int64 [3, 4], got 95"


def test_shared_memory_that_does_not_fit(client: Any) -> None:
    size = FLOATS.nbytes
    with _Region(client, "b", 4 * size) as region:
        _, text = _refused(
            lambda: client.register_system_shared_memory(region.name, region.key, 4 * size + 1)
        )
        assert f"got an object of {4 * size}" in text
        region.register()
        assert "registered already" in _refused(region.register)[1]
        inputs = _shared_pair(region)
        inputs[0].set_shared_memory(region.name, size - 4)
        _, text = _refused(lambda: client.infer("pair", inputs))
        assert f"input left: expected {size} bytes of shared memory" in text
        inputs[0].set_shared_memory(region.name, size, offset=3 * size + 4)
        assert "expected bytes within" in _refused(lambda: client.infer("pair", inputs))[1]
        overlapping = _shared_outputs(region)
        overlapping[1].set_shared_memory(region.name, size, offset=2 * size + 4)
        _, text = _refused(lambda: client.infer("pair", _shared_pair(region), outputs=overlapping))
        assert text == "output difference: expected memory of its own, got some of output total"
        for key in ("/../etc/passwd", "/a/b", "", "/etc", "/" + "x" * 300):
            code, _ = _refused(lambda key=key: client.register_system_shared_memory("x", key, 16))
            assert code == "INVALID_ARGUMENT"


def test_memory_that_shrinks_costs_its_request_alone(client: Any, inference_server: Any) -> None:
    with _Region(client, "c", 1 << 20) as region:
        region.register()
        place = Path("/dev/shm") / region.name
        stop = threading.Event()

        def saw() -> None:
            while not stop.is_set():
                os.truncate(place, 0)
                os.truncate(place, 1 << 20)

        thread = threading.Thread(target=saw)
        thread.start()
        try:
            batch = 8000
            tensors = []
            for number, name in enumerate(("left", "right")):
                tensor = triton.InferInput(name, [batch, 2, 3], "FP32")
                tensor.set_shared_memory(region.name, batch * 24, offset=number * batch * 24)
                tensors.append(tensor)
            for _ in range(150):
                text = _text(lambda: client.infer("pair", tensors))
                if text:
                    assert "as registered, got" in text or "registered region" in text
                    if region.name not in client.get_system_shared_memory_status().regions:
                        _text(region.register)  # unless it is short just then
        finally:
            stop.set()
            thread.join()
        assert inference_server.process.poll() is None
    assert np.array_equal(client.infer("pair", _pair()).as_numpy("total"), 2 * FLOATS)


def test_what_is_unsupported_says_so_by_name(client: Any) -> None:
    calls = {"TraceSetting": client.get_trace_settings, "LogSettings": client.get_log_settings}
    for name, call in calls.items():
        assert _refused(call) == ("UNIMPLEMENTED", f"{name} is not supported by this server")
    assert _refused(lambda: client.update_trace_settings(settings={}))[0] == "UNIMPLEMENTED"
    assert _refused(lambda: client.update_log_settings({}))[0] == "UNIMPLEMENTED"


def test_without_a_gpu_its_memory_is_unsupported(client: Any) -> None:
    why = find_gpu()
    if isinstance(why, Gpu):
        pytest.skip(f"there is a GPU: {why.name}")
    calls = {
        "CudaSharedMemoryStatus": client.get_cuda_shared_memory_status,
        "CudaSharedMemoryRegister": lambda: client.register_cuda_shared_memory("x", b"aGFuZGxl", 0, 16),
        "CudaSharedMemoryUnregister": lambda: client.unregister_cuda_shared_memory("x"),
    }
    for name, call in calls.items():
        assert _refused(call) == ("UNIMPLEMENTED", f"{name} needs a GPU; {why}")
    assert "cuda_shared_memory" not in client.get_server_metadata().extensions


def test_reflection_describes_it(start_server: Any) -> None:
    import grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    config = (
        '[server]\nreflection = true\nservices = "inference"\n[services.inference]\nload_at_start = false\n'
    )
    with grpc.insecure_channel(start_server(config=config).target) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asks = [
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
            for symbol in ("inference.GRPCInferenceService", "grpc.health.v1.Health", "inference.Nobody")
        ]
        answers = list(stub.ServerReflectionInfo(iter(asks), timeout=20))
    assert b"ModelStreamInfer" in answers[0].file_descriptor_response.file_descriptor_proto[0]
    assert answers[1].file_descriptor_response.file_descriptor_proto
    assert answers[2].error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_health_of_the_service_is_what_server_ready_says(
    start_server: Any, own_server: Any, inference_repository: Path, tmp_path: Path
) -> None:
    """Of the server it is not: it lives, whatever its models do."""
    sound = tmp_path / "sound"
    for name in ("pair", "half"):
        shutil.copytree(inference_repository / name, sound / name)
    healthy = start_server(config=f'[server]\nservices = "inference"\nrepository = "{sound}"\n')
    for server, works in ((own_server, False), (healthy, True)):
        with (
            grpc.insecure_channel(server.target) as channel,
            triton.InferenceServerClient(server.target) as asked,
        ):
            health = health_pb2_grpc.HealthStub(channel)
            said = {
                service: health.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status
                for service in ("", "inference.GRPCInferenceService")
            }
            assert said == {"": 1, "inference.GRPCInferenceService": 1 if works else 2}
            assert asked.is_server_ready() is works
            watch = health.Watch(
                health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService"), timeout=60
            )
            assert next(watch).status == (1 if works else 2)
            if works:
                asked.unload_model("half")
                (sound / "half" / "1" / "card.md").write_text("another")
                _refused(lambda asked=asked: asked.load_model("half"))
                assert next(watch).status == 2
                (sound / "half" / "1" / "card.md").write_bytes(
                    (inference_repository / "half" / "1" / "card.md").read_bytes()
                )
                asked.load_model("half")
                assert next(watch).status == 1
            watch.cancel()


def test_no_refusal_says_where_the_models_lie(
    own_server: Any, inference_repository: Path, tmp_path: Path
) -> None:
    said = []
    with triton.InferenceServerClient(own_server.target) as client:
        for name in ("nobody", "../models", "broken_graph", "broken_run"):
            said += [
                _text(lambda name=name: client.load_model(name)),
                _text(lambda name=name: client.get_model_metadata(name)),
                _text(lambda name=name: client.infer(name, [_input("left", FLOATS, "FP32")])),
            ]
        said += [model.reason for model in client.get_model_repository_index().models]
    damaged = tmp_path / "damaged"
    shutil.copytree(inference_repository / "pair", damaged / "pair")
    (damaged / "pair" / "1" / "model.onnx").write_bytes(b"no graph")
    repository = Repository(damaged)
    for wrong in ("pair", "nobody", "../pair"):
        with pytest.raises(TrocarError) as raised:
            repository.open(wrong)
        said.append(str(raised.value))
    assert sum(map(bool, said)) > 12
    assert "pair/1/model.onnx: expected SHA-256" in " ".join(said)
    for text in said:
        assert str(inference_repository) not in text
        assert str(tmp_path) not in text
        assert "site-packages" not in text
