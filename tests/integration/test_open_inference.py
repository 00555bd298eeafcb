"""An unmodified tritonclient against `trocar serve`: every RPC that it has."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritons import (
    FLOATS,
    pair,
    refused,
    tensor,
    text_of,
    triton,
)

from trocar.runtime.errors import TrocarError
from trocar.runtime.repository.store import Repository
from trocar.runtime.session.cuda import Gpu, find_gpu


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
    assert refused(lambda: client.get_model_config("nobody")) == (
        "NOT_FOUND",
        "expected a model of brain, broken_graph, broken_run, half, kinds, mixed, pair, turns, got 'nobody'",
    )
    assert refused(lambda: client.get_model_metadata("pair", "7")) == (
        "NOT_FOUND",
        "expected version 1 of 'pair', which is loaded, got '7'",
    )


def test_infer(client: Any) -> None:
    reply = client.infer("pair", pair(FLOATS, FLOATS + 1), request_id="4711", model_version="1")
    assert np.array_equal(reply.as_numpy("total"), 2 * FLOATS + 1)
    assert np.array_equal(reply.as_numpy("difference"), np.full_like(FLOATS, -1))
    told = reply.get_response()
    assert (told.id, told.model_name, told.model_version) == ("4711", "pair", "1")
    assert client.infer("pair", pair()).get_response().id == ""


def test_any_batch_and_any_order_of_inputs(client: Any) -> None:
    for batch in (1, 2, 3, 17):
        left = np.random.default_rng(batch).random((batch, 2, 3), dtype=np.float32)
        reply = client.infer("pair", pair(left, left / 2)[::-1])
        assert np.array_equal(reply.as_numpy("difference"), left - left / 2)


def test_outputs_that_are_asked_for(client: Any) -> None:
    outputs = [triton.InferRequestedOutput(name) for name in ("difference", "total")]
    reply = client.infer("pair", pair(), outputs=outputs)
    assert [output.name for output in reply.get_response().outputs] == ["difference", "total"]
    assert np.array_equal(reply.as_numpy("total"), 2 * FLOATS)
    reply = client.infer("pair", pair(), outputs=outputs[:1])
    assert [output.name for output in reply.get_response().outputs] == ["difference"]
    for wrong in ([triton.InferRequestedOutput("sum")], [outputs[0], outputs[0]]):
        code, text = refused(lambda wrong=wrong: client.infer("pair", pair(), outputs=wrong))
        assert code == "INVALID_ARGUMENT"
        assert text.startswith("expected outputs of total, difference, each once, got ")
    classes = [triton.InferRequestedOutput("total", class_count=2)]
    code, text = refused(lambda: client.infer("pair", pair(), outputs=classes))
    assert (code, "got 'classification'" in text) == ("UNIMPLEMENTED", True)


def test_requests_that_repeat(client: Any) -> None:
    """The network stays bound to buffers: no answer may be another's."""
    for number in range(6):
        left = FLOATS[: 1 + number % 2] * number
        name = "" if number < 3 else f"request-{number}"
        reply = client.infer("pair", pair(left, left + 1), request_id=name)
        assert np.array_equal(reply.as_numpy("total"), 2 * left + 1)
        assert np.array_equal(reply.as_numpy("difference"), np.full_like(left, -1))
        assert reply.get_response().id == name
    asked: SimpleQueue[Any] = SimpleQueue()
    for number in range(40):
        left = FLOATS + number
        client.async_infer(
            "pair",
            pair(left, left),
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


def test_shapes_and_names(client: Any) -> None:
    wide = np.zeros((1, 2, 4), np.float32)
    assert refused(lambda: client.infer("pair", pair(wide))) == (
        "INVALID_ARGUMENT",
        "input left: expected FP32 [batch, 2, 3], got FP32 [1, 2, 4]",
    )
    code, text = refused(lambda: client.infer("pair", pair(FLOATS, FLOATS[:1])))
    assert code == "INVALID_ARGUMENT"
    assert "expected batch = 2 as in left" in text
    assert refused(lambda: client.infer("pair", pair()[:1]))[1] == "expected inputs left, right, got left"
    renamed = [*pair()[:1], tensor("wrong", FLOATS, "FP32")]
    assert refused(lambda: client.infer("pair", renamed))[1] == "expected inputs left, right, got left, wrong"
    assert refused(lambda: client.infer("nobody", pair()))[0] == "NOT_FOUND"


def test_priorities_sequences_and_parameters_are_refused_by_name(client: Any) -> None:
    for priority in range(4):
        assert client.infer("pair", pair(), priority=priority)
    for name, changes, expected in (
        ("priority", {"priority": 4}, "INVALID_ARGUMENT"),
        ("sequence_", {"sequence_id": 7, "sequence_start": True}, "UNIMPLEMENTED"),
        ("colour", {"parameters": {"colour": "red"}}, "INVALID_ARGUMENT"),
    ):
        code, text = refused(lambda changes=changes: client.infer("pair", pair(), **changes))
        assert (code, name in text) == (expected, True)


def test_timeouts(client: Any) -> None:
    assert client.infer("pair", pair(), timeout=5_000_000)
    assert refused(lambda: client.infer("pair", pair(), timeout=-1))[1].startswith("parameter timeout: ")


def test_asynchronous_calls_and_compression(client: Any) -> None:
    answers: SimpleQueue[Any] = SimpleQueue()
    for _ in range(8):
        client.async_infer("pair", pair(), callback=lambda result, error: answers.put((result, error)))
    for _ in range(8):
        _, error = answers.get(timeout=20)
        assert error is None or "try again later" in str(error)
    for algorithm in ("gzip", "deflate"):
        reply = client.infer("pair", pair(), compression_algorithm=algorithm)
        assert np.array_equal(reply.as_numpy("total"), 2 * FLOATS)


def test_a_stream(client: Any) -> None:
    """In order; a refused request is an answer of its own and does not end it."""
    answers: SimpleQueue[Any] = SimpleQueue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(5):
        inputs = pair()[: 1 if number == 2 else 2]
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
        client.async_stream_infer("pair", pair(), enable_empty_final_response=final)
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
        text_of(lambda client=client: client.async_stream_infer("pair", pair()))  # it may be refused by now
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
        client.async_stream_infer("pair", pair())
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
    image = tensor("image", np.zeros((1, 2, 8, 8), np.float16), "FP16")
    assert refused(lambda: client.infer("half", [image])) == (
        "UNAVAILABLE",
        "model 'half' is not loaded: unloaded",
    )
    client.load_model("half")
    assert client.infer("half", [image]).as_numpy("logits").shape == (1, 4, 8, 8)
    client.load_model("half")  # again, in place of itself
    assert client.is_model_ready("half")
    assert refused(lambda: client.load_model("nobody"))[0] == "NOT_FOUND"
    assert refused(lambda: client.unload_model("nobody"))[0] == "NOT_FOUND"
    assert refused(lambda: client.load_model("../etc"))[0] == "INVALID_ARGUMENT"
    code, text = refused(lambda: client.load_model("half", config='{"backend": "python"}'))
    assert (code, "expected no parameter 'config'" in text) == ("UNIMPLEMENTED", True)
    state, reason = states()["broken_graph"]
    assert state == "UNAVAILABLE"
    assert "expected an ONNX model" in reason


def test_statistics(client: Any) -> None:
    def told() -> Any:
        return client.get_inference_statistics("pair", "1").model_stats[0]

    before = told()
    client.infer("pair", pair())
    refused(lambda: client.infer("pair", pair(FLOATS, FLOATS[:1])))
    after = told()
    assert after.inference_count - before.inference_count == 1
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1
    assert after.inference_stats.fail.count - before.inference_stats.fail.count == 1
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert abs(after.last_inference / 1000 - time.time()) < 60
    assert {"pair", "mixed"} <= {each.name for each in client.get_inference_statistics().model_stats}


def test_a_model_that_fails_when_it_runs(client: Any) -> None:
    left = [tensor("left", FLOATS, "FP32")]
    code, text = refused(lambda: client.infer("broken_run", left))
    assert code == "INTERNAL"
    assert "ONNX Runtime failed" in text


def test_what_is_unsupported_says_so_by_name(client: Any) -> None:
    calls = {"TraceSetting": client.get_trace_settings, "LogSettings": client.get_log_settings}
    for name, call in calls.items():
        assert refused(call) == ("UNIMPLEMENTED", f"{name} is not supported by this server")
    assert refused(lambda: client.update_trace_settings(settings={}))[0] == "UNIMPLEMENTED"
    assert refused(lambda: client.update_log_settings({}))[0] == "UNIMPLEMENTED"


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
        assert refused(call) == ("UNIMPLEMENTED", f"{name} needs a GPU; {why}")
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
                refused(lambda asked=asked: asked.load_model("half"))
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
                text_of(lambda name=name: client.load_model(name)),
                text_of(lambda name=name: client.get_model_metadata(name)),
                text_of(lambda name=name: client.infer(name, [tensor("left", FLOATS, "FP32")])),
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
