"""What a service is to the server: a function in the entry-point group `trocar.services`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol

import grpc

from trocar.runtime.config import Config, refuse_unknown
from trocar.runtime.server.admission import Admission


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """What the server hands to a service.

    Parameters
    ----------
    settings : the service's own table `[services.NAME]` of the configuration, unchecked; see
        `trocar.runtime.config.parse_table`.
    admission : whoever computes takes a slot here first, so that one place bounds the load.
    """

    settings: Mapping[str, Any]
    admission: Admission


class AddToServer(Protocol):
    """The entry point: adds the service's handlers and returns the full names of its services."""

    def __call__(self, server: grpc.Server, context: ServiceContext, /) -> Sequence[str]:
        """Add the service to the server."""
        ...


def find_services() -> dict[str, AddToServer]:
    """Every installed service by its entry-point name."""
    return {point.name: point.load() for point in entry_points(group="trocar.services")}


def add_services(
    server: grpc.Server, services: Mapping[str, AddToServer], config: Config, admission: Admission
) -> tuple[str, ...]:
    """Add every service to the server and return their full protobuf names."""
    refuse_unknown(config.services, tuple(sorted(services)), "[services]")
    names: list[str] = []
    for name, add in sorted(services.items()):
        context = ServiceContext(settings=config.services.get(name, {}), admission=admission)
        names.extend(add(server, context))
    return tuple(names)
