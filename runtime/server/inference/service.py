"""GRPCInferenceService: every method takes bytes and gives bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from trocar.inference_v2 import open_inference_pb2 as pb
from trocar.runtime.config import limits, parse_table
from trocar.runtime.errors import Cancelled, InvalidInput, PermissionDenied, QueueFull, TrocarError
from trocar.runtime.server.inference import control, wire
from trocar.runtime.server.inference.infer import STAGES, Inference
from trocar.runtime.server.inference.models import Batching, Models
from trocar.runtime.server.inference.overseer import Overseer
from trocar.runtime.server.inference.regions import Regions
from trocar.runtime.server.interceptors import MAX_DETAILS
from trocar.runtime.server.services import ServiceContext
from trocar.runtime.session.cuda import Gpu, find_gpu

SERVICE = "inference.GRPCInferenceService"
# The wait in the queue is told by whoever keeps the queue.
TRACED = tuple(name for name in STAGES if name != "queue")
# What the protocol's clients may call and nothing here does.
UNSUPPORTED = ("TraceSetting", "LogSettings")
# Methods that need a GPU, and those that tell where memory lies.
ON_GPU, OF_MEMORY = "CudaSharedMemory", "SharedMemoryRegister"
# Each open stream holds one of the server's threads, of which health and refusals need some.
MAX_STREAMS = 4
# Any request but ModelInfer's: names and numbers.
MAX_REQUEST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class InferenceConfig:
    """The `[services.inference]` table.

    Parameters
    ----------
    load_at_start : whether every model of the repository is loaded when the server starts.
    threads : of each model's session.
    run_limit_s : a run that takes longer is ended.
    shared_memory : whether clients may register shared memory, POSIX or a GPU's.
    shared_memory_prefix : with which the names of POSIX shared-memory objects have to begin.
    batching : which models merge requests.
    """

    load_at_start: bool = True
    threads: int = field(default=1, metadata=limits(1, 256))
    run_limit_s: float = field(default=30.0, metadata=limits(0.1, 3600))
    shared_memory: bool = True
    shared_memory_prefix: str = ""
    batching: Batching = field(default_factory=Batching)


def add_service(server: grpc.Server, context: ServiceContext) -> Sequence[str]:
    """Add the service to a server."""
    config = parse_table(InferenceConfig, context.settings, where="[services.inference]")
    overseer = Overseer(config.run_limit_s)
    models = Models(
        context.sessions,
        context.scheduler,
        max_queued=context.max_queued,
        threads=config.threads,
        batching=config.batching,
        overseer=overseer,
    )
    if config.load_at_start:
        models.load_all()
    regions = Regions(enabled=config.shared_memory, prefix=config.shared_memory_prefix)
    record = context.telemetry.stages("inference", TRACED, timed=False)
    inference = Inference(models, regions, overseer, record)
    context.telemetry.collect(models.families)

    def take(name: str) -> str | None:
        version = models.take(name)
        inference.forget()
        return version

    names = models.known if config.load_at_start else models.names
    context.watch.follow("inference", context.repository, names, take)
    streams = Streams(inference)
    context.on_drain(streams.end)
    context.ready_while(SERVICE, models.ready)

    def infer(message: bytes, call: Any) -> bytes:
        return _answer(inference, message, call)

    handlers: dict[str, Any] = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(infer),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(streams.serve),
    }
    for name, method in control.methods(models, regions, inference.forget).items():
        request = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name[name].input_type
        handle = _typed(getattr(pb, request.name), method)
        if name.endswith(OF_MEMORY):
            handle = _from_here(handle)
        if name.startswith(ON_GPU):
            handle = _on_gpu(name, handle)
        handlers[name] = grpc.unary_unary_rpc_method_handler(handle)
    handlers |= {name: grpc.unary_unary_rpc_method_handler(_unsupported(name)) for name in UNSUPPORTED}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    return (SERVICE,)


def _answer(inference: Inference, message: bytes, call: Any, *, in_stream: bool = False) -> bytes:
    return inference.answer(
        message,
        remaining_s=call.time_remaining(),
        abandoned=lambda: not call.is_active(),
        in_stream=in_stream,
    )


def _typed(kind: Any, method: Callable[[Any], Any]) -> Callable[[bytes, Any], bytes]:
    """Return a method of messages as one of bytes."""

    def handle(data: bytes, _: Any) -> bytes:
        if len(data) > MAX_REQUEST_BYTES:
            name = kind.DESCRIPTOR.name
            raise InvalidInput(f"expected {name} of at most {MAX_REQUEST_BYTES} bytes, got {len(data)}")
        try:
            request = kind.FromString(data)
        except DecodeError as error:
            raise InvalidInput(
                f"expected the protobuf message {kind.DESCRIPTOR.name}, got bytes that do not parse as it"
            ) from error
        answer: bytes = method(request).SerializeToString()
        return answer

    return handle


def _from_here(method: Callable[[bytes, Any], bytes]) -> Callable[[bytes, Any], bytes]:
    """Return a method that clients of other machines may not call: this one's memory is none of theirs."""

    def handle(data: bytes, call: Any) -> bytes:
        peer = call.peer()
        if not peer.startswith(("unix:", "ipv4:127.", "ipv6:%5B::1%5D:")):
            raise PermissionDenied(f"expected a client of this machine for shared memory, got {peer:.80}")
        return method(data, call)

    return handle


