"""Two models that next to nothing runs in: a picture's and a volume's tensors, to measure how they travel.

The frame goes through one convolution, 196 kB in and 64 kB out; of the volume one channel of four comes back
doubled, 9.4 MB in and 2.4 MB out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trocar.bench.workloads import _onnx

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

_OPSET = 17


@dataclass(frozen=True, slots=True)
class Model:
    """One of them; its tensors are named as the model and `answer`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    answer_shape: tuple[int, ...]

    def payload(self, seed: int = 0) -> Array:
        """An input."""
        import numpy as np

        random = np.random.default_rng(seed)
        if self.dtype == "uint8":
            return random.integers(0, 256, self.shape, dtype=np.uint8)
        return random.random(self.shape, dtype=np.float32)


FRAME = Model("frame", "uint8", (1, 3, 256, 256), (1, 4, 64, 64))
VOLUME = Model("volume", "float32", (1, 4, 64, 96, 96), (1, 1, 64, 96, 96))
ANSWER = "answer"


def publish(folder: Path) -> None:
    """Publish both."""
    from trocar.runtime.repository.store import Repository

    files = graphs()
    for model in (FRAME, VOLUME):
        fields = {
            "task": "next to nothing",
            "intended_use": "measuring how tensors travel",
            "limits": [],
            "inputs": [_tensor(model.name, model.dtype, model.shape)],
            "outputs": [_tensor(ANSWER, "float32", model.answer_shape)],
            "opset": _OPSET,
            "training": {},
            "metrics": {},
            "parity": {},
            "novelty": {},
        }
        card = f"# {model.name}\n".encode()
        Repository(folder).publish(model.name, fields, {"model.onnx": files[model.name], "card.md": card})


def graphs() -> dict[str, bytes]:
    """Their ONNX files by name."""
    return {FRAME.name: _frame(), VOLUME.name: _volume()}


def _tensor(name: str, dtype: str, shape: tuple[int, ...]) -> dict[str, object]:
    return {"name": name, "dtype": dtype, "shape": list(shape), "layout": "any"}


def _frame() -> bytes:
    import numpy as np

    weights = 0.1 * np.random.default_rng(0).standard_normal((4, 3, 3, 3))
    nodes = [
        _onnx.node("Cast", [FRAME.name], "floats", to=_onnx.FLOAT),
        _onnx.node("Mul", ["floats", "least"], "scaled"),
        _onnx.node(
            "Conv", ["scaled", "weights"], "sums", strides=(4, 4), pads=(1, 1, 1, 1), kernel_shape=(3, 3)
        ),
        _onnx.node("Relu", ["sums"], ANSWER),
    ]
    constants = {"least": np.array(1 / 255, np.float32), "weights": weights.astype(np.float32)}
    return _file(FRAME, nodes, constants, _onnx.UINT8)


def _volume() -> bytes:
    import numpy as np

    nodes = [
        _onnx.node("Slice", [VOLUME.name, "first", "end", "axis"], "channel"),
        _onnx.node("Mul", ["channel", "two"], ANSWER),
    ]
    constants: dict[str, Array] = {
        name: np.array([number], np.int64) for name, number in (("first", 0), ("end", 1), ("axis", 1))
    }
    constants["two"] = np.array(2.0, np.float32)
    return _file(VOLUME, nodes, constants, _onnx.FLOAT)


def _file(model: Model, nodes: list[bytes], constants: dict[str, Array], kind: int) -> bytes:
    return _onnx.model(
        model.name,
        b"".join(nodes),
        _onnx.value("input", model.name, kind, model.shape),
        _onnx.value("output", ANSWER, _onnx.FLOAT, model.answer_shape),
        b"".join(_onnx.constant(name, array) for name, array in constants.items()),
        opset=_OPSET,
    )


def open_client(
    target: str, model: Model, *, shared: bool = False, runs: bool = True
) -> tuple[Callable[[Array], Array], Callable[[], None]]:
    """A call of tritonclient's on a connection of its own, as its users write it, and what ends it.

    Parameters
    ----------
    shared : whether tensors lie in shared memory; else they travel in the message.
    runs : whether the model is run; else, for shared memory, the server is only asked whether it lives: the
        client's copy and an empty call are what no server can do without.
    """
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(target)
    given = triton.InferInput(
        model.name, list(model.shape), {"uint8": "UINT8", "float32": "FP32"}[model.dtype]
    )
    wanted = triton.InferRequestedOutput(ANSWER)
    if shared:
        return _in_shared_memory(client, model, given, wanted, runs=runs)

    def call(array: Array) -> Array:
        given.set_data_from_numpy(array)
        answer: Array = client.infer(model.name, [given], outputs=[wanted]).as_numpy(ANSWER)
        return answer

    return call, client.close


def _in_shared_memory(
    client: Any, model: Model, given: Any, wanted: Any, *, runs: bool
) -> tuple[Callable[[Array], Array], Callable[[], None]]:
    import uuid

    import numpy as np
    from tritonclient.utils import shared_memory

    floats = int(np.prod(model.answer_shape))
    sizes = {"in": model.payload().nbytes, "out": 4 * floats}
    regions = {}
    for end, size in sizes.items():
        name = f"trocar-bench-{uuid.uuid4().hex}-{end}"
        regions[end] = name, shared_memory.create_shared_memory_region(name, f"/{name}", size)
        client.register_system_shared_memory(name, f"/{name}", size)
    given.set_shared_memory(regions["in"][0], sizes["in"])
    wanted.set_shared_memory(regions["out"][0], sizes["out"])

    def call(array: Array) -> Array:
        shared_memory.set_shared_memory_region(regions["in"][1], [array])
        if runs:
            client.infer(model.name, [given], outputs=[wanted])
        else:
            client.is_server_live()
        answer: Array = shared_memory.get_contents_as_numpy(
            regions["out"][1], np.float32, list(model.answer_shape)
        )
        return answer

    def close() -> None:
        for name, region in regions.values():
            client.unregister_system_shared_memory(name)
            shared_memory.destroy_shared_memory_region(region)
        client.close()

    return call, close
