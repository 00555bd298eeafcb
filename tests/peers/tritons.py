"""An unmodified tritonclient, and what its tests say often."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

triton = pytest.importorskip(
    "tritonclient.grpc", reason="tritonclient is not installed", exc_type=ImportError
)
shared = pytest.importorskip("tritonclient.utils.shared_memory", exc_type=ImportError)
from tritonclient.utils import InferenceServerException  # noqa: E402

FLOATS = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
PREFIX = f"trocar_oip_{os.getpid()}_"


def tensor(name: str, array: np.ndarray, datatype: str) -> Any:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def pair(left: np.ndarray = FLOATS, right: np.ndarray = FLOATS) -> list[Any]:
    return [tensor("left", left, "FP32"), tensor("right", right, "FP32")]


def refused(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as raised:
        call()
    assert "\n" not in raised.value.message()
    return raised.value.status().removeprefix("StatusCode."), raised.value.message()


def text_of(call: Callable[[], Any]) -> str:
    """Why a call was refused; empty where it was not."""
    try:
        call()
    except InferenceServerException as error:
        return str(error.message())
    return ""


def typed(name: str, datatype: str, shape: list[int], **contents: Any) -> Any:
    from tritonclient.grpc import service_pb2

    tensor = service_pb2.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    return tensor


def infer(client: Any, model: str, *tensors: Any) -> Any:
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name=model, inputs=tensors)
    return client._client_stub.ModelInfer(request, timeout=20)


TEXT = np.array([[b"", "naïve\0".encode()], [b"x" * 300, b"b"]], object)
NUMBERS = {
    "bool": np.array([[True, False], [False, True]]),
    "float32": np.array([[-0.0, np.inf], [1e-45, 3.4e38]], np.float32),
    "float64": np.array([[-0.0, -np.inf], [5e-324, 1.7e308]], np.float64),
    **{
        name: np.array([[np.iinfo(name).min, np.iinfo(name).max], [0, 1]], name)
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
}
# The protocol's name of each, and where typed elements of it stand.
TYPED = {
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


def kinds() -> list[Any]:
    numbers = [tensor(name, array, TYPED[name][0]) for name, array in NUMBERS.items()]
    return [tensor("text", TEXT, "BYTES"), *numbers]


def check_kinds(reply: Any) -> None:
    for name, array in NUMBERS.items():
        found = reply.as_numpy(f"{name}_out")
        assert (found.dtype, found.tobytes()) == (array.dtype, array.tobytes())
    assert reply.as_numpy("text_out").tolist() == TEXT.tolist()
