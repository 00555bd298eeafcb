"""The Open Inference Protocol v2 over gRPC: any model of the repository, for any client that speaks it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc

    from trocar.runtime.server.services import ServiceContext


def add_to_server(server: grpc.Server, context: ServiceContext) -> Sequence[str]:
    """Entry point in `trocar.services`: add GRPCInferenceService; its table is `[services.inference]`."""
    # Brings NumPy, whose threads must not start before the server has blocked the signals it waits for.
    from trocar.runtime.server.inference.service import add_service

    return add_service(server, context)
