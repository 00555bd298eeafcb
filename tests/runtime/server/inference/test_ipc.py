"""Memory of a GPU in requests, on a stand-in for its driver: a process lends it, and reads what came."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trocar.inference_v2 import open_inference_pb2 as pb
from trocar.runtime.device import Device
from trocar.runtime.errors import DeviceError, InvalidInput, QueueFull
from trocar.runtime.server.inference import bound, ipc, regions
from trocar.runtime.server.inference.infer import Inference
from trocar.runtime.server.inference.ipc import CudaRegion
from trocar.runtime.server.inference.models import Loaded
from trocar.runtime.server.inference.overseer import Overseer
from trocar.runtime.server.inference.posix import PosixRegion
from trocar.runtime.server.inference.regions import Regions
from trocar.runtime.server.scheduler import Scheduler
from trocar.runtime.server.tokens import Token
from trocar.runtime.session import cuda
from trocar.runtime.session.base import Buffer, TensorSpec, check_bound
from trocar.runtime.session.fake import FakeSession
from trocar.runtime.session.memory import memory_of

OVERSEER = Overseer(limit_s=30.0)
SIZE = 1 << 20
# More than is copied from shared memory lest it change, in rows of 4096 bytes.
WIDE, ROWS = 1024, 32
BYTES = ROWS * WIDE * 4


@pytest.fixture
def driver(stand_in_driver: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(cuda, "LIBRARY", str(stand_in_driver))
    library = ctypes.CDLL(str(stand_in_driver))
    library.cuCtxSetCurrent(None)
    yield library
    library.standin_fail(b"")
    gc.collect()
    assert library.standin_opened() == 0


@pytest.fixture
def client(stand_in_driver: Path, start_exporter: Callable[..., Any]) -> Any:
    return start_exporter({"LD_LIBRARY_PATH": str(stand_in_driver.parent)})


@pytest.fixture
def table(driver: Any) -> Iterator[Regions]:
    assert driver.standin_opened() == 0
    table = Regions()
    yield table
    table.unregister(CudaRegion)


class OnGpu(FakeSession):
    """A network that says it runs on a GPU, whose memory the stand-in keeps where NumPy finds it."""

    device = Device("cuda", "Stand-in", "a stand-in for tests")

    def bind(self, feeds: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Any:
        check_bound(self.inputs, self.outputs, feeds, outputs, device=self.device)
        self.bound = {
            name: memory_of(buffer, name).on_device for name, buffer in [*feeds.items(), *outputs.items()]
        }
        here = [{name: _array(buffer) for name, buffer in each.items()} for each in (feeds, outputs)]
        self.kept = (feeds, outputs)
        return FakeSession(self.inputs, self.outputs, self._function).bind(*here)


def _array(buffer: Any) -> np.ndarray:
    if isinstance(buffer, np.ndarray):
        return buffer
    memory = memory_of(buffer, "x")
    place = (ctypes.c_uint8 * memory.size_bytes).from_address(memory.address)
    return np.frombuffer(place, memory.dtype).reshape(memory.shape)


class Alone:
    """Stands for `Models` with one model, which doubles."""

    def __init__(self, kind: type[FakeSession] = FakeSession, dtype: str = "float32", **changes: Any) -> None:
        specs = [TensorSpec(name, dtype, ("rows", WIDE)) for name in ("x", "y")]
        function = changes.get("function", lambda feeds: {"y": feeds["x"] * 2})
        queue = Scheduler(1).queue("m", max_queued=4)
        self.loaded = Loaded("m", "1", kind(specs[:1], specs[1:], function), queue)

    def get(self, name: str, version: str = "") -> Loaded:
        assert (name, version) == ("m", "")
        return self.loaded


def _request(
    x: tuple[str, int] | None = ("r", 0),
    y: tuple[str, int] | None = ("r", BYTES),
    *,
    rows: int = ROWS,
    datatype: str = "FP32",
    size: int = 0,
) -> bytes:
    request = pb.ModelInferRequest(model_name="m")
    size = size or rows * WIDE * 4
    source = request.inputs.add(name="x", datatype=datatype, shape=[rows, WIDE])
    target = request.outputs.add(name="y")
    for tensor, place in ((source, x), (target, y)):
        if place is not None:
            tensor.parameters["shared_memory_region"].string_param = place[0]
            tensor.parameters["shared_memory_offset"].int64_param = place[1]
            tensor.parameters["shared_memory_byte_size"].int64_param = size
    if x is None:
        request.raw_input_contents.append(np.full((rows, WIDE), 3, np.float32).tobytes())
    return request.SerializeToString()


def _answer(inference: Inference, message: bytes) -> pb.ModelInferResponse:
    answer = inference.answer(message, remaining_s=None, abandoned=lambda: False)
    return pb.ModelInferResponse.FromString(answer)


def _floats(seed: int, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, WIDE), np.float32)


def test_a_region_is_opened_listed_and_closed(table: Regions, driver: Any, client: Any) -> None:
    _, handle = client.allocate(SIZE)
    table.register_cuda("r", handle, 0, SIZE)
    table.register_cuda("s", handle, 0, 16)  # the same memory by another name
    found = table.status(CudaRegion)
    assert [(each.name, each.device_id, each.size_bytes) for each in found] == [("r", 0, SIZE), ("s", 0, 16)]
    assert found[0].address == found[1].address
    assert driver.standin_opened() == 2
    assert [each.name for each in table.status(CudaRegion, "s")] == ["s"]
    assert table.status(PosixRegion) == []
    del found
    table.unregister(CudaRegion, "r")
    assert driver.standin_opened() == 1
    table.unregister(PosixRegion)  # none of those
    assert driver.standin_opened() == 1
    table.unregister(CudaRegion)
    assert driver.standin_opened() == 0
    assert driver.standin_context() == 0, "this thread has the context that it had"


@pytest.mark.usefixtures("driver")
def test_one_name_is_one_region_of_either_kind(client: Any, tmp_path: Path) -> None:
    _, handle = client.allocate(SIZE)
    both = Regions(folder=tmp_path)
    (tmp_path / "object").write_bytes(bytes(64))
    both.register("r", "object", 0, 64)
    with pytest.raises(InvalidInput, match="region 'r' is registered already"):
        both.register_cuda("r", handle, 0, SIZE)
    both.register_cuda("s", handle, 0, SIZE)
    with pytest.raises(InvalidInput, match="region 's' is registered already"):
        both.register("s", "object", 0, 64)
    with pytest.raises(InvalidInput, match="expected a region in a GPU's memory, of s, got 'r'"):
        both.unregister(CudaRegion, "r")
    with pytest.raises(InvalidInput, match="expected a region in POSIX shared memory, of r, got 's'"):
        both.status(PosixRegion, "s")
    with pytest.raises(InvalidInput, match="expected a registered region of r, s, got 'q'"):
        both.get("q")


@pytest.mark.usefixtures("driver")
def test_each_token_has_its_own_names(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    table, handles = Regions(), {name: client.allocate(SIZE)[1] for name in ("one", "other")}

    def speak(name: str) -> None:
        monkeypatch.setattr(regions, "caller", lambda: Token(name, "", frozenset()))

    for name, handle in handles.items():
        speak(name)
        assert table.status(CudaRegion) == []
        table.register_cuda("r", handle, 0, SIZE)
    theirs = table.get("r")
    speak("one")
    assert table.get("r") is not theirs
    table.unregister(CudaRegion)
    with pytest.raises(InvalidInput, match="expected a registered region of none, got 'r'"):
        table.get("r")
    speak("other")
    assert table.get("r") is theirs


@pytest.mark.parametrize("size", [0, 1, 63, 65, 88, 1 << 16])
def test_a_handle_has_64_bytes(table: Regions, size: int) -> None:
    with pytest.raises(InvalidInput, match=f"expected the 64 bytes of a cudaIpcMemHandle_t.*, got {size}$"):
        table.register_cuda("r", bytes(size), 0, 16)


def test_handles_that_are_none(table: Regions, driver: Any, client: Any) -> None:
    address, handle = client.allocate(SIZE)
    garbage = [bytes(64), b"\xff" * 64, handle[::-1], handle[:8] + b"\xff" * 56]
    for raw in garbage:
        with pytest.raises(
            InvalidInput, match=r"raw_handle cannot be opened: .*_v2 answers \d+ \(CUDA_ERROR_"
        ):
            table.register_cuda("r", raw, 0, 16)
    client.free(address)
    with pytest.raises(InvalidInput, match="CUDA_ERROR_MAP_FAILED"):
        table.register_cuda("r", handle, 0, 16)
    assert driver.standin_opened() == 0
    assert table.status(CudaRegion) == []


@pytest.mark.parametrize("size", [SIZE + 1, 1 << 62, (1 << 64) - 1])
def test_memory_that_is_smaller_than_claimed(table: Regions, driver: Any, client: Any, size: int) -> None:
    _, handle = client.allocate(SIZE)
    with pytest.raises(InvalidInput, match=f"expected {size} bytes behind raw_handle, got {SIZE}"):
        table.register_cuda("r", handle, 0, size)
    assert driver.standin_opened() == 0


@pytest.mark.parametrize("number", [1, -1, 1 << 31, 1 << 62, -(1 << 63)])
def test_a_gpu_that_is_not_there(table: Regions, number: int) -> None:
    with pytest.raises(InvalidInput, match=f"expected device_id of a GPU, 0 to 0, got {number}"):
        table.register_cuda("r", bytes(64), number, 16)


def test_names_sizes_numbers_and_off(
    table: Regions, driver: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, handle = client.allocate(SIZE)
    with pytest.raises(InvalidInput, match="expected byte_size of 1 or more, got 0"):
        table.register_cuda("r", handle, 0, 0)
    for name in ("", "x" * 257):
        with pytest.raises(InvalidInput, match="expected a region's name of 1 to 256 characters"):
            table.register_cuda(name, handle, 0, 16)
    with pytest.raises(InvalidInput, match="shared memory is off"):
        Regions(enabled=False).register_cuda("r", handle, 0, 16)
    monkeypatch.setattr(regions, "MAX_REGIONS", 1)
    table.register_cuda("r", handle, 0, 16)
    with pytest.raises(QueueFull, match="expected at most 1 regions"):
        table.register_cuda("s", handle, 0, 16)
    assert driver.standin_opened() == 1


@pytest.mark.parametrize(
    "call", ["cuInit", "cuDevicePrimaryCtxRetain", "cuStreamCreate", "cuMemGetAddressRange_v2"]
)
def test_a_driver_that_fails_half_way(table: Regions, driver: Any, client: Any, call: str) -> None:
    _, handle = client.allocate(SIZE)
    driver.standin_fail(call.encode())
    with pytest.raises(DeviceError, match=f"the driver's {call} answers 999"):
        table.register_cuda("r", handle, 0, SIZE)
    assert (driver.standin_opened(), driver.standin_context()) == (0, 0)
    driver.standin_fail(b"")
    table.register_cuda("r", handle, 0, SIZE)
    assert driver.standin_opened() == 1


@pytest.mark.parametrize("kind", [FakeSession, OnGpu])
@pytest.mark.parametrize("shift", [0, 4, 6])
def test_requests_in_a_gpus_memory(table: Regions, client: Any, kind: type[FakeSession], shift: int) -> None:
    """In place or copied, aligned or not: the client finds the result, and nothing beside it has changed."""
    address, handle = client.allocate(SIZE)
    table.register_cuda("r", handle, 0, SIZE)
    models = Alone(kind)
    inference = Inference(models, table, OVERSEER)  # type: ignore[arg-type]
    for number in range(4):
        values = _floats(number)
        client.write(address, bytes([number]) * SIZE)
        client.write(address + shift, values.tobytes())
        reply = _answer(inference, _request(("r", shift), ("r", shift + BYTES)))
        assert reply.raw_output_contents[0] == b""
        assert reply.outputs[0].parameters["shared_memory_region"].string_param == "r"
        assert reply.outputs[0].parameters["shared_memory_byte_size"].int64_param == BYTES
        came = client.read(address, SIZE)
        assert came[shift : shift + BYTES] == values.tobytes()
        assert came[shift + BYTES : shift + 2 * BYTES] == (values * 2).tobytes()
        assert came[:shift] == bytes([number]) * shift
        assert came[shift + 2 * BYTES :] == bytes([number]) * (SIZE - 2 * BYTES - shift)
    if kind is OnGpu:
        assert models.loaded.session.bound == {"x": shift == 0, "y": shift == 0}


@pytest.mark.parametrize("kind", [FakeSession, OnGpu])
def test_one_tensor_there_and_one_in_the_request(table: Regions, client: Any, kind: Any) -> None:
    address, handle = client.allocate(SIZE)
    table.register_cuda("r", handle, 0, SIZE)
    inference = Inference(Alone(kind), table, OVERSEER)  # type: ignore[arg-type]
    for number in range(3):
        client.write(address, _floats(number).tobytes())
        reply = _answer(inference, _request(y=None))
        assert reply.raw_output_contents[0] == (_floats(number) * 2).tobytes()
        reply = _answer(inference, _request(x=None))
        assert client.read(address + BYTES, BYTES) == np.full((ROWS, WIDE), 6, np.float32).tobytes()


def test_small_and_whole_numbers_are_copied_lest_they_change(table: Regions, client: Any) -> None:
    address, handle = client.allocate(SIZE)
    table.register_cuda("r", handle, 0, SIZE)
    for dtype, datatype, rows in (("float32", "FP32", 2), ("int32", "INT32", ROWS)):
        models = Alone(OnGpu, dtype)
        inference = Inference(models, table, OVERSEER)  # type: ignore[arg-type]
        for number in range(3):
            values = (_floats(number, rows) * 99).astype(dtype)
            client.write(address, values.tobytes())
            _answer(inference, _request(rows=rows, datatype=datatype))
            assert client.read(address + BYTES, values.nbytes) == (values * 2).tobytes()
        assert models.loaded.session.bound == {"x": False, "y": True}


def test_what_is_large_is_not_kept_on_the_host(
    table: Regions, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, handle = client.allocate(SIZE)
    table.register_cuda("r", handle, 0, SIZE)
    monkeypatch.setattr(bound, "MAX_OWN_BYTES", BYTES)
    inference = Inference(Alone(), table, OVERSEER)  # type: ignore[arg-type]
    for number in range(3):
        client.write(address, _floats(number).tobytes())
        _answer(inference, _request())
        assert client.read(address + BYTES, BYTES) == (_floats(number) * 2).tobytes()
    assert [plan.idle for plan in inference._kept.plans.values()] == [[]]
    monkeypatch.setattr(ipc, "MAX_COPY_BYTES", BYTES - 1)
    with pytest.raises(InvalidInput, match=f"input x: expected at most {BYTES - 1} bytes to copy"):
        _answer(inference, _request())


def test_copies_count_among_what_is_kept(table: Regions, client: Any) -> None:
    _, handle = client.allocate(SIZE)
    table.register_cuda("r", handle, 0, SIZE)
    inference = Inference(Alone(), table, OVERSEER)  # type: ignore[arg-type]
    for _ in range(3):
        _answer(inference, _request())
    assert inference._kept._own_bytes == 2 * BYTES


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (_request(("r", SIZE - BYTES + 1)), f"input x: expected bytes within the {SIZE} of region 'r'"),
        (_request(y=("r", SIZE - 4)), f"output y: expected bytes within the {SIZE} of region 'r'"),
        (_request(("r", 1 << 62)), f"input x: expected bytes within the {SIZE} of region 'r'"),
        (_request(size=BYTES - 4), f"input x: expected {BYTES} bytes of shared memory"),
        (_request(datatype="INT32"), "input x: expected FP32"),
        (_request(y=("r", BYTES - 1)), "output y: expected memory of its own, got some of input x"),
        (_request(y=("s", 0)), "output y: expected memory of its own, got some of input x"),
        (_request(("q", 0)), "expected a registered region of r, s, got 'q'"),
    ],
)
@pytest.mark.parametrize("kind", [FakeSession, OnGpu])
def test_requests_that_do_not_fit(table: Regions, client: Any, kind: Any, message: bytes, why: str) -> None:
    address, handle = client.allocate(SIZE)
    table.register_cuda("r", handle, 0, SIZE)
    table.register_cuda("s", handle, 0, SIZE)
    client.write(address, b"\7" * SIZE)
    models = Alone(kind)
    inference = Inference(models, table, OVERSEER)  # type: ignore[arg-type]
    for _ in range(3):
        with pytest.raises(InvalidInput, match=why):
            _answer(inference, message)
    assert client.read(address, SIZE) == b"\7" * SIZE
    assert models.loaded.session.calls == []


def test_text_is_refused(table: Regions, client: Any) -> None:
    _, handle = client.allocate(SIZE)
    table.register_cuda("r", handle, 0, SIZE)
    models = Alone(dtype="string", function=lambda feeds: {"y": feeds["x"]})
    inference = Inference(models, table, OVERSEER)  # type: ignore[arg-type]
    with pytest.raises(
        InvalidInput, match="input x: expected BYTES in POSIX shared memory, got a GPU's memory"
    ):
        _answer(inference, _request(y=None, datatype="BYTES"))
    text = pb.ModelInferRequest.FromString(_request(x=None, rows=1, datatype="BYTES"))
    text.raw_input_contents[0] = bytes(4) * WIDE
    with pytest.raises(
        InvalidInput, match="output y: expected BYTES in POSIX shared memory, got a GPU's memory"
    ):
        _answer(inference, text.SerializeToString())
    assert models.loaded.session.calls == []


def test_elements_that_are_no_bools(table: Regions, client: Any) -> None:
    address, handle = client.allocate(SIZE)
    table.register_cuda("r", handle, 0, SIZE)
    models = Alone(OnGpu, "bool", function=lambda feeds: {"y": ~feeds["x"]})
    inference = Inference(models, table, OVERSEER)  # type: ignore[arg-type]
    request = _request(datatype="BOOL", rows=1, size=WIDE)
    for values in ([0, 1], [0, 2], [1, 1], [255, 0]):
        client.write(address, bytes(values) * (WIDE // 2))
        if max(values) > 1:
            with pytest.raises(InvalidInput, match="input x: expected BOOL as bytes of 0 and 1, got others"):
                _answer(inference, request)
        else:
            _answer(inference, request)
            assert client.read(address + BYTES, 2) == bytes(1 - value for value in values)


@pytest.mark.parametrize("call", ["cuMemcpyDtoHAsync_v2", "cuMemcpyHtoDAsync_v2", "cuStreamSynchronize"])
def test_a_copy_that_fails_costs_its_request(table: Regions, driver: Any, client: Any, call: str) -> None:
    address, handle = client.allocate(SIZE)
    table.register_cuda("r", handle, 0, SIZE)
    inference = Inference(Alone(), table, OVERSEER)  # type: ignore[arg-type]
    for number in range(3):
        driver.standin_fail(call.encode())
        with pytest.raises(DeviceError, match=f"the driver's {call} answers 999"):
            _answer(inference, _request())
        driver.standin_fail(b"")
        client.write(address, _floats(number).tobytes())
        _answer(inference, _request())
        assert client.read(address + BYTES, BYTES) == (_floats(number) * 2).tobytes()
    assert driver.standin_context() == 0


@pytest.mark.parametrize("kind", [FakeSession, OnGpu])
@pytest.mark.parametrize("before", [0, 3])
def test_unregistered_while_it_is_used(
    table: Regions, driver: Any, client: Any, kind: Any, before: int
) -> None:
    """The request ends as it began, on the same memory; then that is closed."""
    go, inside = threading.Event(), threading.Event()

    def slow(feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        inside.set()
        assert go.wait(10)
        return {"y": feeds["x"] * 2}

    address, handle = client.allocate(SIZE)
    table.register_cuda("r", handle, 0, SIZE)
    client.write(address, _floats(1).tobytes())
    models = Alone(kind, function=slow)
    inference = Inference(models, table, OVERSEER)  # type: ignore[arg-type]
    go.set()
    for _ in range(before):
        _answer(inference, _request())
    go.clear()
    inside.clear()
    thread = threading.Thread(target=_answer, args=(inference, _request()))
    thread.start()
    assert inside.wait(10)
    table.unregister(CudaRegion, "r")
    inference.forget()
    assert driver.standin_opened() == 1
    client.write(address + BYTES, bytes(BYTES))
    go.set()
    thread.join(10)
    assert client.read(address + BYTES, BYTES) == (_floats(1) * 2).tobytes()
    models.loaded.session.kept = None  # the test's own
    assert driver.standin_opened() == 0
    with pytest.raises(InvalidInput, match="expected a registered region of none, got 'r'"):
        _answer(inference, _request())


def test_a_region_that_takes_anothers_name(table: Regions, client: Any) -> None:
    inference = Inference(Alone(OnGpu), table, OVERSEER)  # type: ignore[arg-type]
    for value in (1, 2):
        address, handle = client.allocate(SIZE)
        table.register_cuda("r", handle, 0, SIZE)
        client.write(address, np.full((ROWS, WIDE), value, np.float32).tobytes())
        for _ in range(3):
            _answer(inference, _request())
            assert (
                client.read(address + BYTES, BYTES) == np.full((ROWS, WIDE), 2 * value, np.float32).tobytes()
            )
            client.write(address + BYTES, bytes(BYTES))
        table.unregister(CudaRegion)
        inference.forget()


@pytest.mark.usefixtures("driver")
def test_another_gpu_than_the_sessions_is_copied(
    stand_in_driver: Path, start_exporter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_GPUS", "2")
    client = start_exporter({"LD_LIBRARY_PATH": str(stand_in_driver.parent)})
    address, handle = client.allocate(SIZE)
    table = Regions()
    table.register_cuda("r", handle, 1, SIZE)
    models = Alone(OnGpu)
    inference = Inference(models, table, OVERSEER)  # type: ignore[arg-type]
    for number in range(3):
        client.write(address, _floats(number).tobytes())
        _answer(inference, _request())
        assert client.read(address + BYTES, BYTES) == (_floats(number) * 2).tobytes()
    assert models.loaded.session.bound == {"x": False, "y": False}
