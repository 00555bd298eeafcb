"""From the bytes of a case to a plan with its proof: in this process, and as a client of a server gets it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from trocar.bench.scenarios import Call
    from trocar.planners.generator import Generator
    from trocar.planners.pipeline import PlanRequest

NAME = "brachy"
HELP = "case to validated plan: in process, and over gRPC by TCP and by Unix socket"

_CONFIG = '[server]\nservices = "planning"\nlog_level = "warning"\n'
LISTENS = {"grpc tcp": False, "grpc unix": True}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the workload's options."""
    from trocar.bench.workloads import _load

    parser.add_argument("--phantom", type=int, default=7000, help="phantom's number (default %(default)s)")
    parser.add_argument("--moves", type=int, default=5000, help="of the search (default %(default)s)")
    parser.add_argument("--chains", type=int, default=1, help="of the search (default %(default)s)")
    _load.add_arguments(parser, requests=30, bound_ms=1000.0)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Plan the same case every way; it passes where all give the same plan, and an acceptable one."""
    from trocar.bench.serving import served
    from trocar.bench.timing import Timing, beside
    from trocar.bench.usage import Meter
    from trocar.bench.workloads import _load
    from trocar.planners.generator import Generator
    from trocar.planners.io.seg_writer import write_seg_nrrd
    from trocar.planners.phantom import phantom_case
    from trocar.planners.types import require

    require(args.moves >= 1 and args.chains >= 1, "expected moves and chains of 1 or more")
    content = write_seg_nrrd(phantom_case(args.phantom))
    generator = Generator.open()
    stages: dict[str, list[Mapping[str, float]]] = {}
    plans: dict[str, Any] = {}

    def kept(name: str, document: Mapping[str, Any]) -> None:
        stages.setdefault(name, []).append(document["timing_ms"])
        plans[name] = (document["plan"]["needles"], document["validity"]["acceptable"])

    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(served(unix=unix, config=_CONFIG)) for name, unix in LISTENS.items()
        }
        cases: dict[str, Callable[[], Call]] = {
            "in process": lambda: _in_process(content, _request(args), generator, kept),
            "network alone": lambda: _network_alone(generator),
        }
        for name, server in servers.items():
            request = _grpc_request(content, args)
            cases[name] = partial(_over_grpc, stack, server.target, request, partial(kept, name))
        meter = Meter([server.process for server in servers.values()])
        found = _load.measure(cases, args)
        timings = found["timings"]
        used = meter.document()
    # Each way was called once before the clock started; stages in the order they ran.
    order = list(stages["in process"][0])
    by_stage = {
        name: {stage: Timing(tuple(one[stage] for one in taken[1:])).document() for stage in order}
        for name, taken in stages.items()
    }
    least_ms = timings["network alone"]["p50_ms"] + by_stage["in process"]["refine"]["p50_ms"]
    for name in timings if _load.is_closed(args) else ():
        if name in servers:
            in_process_ms = timings["in process"]["p50_ms"]
            timings[name] = beside(timings[name], in_process_ms, "the same in one process")
        elif name == "in process":
            timings[name] = beside(timings[name], least_ms, "the network's run and the search alone")
    same = len({repr(needles) for needles, _ in plans.values()}) == 1
    return {
        **found,
        "stages": by_stage,
        "servers_used": used,
        "same_plan": same,
        "passed": same and all(acceptable for _, acceptable in plans.values()),
    }


def _request(args: argparse.Namespace) -> PlanRequest:
    from trocar.planners.dose.source import load_source
    from trocar.planners.pipeline import PlanRequest
    from trocar.planners.protocol import load_protocol
    from trocar.planners.requests import DEFAULT_PROTOCOL

    protocol = load_protocol(DEFAULT_PROTOCOL)
    return PlanRequest(
        protocol=protocol,
        source=load_source(protocol.source),
        strength_u=protocol.strength_u,
        prescription_gy=protocol.prescription_gy,
        moves=args.moves,
        chains=args.chains,
    )


def _in_process(
    content: bytes,
    request: PlanRequest,
    generator: Generator,
    kept: Callable[[str, Mapping[str, Any]], None],
) -> Call:
    from trocar.bench.workloads.planning import plan_bytes

    return lambda: kept("in process", plan_bytes(content, request, generator).document())


def _grpc_request(content: bytes, args: argparse.Namespace) -> Any:
    """The same case, settings and search as a message."""
    from trocar.planners.requests import CaseInput, Search, Settings
    from trocar.planners.servicer import messages
    from trocar.v1 import planning_pb2

    return planning_pb2.PlanRequest(
        case=messages.case_message(CaseInput(name="case", nrrd=content)),
        settings=messages.settings_message(Settings()),
        search=messages.search_message(Search(moves=args.moves, chains=args.chains)),
    )


def _over_grpc(
    stack: ExitStack, target: str, request: Any, kept: Callable[[Mapping[str, Any]], None]
) -> Call:
    """A call on a connection that stays, as a planning system's client has."""
    from trocar.bench.serving import connection
    from trocar.planners.servicer import messages
    from trocar.v1 import planning_pb2_grpc

    stub = planning_pb2_grpc.PlanningServiceStub(stack.enter_context(connection(target)))
    return lambda: kept(messages.read_reply(stub.Plan(request, timeout=60.0), ())[0])


def _network_alone(generator: Generator) -> Call:
    """One run of the network that proposes, on zeros of its inputs' shapes."""
    import numpy as np

    from trocar.runtime.repository.load import open_model
    from trocar.runtime.repository.store import shipped

    session = open_model(shipped().open(generator.name.partition("/")[0]), device="cpu")
    feeds: dict[str, np.ndarray[Any, Any]] = {
        spec.name: np.zeros([size if isinstance(size, int) else 1 for size in spec.shape], spec.dtype)
        for spec in session.inputs
    }
    return lambda: session.run(feeds)
