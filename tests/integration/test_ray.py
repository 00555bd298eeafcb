"""The services on a cluster of three nodes on this machine; a node dies while it plans."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed (ray extra)")
pytest.importorskip("ray.serve", reason="Ray Serve is not installed (ray extra)")

from ray.cluster_utils import Cluster  # noqa: E402

from trocar.runtime.config import Config, ServerConfig  # noqa: E402
from trocar.runtime.server.cluster.run import deploy, end  # noqa: E402
from trocar.v1 import planning_pb2, planning_pb2_grpc  # noqa: E402

pytestmark = pytest.mark.timeout(600)
MOVES = 2_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Any, str]]:
    """Three nodes, workers on the two that are not the head."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    ray.init(address=made.address, namespace="trocar", log_to_driver=False)
    deploy(Config(ServerConfig(listen=f"0.0.0.0:{port}", max_running=2, max_queued=8)), replicas=2)
    yield made, f"127.0.0.1:{port}"
    end()
    made.shutdown()


@pytest.fixture
def stub(cluster: tuple[Any, str]) -> Iterator[planning_pb2_grpc.PlanningServiceStub]:
    with grpc.insecure_channel(cluster[1], options=[("grpc.max_receive_message_length", -1)]) as channel:
        yield planning_pb2_grpc.PlanningServiceStub(channel)


def plan(stub: Any, seed: int = 7, timeout_s: float = 300.0, **search: Any) -> Any:
    settings = planning_pb2.SearchSettings(**(search or {"moves": MOVES, "seed": 3}))
    request = planning_pb2.PlanRequest(case=planning_pb2.CaseInput(phantom_seed=seed), search=settings)
    return stub.Plan(request, timeout=timeout_s)


def test_a_plan_is_the_servers_and_errors_keep_their_codes(stub: Any, server: Any) -> None:
    with grpc.insecure_channel(server.target, options=[("grpc.max_receive_message_length", -1)]) as channel:
        expected = plan(planning_pb2_grpc.PlanningServiceStub(channel))
    assert plan(stub).plan.needles == expected.plan.needles
    with pytest.raises(grpc.RpcError) as refused:
        stub.Plan(planning_pb2.PlanRequest(), timeout=60)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected a case" in refused.value.details()


def test_models_are_served_to_an_ordinary_client(cluster: tuple[Any, str]) -> None:
    import numpy as np

    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed (test extra)")
    client = triton.InferenceServerClient(cluster[1])
    inputs = []
    for name, channels in (("features", 8), ("noise", 2)):
        tensor = triton.InferInput(name, [1, channels, 16, 16, 16], "FP32")
        inputs.append(tensor.set_data_from_numpy(np.zeros((1, channels, 16, 16, 16), np.float32)))
    assert client.infer("tpgan", inputs).as_numpy("probability").shape == (1, 16, 16, 16)
    with pytest.raises(triton.InferenceServerException, match=r"UNIMPLEMENTED"):
        client.load_model("tpgan")


def test_who_leaves_frees_the_worker(stub: Any) -> None:
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as left:
            plan(stub, timeout_s=1.0, budget_ms=55_000.0)
        assert left.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    # Were the searches still running, these would wait for most of a minute behind them.
    began = time.monotonic()
    for seed in range(3):
        plan(stub, seed)
    assert time.monotonic() - began < 45


def test_a_node_that_dies_loses_no_accepted_plan(cluster: tuple[Any, str], stub: Any) -> None:
    made, _ = cluster
    expected = {seed: plan(stub, seed).plan.needles for seed in range(8)}
    began = threading.Barrier(len(expected) + 1)

    def ask(seed: int) -> Any:
        began.wait()
        return plan(stub, seed)

    with ThreadPoolExecutor(len(expected)) as pool:
        answers = {seed: pool.submit(ask, seed) for seed in expected}
        began.wait()
        time.sleep(1.0)
        assert not all(answer.done() for answer in answers.values())
        made.remove_node(next(iter(made.worker_nodes)), allow_graceful=False)
        for seed, answer in answers.items():
            assert answer.result(300).plan.needles == expected[seed], f"phantom {seed}"
    assert plan(stub, 9).plan.needles  # and the rest of the cluster goes on