def _on_gpu(name: str, method: Callable[[bytes, Any], bytes]) -> Callable[[bytes, Any], bytes]:
    """Return a method that is unsupported where there is no GPU."""

    def handle(data: bytes, call: Any) -> bytes:
        found = find_gpu()
        if not isinstance(found, Gpu):
            call.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} needs a GPU; {found}")
        return method(data, call)

    return handle


def _unsupported(name: str) -> Callable[[bytes, Any], bytes]:
    def refuse(_: bytes, call: Any) -> bytes:
        call.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} is not supported by this server")
        raise AssertionError("abort raises")

    return refuse


def _until_gone(messages: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from messages
    except grpc.RpcError:
        raise Cancelled("the client went away") from None


class Streams:
    """ModelStreamInfer: requests of one stream are answered in order, and a refused one does not end it.

    Parameters
    ----------
    inference : what answers.
    """

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._lock = threading.Lock()
        # Open streams, and whether each is waiting for its client.
        self._idle: dict[Any, bool] = {}
        self._ending = False

    def serve(self, messages: Iterator[bytes], call: Any) -> Iterator[bytes]:
        """Answer until the client has no more, or the server drains."""
        self._enter(call)
        try:
            for message in _until_gone(messages):
                if not self._busy(call):
                    return
                yield self._one(message, call)
                if self._rest(call):
                    call.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        finally:
            with self._lock:
                self._idle.pop(call, None)

    def end(self) -> None:
        """End idle streams now, and the others after their next answer."""
        with self._lock:
            self._ending = True
            idle = [call for call, waits in self._idle.items() if waits]
        for call in idle:
            call.cancel()

    def _one(self, message: bytes, call: Any) -> bytes:
        try:
            return _answer(self._inference, message, call, in_stream=True)
        except TrocarError as error:
            return wire.stream_error(" ".join(str(error).split())[:MAX_DETAILS])

    def _enter(self, call: Any) -> None:
        with self._lock:
            if len(self._idle) >= MAX_STREAMS:
                raise QueueFull(f"expected at most {MAX_STREAMS} open streams, got one more; use ModelInfer")
            self._idle[call] = True

    def _busy(self, call: Any) -> bool:
        """Take the stream from its rest; False where the drain has cancelled it."""
        with self._lock:
            self._idle[call] = False
            return not self._ending

    def _rest(self, call: Any) -> bool:
        """Let the stream wait for its client again; True where the server drains instead."""
        with self._lock:
            self._idle[call] = True
            return self._ending
