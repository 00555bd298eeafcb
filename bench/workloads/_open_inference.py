"""A client of the Open Inference Protocol v2, on bytes: it adds to a call what every client has to."""

from __future__ import annotations

import mmap
import os
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from trocar.bench.serving import connection
from trocar.inference_v2 import open_inference_pb2 as pb
from trocar.runtime.errors import Unavailable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]

_SERVICE = "/inference.GRPCInferenceService/"
_TIMEOUT_S = 60.0
DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
_STAGES = ("queue", "compute_input", "compute_infer", "compute_output")


class Client:
    """A connection of its own to a server: no other client's requests share it."""

    def __init__(self, target: str) -> None:
        self._channel = connection(target)
        self._target = target

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def empty(self) -> None:
        """A round trip with next to nothing in it: ServerLive."""
        self._call("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse)

    def infer(self, request: Any) -> Any:
        """A ModelInfer of a request that `request` or `shared_request` made."""
        return self._call("ModelInfer", request, pb.ModelInferResponse)

    def register(self, region: Region) -> None:
        """Tell the server of shared memory."""
        message = pb.SystemSharedMemoryRegisterRequest(
            name=region.name, key=region.name, byte_size=region.size_bytes
        )
        self._call("SystemSharedMemoryRegister", message, pb.SystemSharedMemoryRegisterResponse)

    def reload(self, model: str) -> None:
        """Unload a model and load it again."""
        unload = pb.RepositoryModelUnloadRequest(model_name=model)
        self._call("RepositoryModelUnload", unload, pb.RepositoryModelUnloadResponse)
        load = pb.RepositoryModelLoadRequest(model_name=model)
        self._call("RepositoryModelLoad", load, pb.RepositoryModelLoadResponse)

    def is_ready(self, model: str) -> bool:
        """ModelReady."""
        return bool(self._call("ModelReady", pb.ModelReadyRequest(name=model), pb.ModelReadyResponse).ready)

    def stages_ms(self, model: str) -> dict[str, float]:
        """Where the server's time of a request of this model went, mean since it started."""
        reply = self._call(
            "ModelStatistics", pb.ModelStatisticsRequest(name=model), pb.ModelStatisticsResponse
        )
        stats = reply.model_stats[0].inference_stats
        found = {name: getattr(stats, name) for name in _STAGES}
        return {name: each.ns / 1e6 / max(1, each.count) for name, each in found.items()}

    def _call(self, method: str, message: Any, reply: Any) -> Any:
        call = self._channel.unary_unary(
            _SERVICE + method,
            request_serializer=type(message).SerializeToString,
            response_deserializer=reply.FromString,
        )
        try:
            return call(message, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            raise Unavailable(f"{self._target}: {method}: {error.details()}") from error


class Region:
    """Shared memory of this user, under a name that nobody else has; gone when it is closed."""

    def __init__(self, size_bytes: int) -> None:
        self.name, self.size_bytes = f"trocar-bench-{uuid.uuid4().hex}", size_bytes
        self._path = f"/dev/shm/{self.name}"
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
            self.memory = mmap.mmap(descriptor, size_bytes)
        except OSError:
            os.unlink(self._path)
            raise
        finally:
            os.close(descriptor)

    def __enter__(self) -> Region:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.unlink(self._path)
        self.memory.close()


def request(model: str, inputs: Mapping[str, Array]) -> Any:
    """A ModelInfer with the tensors in the message."""
    message = pb.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        message.inputs.add(name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    return message


def shared_request(model: str, name: str, array: Array, output: str, region: Region) -> Any:
    """A ModelInfer with its input in the first half of a region and its output, as large, in the second."""
    message = pb.ModelInferRequest(model_name=model)
    tensor = message.inputs.add(name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape)
    wanted = message.outputs.add(name=output)
    for parameters, offset in ((tensor.parameters, 0), (wanted.parameters, region.size_bytes // 2)):
        parameters["shared_memory_region"].string_param = region.name
        parameters["shared_memory_byte_size"].int64_param = array.nbytes
        parameters["shared_memory_offset"].int64_param = offset
    return message


def output_of(reply: Any, dtype: type[np.generic]) -> Array:
    """The first output of a reply, as it lies in the message."""
    import numpy as np

    return np.frombuffer(reply.raw_output_contents[0], dtype)
