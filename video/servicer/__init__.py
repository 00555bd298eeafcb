"""Video over gRPC, both ends of the wire. Nothing else in `video` touches protobuf types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc

    from trocar.runtime.server.services import ServiceContext


def add_to_server(server: grpc.Server, context: ServiceContext) -> Sequence[str]:
    """Entry point in `trocar.services`: add VideoService; its table is `[services.video]`."""
    # The client of the same package must not load the kernels.
    from trocar.video.servicer.service import add_service

    return add_service(server, context)
