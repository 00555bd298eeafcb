"""`trocar serve --engine ray`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from trocar.runtime.config import Config
from trocar.runtime.errors import InvalidInput
from trocar.runtime.server.address import parse_address

APPLICATION = "trocar"
# The head's own resource, which every Ray cluster has: a door lives and dies with the proxy before it.
HEAD = "node:__internal_head__"
EVERYWHERE = ("0.0.0.0", "::")
CPUS_A_WORKER = 1.0


def deploy(config: Config, *, replicas: int, cluster: str = "") -> str:
    """Start the services on a Ray cluster and return where its head's proxy listens.

    Parameters
    ----------
    config : as of the gRPC server; each worker has its own limits, the port is the proxy's.
    replicas : workers, spread over the nodes.
    cluster : the address of a running cluster; empty for one on this machine.

    Raises
    ------
    InvalidInput
        Ray is not installed, or the address is not one that Ray's proxy can listen on.
    """
    port = _port(config)
    if find_spec("ray") is None:
        raise InvalidInput("--engine ray: Ray is not installed here: pip install 'trocar[ray]'")
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions, gRPCOptions

    from trocar.runtime.server.cluster.door import add_routes, door_class
    from trocar.runtime.server.cluster.worker import Worker

    if not ray.is_initialized():
        ray.init(
            address=cluster or None,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="warning",
            namespace=APPLICATION,
        )
    routes = f"{add_routes.__module__}.{add_routes.__name__}"
    serve.start(
        proxy_location="HeadOnly",
        grpc_options=gRPCOptions(port=port, grpc_servicer_functions=[routes]),
        # Ray has no proxy without HTTP: any free port, of this machine alone. The door answers nothing there.
        http_options=HTTPOptions(host="127.0.0.1", port=0),
    )
    limits = config.server
    at_once = limits.max_running + limits.max_queued
    workers = serve.deployment(Worker).options(
        name="worker",
        num_replicas=replicas,
        max_ongoing_requests=at_once,
        max_queued_requests=at_once * replicas,
        graceful_shutdown_timeout_s=limits.drain_grace_s,
        health_check_period_s=2,
        health_check_timeout_s=10,
        ray_actor_options={"num_cpus": CPUS_A_WORKER},
    )
    door = serve.deployment(door_class()).options(
        name="door",
        max_ongoing_requests=at_once * replicas * 2,
        graceful_shutdown_timeout_s=limits.drain_grace_s,
        ray_actor_options={"num_cpus": 0, "resources": {HEAD: 0.001}},
    )
    application: Any = door.bind(workers.bind(config))
    serve.run(application, name=APPLICATION, route_prefix="/")
    return f"0.0.0.0:{port}"


def end() -> None:
    """Finish what is in flight and take the services down; a cluster that was there stays."""
    import ray
    from ray import serve

    serve.shutdown()
    ray.shutdown()


def _port(config: Config) -> int:
    address = parse_address(config.server.listen)
    if address.path is not None or address.host not in EVERYWHERE or not address.port:
        raise InvalidInput(
            "--engine ray: its proxy listens on every address: expected --listen 0.0.0.0:PORT, "
            f"got {config.server.listen}"
        )
    return address.port
