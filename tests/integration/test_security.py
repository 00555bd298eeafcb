"""TLS, tokens and scopes: a real server in another process, and the command line as its client."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from certificates import authority
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from trocar.inference_v2 import open_inference_pb2 as pb
from trocar.runtime import cli
from trocar.runtime.channel import Access, open_channel

SERVING = health_pb2.HealthCheckResponse.SERVING
QUICK = ("phantom:7", "--moves", "2000", "--chains", "1", "--start", "random", "--json")
OURS, OTHERS = authority(), authority("another")
Run = Callable[..., Any]


def _write(path: Path, content: bytes | str) -> Path:
    path.touch(0o600)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _certify(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = OURS.sign(name)
    return _write(folder / f"{name}.pem", certificate), _write(folder / f"{name}.key", key)


def _code(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code().name, raised.value.details()


def _health(channel: grpc.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10).status


def _infer(channel: grpc.Channel, method: str, request: Any = None, reply: Any = None) -> Any:
    call = channel.unary_unary(
        f"/inference.GRPCInferenceService/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=None if reply is None else reply.FromString,
    )
    return call(request or pb.ServerLiveRequest(), timeout=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("security")


@pytest.fixture(scope="module")
def ca(folder: Path) -> Path:
    return _write(folder / "ca.pem", OURS.pem)


@pytest.fixture(scope="module")
def tokens(folder: Path, trocar: Run) -> dict[str, Path]:
    """Made as a user makes them; a file each."""
    asked: dict[str, tuple[str, ...]] = {
        "planner": ("--scope", "planning"),
        "asker": ("--scope", "inference/ModelMetadata"),
        "left": ("--scope", "inference", "--shared-memory-prefix", "left_"),
        "right": ("--scope", "*", "--days", "3"),
        "nobody": (),
    }
    found = {}
    for name, options in asked.items():
        done = trocar("token", "add", name, *options, "--tokens", folder / "tokens.toml")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() not in (folder / "tokens.toml").read_text()
        found[name] = _write(folder / f"{name}.token", done.stdout)
    return found


@pytest.fixture(scope="module")
def secure(start_server: Any, folder: Path, ca: Path, tokens: dict[str, Path]) -> Any:
    """Mutual TLS and tokens, the planner and the models' protocol."""
    certificate, key = _certify(folder, "server")
    assert tokens
    return start_server(
        config=f"""
[server]
services = "planning, inference"
reflection = true
[server.tls]
certificate = "{certificate}"
key = "{key}"
client_ca = "{ca}"
[server.auth]
tokens = "{folder / "tokens.toml"}"
[services.inference]
load_at_start = false
"""
    )


@pytest.fixture(scope="module")
def client(folder: Path) -> tuple[Path, Path]:
    return _certify(folder, "client")


@pytest.fixture(scope="module")
def channels(
    secure: Any, tokens: dict[str, Path], client: tuple[Path, Path]
) -> Iterator[dict[str, grpc.Channel]]:
    """A channel for each token, and one for none."""
    certificate, key = (path.read_bytes() for path in client)
    secrets = {name: path.read_text().strip() for name, path in tokens.items()}
    opened = {
        name: open_channel(Access(secure.target, OURS.pem, certificate, key, secret))
        for name, secret in {**secrets, "none": "", "stranger": "trocar_" + "x" * 43}.items()
    }
    yield opened
    for channel in opened.values():
        channel.close()


