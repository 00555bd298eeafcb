"""Tensors in memory of a GPU: an unmodified tritonclient, `trocar serve`, a process that lends the memory.

Each test runs on a stand-in for the CUDA driver, which all find as libcuda.so.1, and on a GPU where one is.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trocar.runtime.session.cuda import Gpu, find_gpu

triton = pytest.importorskip(
    "tritonclient.grpc", reason="tritonclient is not installed", exc_type=ImportError
)
from tritonclient.utils import InferenceServerException  # noqa: E402

# More than is copied from shared memory lest it change.
SHAPE = (8192, 2, 3)
BYTES = 8192 * 24
SIZE = 4 * BYTES


@pytest.fixture(params=["stand-in", "gpu"], scope="module")
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "gpu":
        found = find_gpu()
        if not isinstance(found, Gpu):
            pytest.skip(f"no GPU: {found}")
        return {}
    folder = str(request.getfixturevalue("stand_in_driver").parent)
    return {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, [folder, os.environ.get("LD_LIBRARY_PATH")]))}


@pytest.fixture(scope="module")
def server(environment: dict[str, str], start_server: Any, inference_repository: Path) -> Any:
    config = f'[server]\nservices = "inference"\nrepository = "{inference_repository}"\n'
    return start_server(config=config, environment=environment)


@pytest.fixture
def client(server: Any) -> Iterator[Any]:
    with triton.InferenceServerClient(server.target) as client:
        yield client
        client.unregister_cuda_shared_memory()


@pytest.fixture
def exporter(environment: dict[str, str], start_exporter: Callable[..., Any]) -> Any:
    return start_exporter(environment)


def _register(client: Any, name: str, handle: bytes, size: int = SIZE, device: int = 0) -> None:
    client.register_cuda_shared_memory(name, base64.b64encode(handle), device, size)


def _tensors(name: str, shift: int = 0) -> tuple[list[Any], list[Any]]:
    inputs, outputs = [], []
    for number, tensor in enumerate(("left", "right")):
        inputs.append(triton.InferInput(tensor, list(SHAPE), "FP32"))
        inputs[-1].set_shared_memory(name, BYTES, offset=shift + number * BYTES)
    for number, tensor in enumerate(("total", "difference")):
        outputs.append(triton.InferRequestedOutput(tensor))
        outputs[-1].set_shared_memory(name, BYTES, offset=shift + (2 + number) * BYTES)
    return inputs, outputs


def _refused(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as raised:
        call()
    assert "\n" not in raised.value.message()
    return raised.value.status().removeprefix("StatusCode."), raised.value.message()


@pytest.mark.parametrize("shift", [0, 4])
def test_infer(client: Any, exporter: Any, shift: int) -> None:
    address, handle = exporter.allocate(SIZE + 256)
    _register(client, "r", handle, SIZE + 256)
    told = client.get_cuda_shared_memory_status().regions
    assert [(each.name, each.device_id, each.byte_size) for each in told.values()] == [("r", 0, SIZE + 256)]
    assert client.get_cuda_shared_memory_status("r").regions == told
    inputs, outputs = _tensors("r", shift)
    for number in range(4):
        left, right = np.random.default_rng(number).random((2, *SHAPE), np.float32)
        exporter.write(address + shift, left.tobytes() + right.tobytes())
        reply = client.infer("pair", inputs, outputs=outputs)
        assert [len(raw) for raw in reply.get_response().raw_output_contents] == [0, 0]
        parameters = reply.get_output("difference").parameters
        assert parameters["shared_memory_region"].string_param == "r"
        came = np.frombuffer(exporter.read(address + shift, SIZE), np.float32).reshape(4, *SHAPE)
        assert np.array_equal(came, [left, right, left + right, left - right])
    client.unregister_cuda_shared_memory("r")
    assert _refused(lambda: client.infer("pair", inputs, outputs=outputs)) == (
        "INVALID_ARGUMENT",
        "expected a registered region of none, got 'r'",
    )
    assert "cuda_shared_memory" in client.get_server_metadata().extensions


def test_handles_that_do_not_do(client: Any, exporter: Any) -> None:
    _, handle = exporter.allocate(SIZE)
    for raw, size, device, why in (
        (b"handle", 16, 0, "expected the 64 bytes of a cudaIpcMemHandle_t in raw_handle, got 6"),
        (b"\xa5" * 64, 16, 0, "raw_handle cannot be opened: the driver's cuIpcOpenMemHandle_v2 answers"),
        (handle, 1 << 50, 0, f"expected {1 << 50} bytes behind raw_handle, got "),
        (handle, 0, 0, "expected byte_size of 1 or more, got 0"),
        (handle, 16, 99, "expected device_id of a GPU, 0 to "),
        (handle, 16, -1, "expected device_id of a GPU, 0 to "),
    ):
        code, text = _refused(
            lambda raw=raw, size=size, device=device: _register(client, "r", raw, size, device)
        )
        assert (code, text.startswith("region 'r': "), why in text) == ("INVALID_ARGUMENT", True, True), text
    _register(client, "r", handle)
    assert "registered already" in _refused(lambda: _register(client, "r", handle))[1]
    assert _refused(lambda: client.register_system_shared_memory("r", "/r", 16))[0] == "INVALID_ARGUMENT"
    code, text = _refused(lambda: client.unregister_system_shared_memory("r"))
    assert (code, text) == ("INVALID_ARGUMENT", "expected a region in POSIX shared memory, of none, got 'r'")


def test_nothing_stays_open(client: Any, exporter: Any, server: Any, environment: dict[str, str]) -> None:
    if not environment:
        pytest.skip("a GPU's mappings are not seen from outside")

    def opened() -> int:
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()
        return maps.count("trocar-standin")

    _, handle = exporter.allocate(SIZE)
    inputs, outputs = _tensors("r")
    for _ in range(3):
        _register(client, "r", handle)
        for _ in range(3):
            client.infer("pair", inputs, outputs=outputs)
        assert opened() == 1
        client.unregister_cuda_shared_memory("r")
        assert opened() == 0
        _refused(lambda: _register(client, "r", handle, SIZE + 4097))
        assert opened() == 0


def test_a_server_that_ends_with_regions(
    start_server: Any, environment: dict[str, str], exporter: Any, inference_repository: Path
) -> None:
    config = f'[server]\nservices = "inference"\nrepository = "{inference_repository}"\n'
    server = start_server(config=config, environment=environment)
    address, handle = exporter.allocate(SIZE)
    with triton.InferenceServerClient(server.target) as client:
        _register(client, "r", handle)
        inputs, outputs = _tensors("r")
        for _ in range(2):
            client.infer("pair", inputs, outputs=outputs)
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()
    assert len(exporter.read(address, SIZE)) == SIZE
