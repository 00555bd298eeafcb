"""Our server beside others that serve the same two models, by tritonclient, in one interleaved run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trocar.bench.timing import Timing
    from trocar.bench.workloads._frame_volume import Model

NAME = "servers"
HELP = "our server beside bare grpcio and others, with a frame and a volume: latency, four clients, memory"

OURS, SHARED, BARE = "trocar", "trocar, shared memory", "bare sync"
# What of the second no server can do without.
FLOOR = "floor: copied to shared memory, an empty call"
_CONFIG = '[server]\nservices = "inference"\nrepository = "{folder}"\nlog_level = "warning"\n'
# Requests of a server in one go: each is as warm as it is in use, and a slow minute falls on all.
_IN_A_GO = {"frame": 50, "volume": 10}


@dataclass(frozen=True, slots=True)
class Server:
    """Where one listens; whether by shared memory; whether its models are run; its process, if known."""

    target: str
    shared: bool = False
    runs: bool = True
    process: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    parser.add_argument("--frames", type=int, default=1500, help="to each server (default %(default)s)")
    parser.add_argument("--volumes", type=int, default=200, help="(default %(default)s)")
    parser.add_argument(
        "--clients", type=int, default=4, help="at once, for requests a second (default %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="of those, three times (default %(default)s)"
    )
    parser.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="NAME=HOST:PORT",
        help="another one that serves the models, which --models writes (may be repeated)",
    )
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="write frame.onnx and volume.onnx, and end"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure; every server's first answers have to be the network's own."""
    import tempfile

    from trocar.bench.workloads._frame_volume import FRAME, VOLUME, publish
    from trocar.runtime.errors import InvalidInput
    from trocar.runtime.server.allocator import keep_large_buffers

    if args.frames < 1 or args.volumes < 1 or args.clients < 0 or args.seconds <= 0:
        raise InvalidInput("expected frames and volumes of 1 or more, clients of 0 or more, seconds > 0")
    if args.models is not None:
        return {"models": _written(args.models)}
    # The client's part of a volume would be page faults.
    keep_large_buffers()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trocar-servers-")))
        publish(folder)
        servers, missing = _started(stack, folder, args)
        memory = _memory(servers[OURS], args)
        times: dict[str, Timing] = {}
        for model, requests in ((FRAME, args.frames), (VOLUME, args.volumes)):
            times |= _in_turn(servers, model, requests, folder)
        many = _many(servers, (FRAME, VOLUME), args) if args.clients else []
    return {
        "timings": {name: timing.document() for name, timing in times.items()},
        "tables": {
            "beside bare sync, tensors in the message": _ratios(times),
            f"{args.clients} clients": many,
            "trocar, resident": [{"when": when, "MiB": round(found, 1)} for when, found in memory.items()],
        },
        "missing": missing,
    }


def _started(
    stack: ExitStack, folder: Path, args: argparse.Namespace
) -> tuple[dict[str, Server], dict[str, str]]:
    """The servers by name; what cannot be measured, and why."""
    import sys

    from trocar.bench.peers import started
    from trocar.bench.serving import served
    from trocar.runtime.errors import InvalidInput, Unavailable

    ours = stack.enter_context(served(config=_CONFIG.format(folder=folder)))
    servers = {
        OURS: Server(ours.target, process=ours.process),
        SHARED: Server(ours.target, shared=True),
        FLOOR: Server(ours.target, shared=True, runs=False),
    }
    missing = {}
    files = [f"{name}={folder / name / '1' / 'model.onnx'}" for name in ("frame", "volume")]
    for name, kind in ((BARE, "sync"), ("bare aio", "aio")):
        try:
            peer = stack.enter_context(
                started("bare_inference", sys.executable, (kind, *files), folder / f"{kind}.log")
            )
            servers[name] = Server(f"127.0.0.1:{peer.said['port']}")
        except Unavailable as error:
            missing[name] = str(error)
    for text in args.server:
        name, equals, target = text.partition("=")
        if not (name and equals and ":" in target) or name in servers:
            raise InvalidInput(f"--server: expected a new NAME=HOST:PORT, got {text!r}")
        servers[name] = Server(target)
    return servers, missing


def _memory(server: Server, args: argparse.Namespace) -> dict[str, float]:
    """What the server holds, MiB. No shared memory yet: a server that maps its clients' seems to hold it."""
    import time

    from trocar.bench.usage import resident_mib
    from trocar.bench.workloads._frame_volume import FRAME, VOLUME, open_client

    memory = {"at the start": resident_mib(server.process)}
    for model in (FRAME, VOLUME):
        call, close = open_client(server.target, model, shared=False)
        for _ in range(_IN_A_GO[model.name]):
            call(model.payload())
        close()
    memory["after one client"] = resident_mib(server.process)
    if args.clients:
        _together(server, VOLUME, args.clients, args.seconds)
        memory[f"at most, {args.clients} clients sending volumes"] = resident_mib(server.process, "VmHWM")
        time.sleep(1.0)
        memory["a second later"] = resident_mib(server.process)
    return memory