def test_a_plan_over_mutual_tls_with_a_token(
    secure: Any,
    trocar: Run,
    ca: Path,
    tokens: dict[str, Path],
    client: tuple[Path, Path],
    monkeypatch: Any,
    capsys: Any,
) -> None:
    there = ("--server", secure.target, "--tls-ca", ca)
    mine = ("--tls-cert", client[0], "--tls-key", client[1])
    done = trocar("plan", *QUICK, *there, *mine, "--token-file", tokens["planner"])
    assert json.loads(done.stdout)["seeds"] > 0, done.stderr
    for options, code, says in (
        ((*there, *mine), 2, "expected one 'authorization: Bearer TOKEN'"),
        (
            (*there, *mine, "--token-file", tokens["asker"]),
            2,
            "scope 'planning' or 'planning/Plan', got 'asker'",
        ),
        ((*there, "--token-file", tokens["planner"]), 3, "no server at"),  # no certificate of ours
        (("--server", secure.target), 3, "no server at"),  # no TLS
    ):
        assert cli.main(["plan", *QUICK, "--timeout-s", "20", *map(str, options)]) == code
        said = capsys.readouterr().err
        assert says in said
        assert said.count("\n") == 1
    monkeypatch.setenv("TROCAR_TOKEN", tokens["planner"].read_text().strip())
    assert cli.main(["plan", *QUICK, *map(str, (*there, *mine))]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["seeds"] > 0


def test_health_needs_no_token_and_all_else_does(channels: dict[str, grpc.Channel]) -> None:
    assert _health(channels["none"]) == SERVING
    for name in ("none", "stranger"):
        for method in ("ServerLive", "NoSuchMethod"):
            code, says = _code(lambda name=name, method=method: _infer(channels[name], method))
            assert (code, "expected" in says) == ("UNAUTHENTICATED", True)
        stub = reflection_pb2_grpc.ServerReflectionStub(channels[name])
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        code, _ = _code(lambda stub=stub, ask=ask: list(stub.ServerReflectionInfo(iter([ask]), timeout=10)))
        assert code == "UNAUTHENTICATED"
    stub = reflection_pb2_grpc.ServerReflectionStub(channels["nobody"])
    assert list(stub.ServerReflectionInfo(iter([ask]), timeout=10))


def test_scopes_are_by_service_and_by_method(channels: dict[str, grpc.Channel]) -> None:
    assert _code(lambda: _infer(channels["nobody"], "ServerLive"))[0] == "PERMISSION_DENIED"
    code, says = _code(lambda: _infer(channels["planner"], "ServerLive"))
    assert code == "PERMISSION_DENIED"
    assert "'inference' or 'inference/ServerLive', got 'planner', which has planning" in says
    index = pb.ModelMetadataRequest(name="tpgan")
    assert _code(lambda: _infer(channels["asker"], "ModelMetadata", index))[0] in ("NOT_FOUND", "UNAVAILABLE")
    assert _code(lambda: _infer(channels["asker"], "RepositoryModelLoad"))[0] == "PERMISSION_DENIED"
    _infer(channels["right"], "ServerLive")


def test_a_refusal_does_not_wait_for_the_request(channels: dict[str, grpc.Channel]) -> None:
    """60 MB that nobody may send: the answer comes with the first of them."""
    plan = channels["none"].unary_unary("/trocar.v1.PlanningService/Plan")
    assert _code(lambda: plan(bytes(60 << 20), timeout=30))[0] == "UNAUTHENTICATED"


@pytest.fixture
def objects() -> Iterator[dict[str, Path]]:
    places = {
        name: Path("/dev/shm") / f"{name}_{os.getpid()}"
        for name in ("left_trocar_test", "right_trocar_test", "trocar-video-test", "sem.trocar-test")
    }
    for place in places.values():
        place.write_bytes(bytes(64))
    yield places
    for place in places.values():
        place.unlink()


def test_shared_memory_of_each_token_apart(
    channels: dict[str, grpc.Channel], objects: dict[str, Path]
) -> None:
    left, right = channels["left"], channels["right"]

    def register(channel: grpc.Channel, region: str, name: str) -> Any:
        request = pb.SystemSharedMemoryRegisterRequest(name=region, key=objects[name].name, byte_size=64)
        return _infer(channel, "SystemSharedMemoryRegister", request)

    def status(channel: grpc.Channel) -> set[str]:
        reply = _infer(
            channel,
            "SystemSharedMemoryStatus",
            pb.SystemSharedMemoryStatusRequest(),
            pb.SystemSharedMemoryStatusResponse,
        )
        return {region.key for region in reply.regions.values()}

    register(left, "mine", "left_trocar_test")
    code, says = _code(lambda: register(left, "other", "right_trocar_test"))
    assert (code, "begins with 'left_'" in says) == ("INVALID_ARGUMENT", True)
    register(right, "mine", "right_trocar_test")  # the same name, another region
    for channel in (left, right):
        for name in ("trocar-video-test", "sem.trocar-test"):
            assert (
                _code(lambda channel=channel, name=name: register(channel, "x", name))[0]
                == "INVALID_ARGUMENT"
            )
    assert status(left) == {objects["left_trocar_test"].name}
    assert status(right) == {objects["right_trocar_test"].name}
    _infer(right, "SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest())  # all: its own
    assert (len(status(left)), len(status(right))) == (1, 0)
    assert _code(
        lambda: _infer(right, "SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest(name="mine"))
    ) == ("INVALID_ARGUMENT", "expected a region in POSIX shared memory, of none, got 'mine'")


def test_a_certificate_of_another_authority(secure: Any) -> None:
    certificate, key = OTHERS.sign("intruder")
    with open_channel(Access(secure.target, OURS.pem, certificate, key)) as channel:
        assert _code(lambda: _health(channel))[0] == "UNAVAILABLE"
    with open_channel(Access(secure.target, OTHERS.pem)) as channel:
        assert _code(lambda: _health(channel))[0] == "UNAVAILABLE"


def test_a_token_removed_is_worth_nothing(
    secure: Any, trocar: Run, folder: Path, client: tuple[Path, Path]
) -> None:
    done = trocar(
        "token", "add", "guest", "--scope", "inference", "--json", "--tokens", folder / "tokens.toml"
    )
    secret = json.loads(done.stdout)["token"]
    certificate, key = (path.read_bytes() for path in client)

    def eventually(expected: str) -> None:
        found, until = "", time.monotonic() + 20
        while found != expected and time.monotonic() < until:
            time.sleep(0.2)
            try:
                _infer(channel, "ServerLive")
                found = "OK"
            except grpc.RpcError as error:
                found = error.code().name
        assert found == expected

    with open_channel(Access(secure.target, OURS.pem, certificate, key, secret)) as channel:
        eventually("OK")
        with (folder / "tokens.toml").open("a") as file:
            file.write("[tokens.half")  # an edit that goes wrong takes nothing away
        time.sleep(1.2)
        _infer(channel, "ServerLive")
        text = (folder / "tokens.toml").read_text()
        (folder / "tokens.toml").write_text(text.removesuffix("[tokens.half"))
        assert trocar("token", "remove", "guest", "--tokens", folder / "tokens.toml").returncode == 0
        eventually("UNAUTHENTICATED")
    listed = json.loads(trocar("token", "list", "--json", "--tokens", folder / "tokens.toml").stdout)[
        "tokens"
    ]
    assert "guest" not in {token["name"] for token in listed}
    assert secret not in secure.log.read_text()


def test_a_new_certificate_without_a_restart(start_server: Any, folder: Path) -> None:
    """First one by the old authority; a new one half written, then whole, by another."""
    certificate, key = _certify(folder, "rolling")
    server = start_server(
        config=f"""
[server]
services = "inference"
[server.tls]
certificate = "{certificate}"
key = "{key}"
[services.inference]
load_at_start = false
"""
    )

    def reaches(ca: bytes) -> bool:
        with open_channel(Access(server.target, ca)) as channel:
            try:
                return bool(_health(channel) == SERVING)
            except grpc.RpcError:
                return False

    old = open_channel(Access(server.target, OURS.pem))
    assert _health(old) == SERVING
    assert not reaches(OTHERS.pem)
    new_certificate, new_key = OTHERS.sign("rolled")
    certificate.write_bytes(new_certificate[:200])
    assert reaches(OURS.pem)
    certificate.write_bytes(new_certificate)
    assert reaches(OURS.pem)  # its key is not there yet
    key.write_bytes(new_key)
    assert reaches(OTHERS.pem)
    assert not reaches(OURS.pem)
    assert _health(old) == SERVING  # a connection that stands keeps standing
    old.close()
    log = server.log.read_text()
    assert "1 begun and 0 ended" in log
    assert "got another's" in log
    assert "read anew" in log
    assert "PRIVATE" not in log


def test_a_server_that_would_not_be_safe_does_not_start(trocar: Run) -> None:
    done = trocar("serve", "--listen", "0.0.0.0:0")
    assert done.returncode == 2
    assert "without TLS, where other machines can reach it" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--tls-ca", "{ca}"), "--tls-ca: expected --server"),
        (("--token-file", "{token}"), "--token-file: expected --server"),
        (("--server", "127.0.0.1:9", "--tls-cert", "{ca}"), "both --tls-cert and --tls-key"),
        (("--server", "127.0.0.1:9", "--tls-cert", "{ca}", "--tls-key", "{ca}"), "expected --tls-ca"),
        (("--server", "192.0.2.1:9", "--token-file", "{token}"), "the network can read it"),
        (("--server", "127.0.0.1:9", "--token-file", "{open}"), "others cannot open"),
        (("--server", "127.0.0.1:9", "--token-file", "{folder}/none"), "No such file"),
        (("--server", "127.0.0.1:9", "--tls-ca", "{empty}"), "expected a file of 1 to"),
    ],
)
def test_options_that_cannot_be_meant(
    folder: Path, ca: Path, tokens: dict[str, Path], options: tuple[str, ...], says: str, capsys: Any
) -> None:
    readable = _write(folder / "open.token", "x")
    readable.chmod(0o644)
    names = {
        "ca": ca,
        "token": tokens["right"],
        "folder": folder,
        "open": readable,
        "empty": _write(folder / "empty", ""),
    }
    code = cli.main(["plan", *QUICK, *(option.format(**names) for option in options)])
    said = capsys.readouterr().err
    assert (code, says in said) == (2, True), said
    assert said.count("\n") == 1


def test_a_token_over_a_unix_socket_without_tls(
    start_server: Any, tmp_path: Path, folder: Path, tokens: dict[str, Path], trocar: Run
) -> None:
    """What never leaves the machine needs no TLS; and video's client has the same options."""
    path = tmp_path / "t.sock"
    config = (
        f'[server.auth]\ntokens = "{folder / "tokens.toml"}"\n[services.inference]\nload_at_start = false'
    )
    server = start_server(listen=f"unix:{path}", config=config)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with open_channel(Access(server.target, token=tokens["asker"].read_text().strip())) as channel:
        assert _code(lambda: _infer(channel, "RepositoryModelLoad"))[0] == "PERMISSION_DENIED"
    annotate = ("annotate", "rendered:0:0.2", "--server", server.target, "--json", "--token-file")
    done = trocar(*annotate, tokens["right"])
    frames = json.loads(done.stdout)["frames"]
    assert frames["failed"] < frames["frames"]
    done = trocar(*annotate, tokens["planner"])  # without the scope
    assert done.returncode != 0
    assert json.loads(done.stdout or '{"frames": {"annotated": 0}}')["frames"]["annotated"] == 0


def test_arrays_cross_tls_whole(secure: Any, channels: dict[str, grpc.Channel]) -> None:
    """A model's answer is the same over TLS."""
    loaded = pb.RepositoryModelLoadRequest(model_name="tpgan")
    _infer(channels["right"], "RepositoryModelLoad", loaded)
    request = pb.ModelInferRequest(model_name="tpgan")
    for name, channel_count in (("features", 8), ("noise", 2)):
        shape = [1, channel_count, 16, 16, 16]
        request.inputs.add(name=name, datatype="FP32", shape=shape)
        request.raw_input_contents.append(np.zeros(shape, np.float32).tobytes())
    reply = _infer(channels["right"], "ModelInfer", request, pb.ModelInferResponse)
    values = np.frombuffer(reply.raw_output_contents[0], np.float32)
    assert values.size == np.prod(reply.outputs[0].shape)
    assert np.isfinite(values).all()
    assert secure.process.poll() is None
