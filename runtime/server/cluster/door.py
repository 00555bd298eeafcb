"""What stands behind Ray's gRPC proxy, holds each request and gives it to workers until one has answered.

Every call that is let through is pure, so that one whose worker died is given to another: what was accepted
is not lost with a node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

import grpc
from grpc_health.v1 import health_pb2

# What a worker that died, or its node, may cost a request before it is given up.
ATTEMPTS = 6
PAUSE_S = 0.2
# What lives in one server's memory, or on its host, means nothing behind a proxy of many.
OF_ONE_SERVER = ("Repository", "SystemSharedMemory", "CudaSharedMemory")
HEALTH = "/grpc.health.v1.Health/Check"


class Reply:
    """Bytes that Ray's proxy sends as they are."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:  # noqa: N802
        """What the proxy asks of a message."""
        return self._data


def methods() -> dict[str, str]:
    """Every unary method that the proxy routes: full path by name, which is what Ray tells a door.

    Ray drops the service from the path, so two services may not share a method's name.
    """
    from trocar.inference_v2 import open_inference_pb2
    from trocar.v1 import planning_pb2

    found = {"Check": HEALTH}
    for file in (planning_pb2.DESCRIPTOR, open_inference_pb2.DESCRIPTOR):
        for service in file.services_by_name.values():
            for method in service.methods:
                if not method.client_streaming and not method.name.startswith(OF_ONE_SERVER):
                    found[method.name] = f"/{service.full_name}/{method.name}"
    return found


def add_routes(_servicer: Any, server: grpc.Server) -> None:
    """Tell Ray's proxy which methods there are; it calls this by its name, in processes of its own."""
    by_service: dict[str, dict[str, Any]] = {}
    for name, path in methods().items():
        handler: Any = grpc.unary_unary_rpc_method_handler(_unreachable)
        by_service.setdefault(path.split("/")[1], {})[name] = handler
    for service, handlers in by_service.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))


def _unreachable(_request: Any, _context: Any) -> NoReturn:
    raise AssertionError("the proxy routes calls to replicas")


class Door:
    """Holds a request until some worker has answered it.

    Parameters
    ----------
    workers : Ray's handle of the workers' deployment.
    """

    def __init__(self, workers: Any) -> None:
        self._workers = workers

    async def route(self, path: str, request: bytes, grpc_context: Any) -> Reply:
        """Give the call to a worker, and to another if that one dies."""
        if path == HEALTH:
            return await self._health(request, grpc_context)
        code, details, data = await self._retried(lambda: self._workers.call.remote(path, request))
        if code != grpc.StatusCode.OK.name:
            grpc_context.set_code(grpc.StatusCode[code])
            grpc_context.set_details(details)
        return Reply(data)

    async def _health(self, request: bytes, grpc_context: Any) -> Reply:
        name = health_pb2.HealthCheckRequest.FromString(request).service
        if name and name not in await self._retried(self._workers.names.remote):
            grpc_context.set_code(grpc.StatusCode.NOT_FOUND)
            grpc_context.set_details(f"no service {name} here")
            return Reply(b"")
        serving = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
        return Reply(serving.SerializeToString())

    @staticmethod
    async def _retried(call: Callable[[], Any]) -> Any:
        from ray.exceptions import RayActorError

        for attempt in range(ATTEMPTS):
            try:
                return await call()
            except RayActorError:
                if attempt + 1 == ATTEMPTS:
                    raise
                await asyncio.sleep(PAUSE_S * 2**attempt)
        raise AssertionError("unreachable")


def door_class() -> type[Door]:
    """Give the door a method for every name that Ray may call."""

    def method(path: str) -> Callable[..., Any]:
        async def call(self: Door, request: bytes, grpc_context: Any) -> Reply:
            return await self.route(path, request, grpc_context)

        return call

    return type("RoutedDoor", (Door,), {name: method(path) for name, path in methods().items()})
