"""What it costs a small request to be seen: the same request to servers that differ in who looks."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent import futures
from functools import partial
from pathlib import Path
from typing import Any

NAME = "seeing"
HELP = "a small request to a server with and without logs, metrics and traces"

# What each server's [server] table says; {sink} takes spans and does nothing with them.
SETTINGS = {
    "nothing": 'log_level = "warning"',
    "log_text": 'log_level = "info"',
    "log_json": 'log_level = "info"\nlog_format = "json"',
    "metrics": 'log_level = "warning"\nmetrics = "127.0.0.1:0"',
    "traces": 'log_level = "warning"\ntraces = "{sink}"',
    "all": 'log_level = "info"\nlog_format = "json"\nmetrics = "127.0.0.1:0"\ntraces = "{sink}"',
}
_LIVE = "/inference.GRPCInferenceService/ServerLive"
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--repository", help="run its first model too, on zeros (default: ServerLive alone)")
    parser.add_argument("--repeats", type=int, default=1000, help="requests of each kind (default 1000)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, the requests to all servers in turn; it passes where each was answered."""
    from trocar.bench.timing import interleave
    from trocar.bench.usage import resident_mib
    from trocar.runtime.errors import InvalidInput

    if args.repeats < 1:
        raise InvalidInput(f"expected --repeats of 1 or more, got {args.repeats}")
    request = b"" if args.repository is None else _infer_request(args.repository)
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(_sink())
        servers = {
            name: stack.enter_context(_server(text.replace("{sink}", sink), args.repository))
            for name, text in SETTINGS.items()
        }
        cases: dict[str, Callable[[], object]] = {}
        for name, (_, call) in servers.items():
            cases[f"live_{name}"] = partial(call, _LIVE, b"")
            if request:
                cases[f"infer_{name}"] = partial(call, _INFER, request)
        for case in list(cases.values()) * 50:  # every path warm
            case()
        before = {name: _cpu_ns(pid) for name, (pid, _) in servers.items()}
        timings = {name: timing.document() for name, timing in interleave(cases, args.repeats).items()}
        requests = args.repeats * len(cases) // len(servers)
        rows = [
            {
                "who looks": name,
                "server_cpu_us_per_request": round((_cpu_ns(pid) - before[name]) / requests / 1e3, 1),
                "resident_mib": round(resident_mib(pid), 1),
            }
            for name, (pid, _) in servers.items()
        ]
    return {"timings": timings, "tables": {"servers": rows}, "passed": True}


@contextlib.contextmanager
def _server(settings: str, repository: str | None) -> Iterator[tuple[int, Callable[[str, bytes], bytes]]]:
    """Start a server of the inference service; yield its process and what calls it."""
    from trocar.bench.serving import connection, served

    text = f'[server]\nservices = "inference"\n{settings}\n'
    if repository is None:
        text += "[services.inference]\nload_at_start = false\n"
    else:
        text = text.replace("[server]\n", f"[server]\nrepository = {json.dumps(repository)}\n")
    with served(config=text) as server, connection(server.target) as channel:
        methods: dict[str, Any] = {name: channel.unary_unary(name) for name in (_LIVE, _INFER)}
        yield server.process, lambda name, data: bytes(methods[name](data, timeout=60))


@contextlib.contextmanager
def _sink() -> Iterator[str]:
    """Take spans as a collector does, and forget them."""
    import grpc

    server = grpc.server(futures.ThreadPoolExecutor(1))
    take: Any = grpc.unary_unary_rpc_method_handler(lambda _, __: b"")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_EXPORT, {"Export": take}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def _infer_request(repository: str) -> bytes:
    import numpy as np

    from trocar.inference_v2 import open_inference_pb2 as pb
    from trocar.runtime.errors import InvalidInput
    from trocar.runtime.repository.store import open_repository
    from trocar.runtime.server.inference.datatypes import Wire

    found = open_repository(repository)
    if not found.names():
        raise InvalidInput(f"expected models in {found.root}, got none")
    request = pb.ModelInferRequest(model_name=found.names()[0])
    for spec in found.open(found.names()[0]).manifest.inputs:
        shape = [axis if isinstance(axis, int) else 1 for axis in spec.shape]
        request.inputs.add(name=spec.name, datatype=Wire.of(spec).datatype, shape=shape)
        request.raw_input_contents.append(np.zeros(shape, spec.dtype).tobytes())
    return bytes(request.SerializeToString())


def _cpu_ns(pid: int) -> int:
    """CPU time of all threads that live: on a busy machine steadier than the wall's."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text(encoding="utf-8").split()[0]) for task in tasks)