def _in_turn(servers: dict[str, Server], model: Model, requests: int, folder: Path) -> dict[str, Timing]:
    """Latencies of one client, some requests to each server in turn."""
    import random
    import time

    import numpy as np

    from trocar.bench.progress import stop_was_asked, track
    from trocar.bench.timing import Timing
    from trocar.bench.workloads._frame_volume import open_client

    payload = model.payload()
    expected = _expected(folder, model, payload)
    calls: dict[str, Callable[[Any], Any]] = {}
    samples: dict[str, list[float]] = {name: [] for name in servers}
    with ExitStack() as stack:
        for name, server in servers.items():
            calls[name], close = open_client(server.target, model, shared=server.shared, runs=server.runs)
            stack.callback(close)
            for _ in range(_IN_A_GO[model.name]):
                answer = calls[name](payload)
                if server.runs and not np.allclose(answer, expected, atol=1e-5):
                    raise AssertionError(f"{name}: another answer than the network's")
        goes = -(-requests // _IN_A_GO[model.name])
        for turn in track(range(goes), model.name):
            for name in random.Random(turn).sample(list(servers), len(servers)):
                calls[name](payload)  # the first after another server's finds the caches cold
                for _ in range(min(_IN_A_GO[model.name], requests - len(samples[name]))):
                    start = time.perf_counter()
                    calls[name](payload)
                    samples[name].append(1e3 * (time.perf_counter() - start))
            if stop_was_asked():
                break
    return {f"{model.name} {name}": Timing(tuple(found)) for name, found in samples.items()}


def _expected(folder: Path, model: Model, payload: Any) -> Any:
    from trocar.runtime.repository.load import open_model
    from trocar.runtime.repository.store import Repository

    session = open_model(Repository(folder).open(model.name), device="cpu")
    return next(iter(session.run({model.name: payload}).values()))


def _ratios(times: dict[str, Timing]) -> list[dict[str, Any]]:
    """Each case's percentiles, and over those of the bare server's plain requests."""
    rows = []
    for case, timing in times.items():
        base = times.get(f"{case.split()[0]} {BARE}")
        row: dict[str, Any] = {"case": case}
        for percent in (50, 99):
            found = timing.percentile_ms(percent)
            row[f"p{percent} ms"] = round(found, 3)
            if base is not None:
                row[f"p{percent} over bare"] = round(found / base.percentile_ms(percent), 3)
        rows.append(row)
    return rows


def _many(
    servers: dict[str, Server], models: tuple[Model, ...], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Requests a second of several clients, each in a process; the median of three goes in turn."""
    import statistics

    from trocar.bench.progress import track

    cases = [(model, name) for model in models for name, server in servers.items() if server.runs]
    found: dict[tuple[str, str], list[float]] = {(model.name, name): [] for model, name in cases}
    for _ in track(range(3), f"{args.clients} clients"):
        for model, name in cases:
            found[model.name, name].append(_together(servers[name], model, args.clients, args.seconds))
    return [
        {
            "model": model,
            "server": name,
            "a second": round(statistics.median(rates), 1),
            "least": round(min(rates), 1),
        }
        for (model, name), rates in found.items()
    ]


def _together(server: Server, model: Model, clients: int, seconds: float) -> float:
    """Answers a second of several clients, which are processes and begin together."""
    import json
    import subprocess
    import sys

    from trocar.runtime.errors import Unavailable

    code = f"from {__name__} import client; client()"
    asked = [server.target, server.shared, model.name, seconds]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, json.dumps([*asked, seed])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for seed in range(clients)
    ]
    try:
        ready = [process.stdout is not None and process.stdout.readline() for process in processes]
        for process, said in zip(processes, ready, strict=True):
            if said and process.stdin is not None:
                process.stdin.write("go\n")
                process.stdin.flush()
        told = [
            process.communicate()[0] if said else "" for process, said in zip(processes, ready, strict=True)
        ]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if not all(told):
        raise Unavailable(f"{server.target}: expected {clients} clients to be answered, got one that was not")
    return sum(map(float, told))


def client() -> None:
    """Be one of several clients: say that it is ready, wait for a line, print answers a second."""
    import json
    import sys
    import time

    from trocar.bench.workloads._frame_volume import FRAME, VOLUME, open_client
    from trocar.runtime.server.allocator import keep_large_buffers

    keep_large_buffers()
    target, shared, name, seconds, seed = json.loads(sys.argv[1])
    model = {FRAME.name: FRAME, VOLUME.name: VOLUME}[name]
    call, close = open_client(target, model, shared=shared)
    payload = model.payload(seed)
    for _ in range(3):
        call(payload)
    print("ready", flush=True)
    sys.stdin.readline()
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        call(payload)
        count += 1
    print(count / passed, flush=True)
    close()


def _written(folder: Path) -> list[str]:
    """The models for other servers, as files."""
    from trocar.bench.workloads._frame_volume import graphs
    from trocar.runtime.files import write_file

    folder.mkdir(parents=True, exist_ok=True)
    paths = {folder / f"{name}.onnx": content for name, content in graphs().items()}
    for path, content in paths.items():
        write_file(path, content)
    return [str(path) for path in paths]
