"""What a call costs before any model runs: sizes by transport, beside an empty call alike."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trocar.bench.scenarios import Call
    from trocar.bench.workloads._open_inference import Client, Region

NAME = "rpc"
HELP = "round trips of the inference service by size: TCP, Unix socket and shared memory"

TRANSPORTS = ("tcp", "unix", "shm")
_CONFIG = """
[server]
services = "inference"
repository = "{folder}"
log_level = "warning"
max_running = 4
max_queued = 64
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    from trocar.bench.workloads import _load

    parser.add_argument(
        "--sizes-kib",
        default="1,64,1024,6075",
        help="of a request and of its answer; 6075 is a 1080p frame of BGR (default %(default)s)",
    )
    parser.add_argument("--transports", default=",".join(TRANSPORTS), help="(default %(default)s)")
    _load.add_arguments(parser, requests=200, bound_ms=10.0)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Send every size over every transport, in turn, to a model that answers with what it was sent."""
    import tempfile

    from trocar.bench.serving import served
    from trocar.bench.timing import beside
    from trocar.bench.usage import Meter
    from trocar.bench.workloads import _identity, _load

    sizes_kib, transports = _sizes(args.sizes_kib), _transports(args.transports)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trocar-rpc-")))
        _identity.publish(folder)
        config = _CONFIG.format(folder=folder)
        servers = {
            kind: stack.enter_context(served(unix=kind == "unix", config=config))
            for kind in dict.fromkeys("unix" if name == "unix" else "tcp" for name in transports)
        }
        meter = Meter([server.process for server in servers.values()])
        cases = _cases(stack, {kind: each.target for kind, each in servers.items()}, transports, sizes_kib)
        found = _load.measure(cases, args)
        timings = found["timings"]
        stages = {kind: _stages(server.target) for kind, server in servers.items()}
        used = meter.document(found["requests_sent"])
    for name in timings:
        transport, _, size = name.partition(" ")
        if size != "empty" and _load.is_closed(args):
            empty_ms = timings[f"{transport} empty"]["p50_ms"]
            timings[name] = beside(timings[name], empty_ms, "an empty call on such a connection")
    rows = [
        {"server on": kind, **{k: round(v, 4) for k, v in found.items()}} for kind, found in stages.items()
    ]
    tables = {**found.get("tables", {}), "in the server, mean ms of a request": rows}
    return {**found, "tables": tables, "servers_used": used}


def _cases(
    stack: ExitStack, targets: dict[str, str], transports: list[str], sizes_kib: list[int]
) -> dict[str, Callable[[], Call]]:
    """What opens a stream of each case: a connection and, for shared memory, a region of its own."""
    from trocar.bench.workloads._open_inference import Client, Region

    def connected(transport: str) -> Client:
        client = Client(targets["unix" if transport == "unix" else "tcp"])
        stack.callback(client.close)
        return client

    def empty(transport: str) -> Call:
        return connected(transport).empty

    def opened(transport: str, size_kib: int) -> Call:
        client = connected(transport)
        if transport == "shm":
            region = stack.enter_context(Region(2 * 1024 * size_kib))
            return _by_region(client, region)
        return _by_message(client, 1024 * size_kib)

    cases: dict[str, Callable[[], Call]] = {}
    for transport in transports:
        cases[f"{transport} empty"] = partial(empty, transport)
        for size in sizes_kib:
            cases[f"{transport} {size} KiB"] = partial(opened, transport, size)
    return cases


def _by_message(client: Client, size_bytes: int) -> Call:
    """The bytes are copied into a message and compared with nothing: a client does as much."""
    import numpy as np

    from trocar.bench.workloads import _identity
    from trocar.bench.workloads._open_inference import output_of, request

    payload = _payload(size_bytes)
    if not np.array_equal(
        output_of(client.infer(request(_identity.NAME, {_identity.INPUT: payload})), np.uint8), payload
    ):
        raise AssertionError("the server answered with other bytes")

    def call() -> None:
        output_of(client.infer(request(_identity.NAME, {_identity.INPUT: payload})), np.uint8)

    return call


def _by_region(client: Client, region: Region) -> Call:
    """The bytes are copied into the region; the answer is read where it lies."""
    from trocar.bench.workloads import _identity
    from trocar.bench.workloads._open_inference import shared_request

    half = region.size_bytes // 2
    payload = _payload(half)
    client.register(region)
    message = shared_request(_identity.NAME, _identity.INPUT, payload, _identity.OUTPUT, region)

    def call() -> None:
        region.memory[:half] = payload.data
        client.infer(message)

    call()
    if region.memory[half:] != payload.tobytes():
        raise AssertionError("the server wrote other bytes")
    return call


def _payload(size_bytes: int) -> Any:
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, size_bytes, dtype=np.uint8)


def _stages(target: str) -> dict[str, float]:
    from trocar.bench.workloads import _identity
    from trocar.bench.workloads._open_inference import Client

    client = Client(target)
    try:
        return client.stages_ms(_identity.NAME)
    finally:
        client.close()


def _sizes(text: str) -> list[int]:
    from trocar.runtime.errors import InvalidInput

    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1 or max(found) > 60 * 1024:
        raise InvalidInput(f"--sizes-kib: expected numbers of 1 to {60 * 1024} such as 1,64, got {text!r}")
    return list(dict.fromkeys(found))


def _transports(text: str) -> list[str]:
    from trocar.runtime.errors import InvalidInput

    found = list(dict.fromkeys(text.split(",")))
    if unknown := [name for name in found if name not in TRANSPORTS]:
        raise InvalidInput(f"--transports: expected some of {', '.join(TRANSPORTS)}, got {unknown[0]!r}")
    return found
