"""The least server of the Open Inference Protocol: grpcio and generated messages, as anybody would write it.

Arguments: sync or aio, then NAME=FILE.onnx for each model; it serves until its input ends.
"""

import asyncio
import ctypes
import json
import sys
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import onnxruntime
from tritonclient.grpc import service_pb2, service_pb2_grpc

DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype(np.uint8), "FP32": np.dtype(np.float32)}
DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
]


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """One call, in a thread of a pool."""

    def __init__(self, files: dict[str, str]) -> None:
        self.sessions = {name: opened(path) for name, path in files.items()}

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """Answer."""
        session = self.sessions[request.model_name]
        tensor = request.inputs[0]
        values = np.frombuffer(request.raw_input_contents[0], DTYPES[tensor.datatype])
        name = session.get_outputs()[0].name
        found = session.run([name], {tensor.name: values.reshape(tuple(tensor.shape))})[0]
        reply = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
        reply.outputs.add(name=name, datatype=DATATYPES[found.dtype], shape=found.shape)
        reply.raw_output_contents.append(found.tobytes())
        return reply


class AioService(Service):
    """The same in an event loop."""

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer."""
        return super().ModelInfer(request, context)


def opened(path: str) -> Any:
    """A session of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def keep_large_buffers() -> None:
    """Without this a volume is paid for in page faults, and nobody's server would be compared."""
    for parameter, setting in ((-3, 32 << 20), (-1, 128 << 20), (-2, 16 << 20), (-8, 1)):
        ctypes.CDLL(None).mallopt(parameter, setting)


def serve(server: Any, service: Service) -> int:
    """Add the service, and listen."""
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    return int(server.add_insecure_port("127.0.0.1:0"))


def say(port: int) -> None:
    """One line of JSON."""
    print(json.dumps({"name": "grpcio", "version": grpc.__version__, "port": port}), flush=True)


async def run_aio(files: dict[str, str]) -> None:
    """Serve from an event loop."""
    server = grpc.aio.server(options=OPTIONS)
    port = serve(server, AioService(files))
    await server.start()
    say(port)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Serve."""
    keep_large_buffers()
    files = dict(word.split("=", 1) for word in sys.argv[2:])
    if sys.argv[1] == "aio":
        asyncio.run(run_aio(files))
        return
    server = grpc.server(futures.ThreadPoolExecutor(8), options=OPTIONS)
    port = serve(server, Service(files))
    server.start()
    say(port)
    sys.stdin.read()


if __name__ == "__main__":
    main()
