"""What a service is to the server: a function in the entry-point group `trocar.services`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from trocar.runtime.config import Config, ServerConfig, refuse_unknown
from trocar.runtime.repository.watch import Watch
from trocar.runtime.server.scheduler import Scheduler
from trocar.runtime.telemetry import Telemetry

if TYPE_CHECKING:
    from trocar.runtime.repository.sessions import Sessions
    from trocar.runtime.repository.store import Repository


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """What the server hands to a service.

    Parameters
    ----------
    settings : the service's own table `[services.NAME]` of the configuration, unchecked; see
        `trocar.runtime.config.parse_table`.
    scheduler : whoever computes takes a slot of a queue of this first, so that one place bounds the load.
    max_queued : requests that may wait in one queue.
    repository : where models come from; it opens what the server may serve and nothing else.
    repository_options : arguments of `open_repository` that open the same in another process.
    sessions : of the repository's models, one for all services that run the same one.
    watch : tells of changes in the repository, where the server is told to look for them.
    telemetry : takes what can be seen from outside.
    on_drain : takes what is called when the server begins to drain, such as the end of idle streams.
    ready_while : takes a service's full name and what says whether it can work, for health checks to ask.
    """

    settings: Mapping[str, Any]
    scheduler: Scheduler
    max_queued: int
    repository: Repository
    repository_options: Mapping[str, str]
    sessions: Sessions
    watch: Watch
    telemetry: Telemetry
    on_drain: Callable[[Callable[[], None]], None]
    ready_while: Callable[[str, Callable[[], bool]], None]


class AddToServer(Protocol):
    """The entry point: adds the service's handlers and returns the full names of its services."""

    def __call__(self, server: grpc.Server, context: ServiceContext, /) -> Sequence[str]:
        """Add the service to the server."""
        ...


def find_services() -> dict[str, AddToServer]:
    """Every installed service by its entry-point name."""
    return {point.name: point.load() for point in entry_points(group="trocar.services")}


def open_context(
    limits: ServerConfig,
    *,
    scheduler: Scheduler,
    telemetry: Telemetry,
    watch: Watch,
    on_drain: Callable[[Callable[[], None]], None],
    ready_while: Callable[[str, Callable[[], bool]], None],
) -> ServiceContext:
    """Open the repository, and return what all services share; the settings are each one's own."""
    # Brings NumPy, whose threads must not start before the server has blocked the signals it waits for.
    from trocar.runtime.repository.sessions import Sessions
    from trocar.runtime.repository.store import open_repository

    options = {"folder": limits.repository, "require_signature": limits.require_signature}
    repository = open_repository(**options)
    return ServiceContext(
        settings={},
        scheduler=scheduler,
        max_queued=limits.max_queued,
        repository=repository,
        repository_options=options,
        sessions=Sessions(repository),
        watch=watch,
        telemetry=telemetry,
        on_drain=on_drain,
        ready_while=ready_while,
    )


def add_services(
    server: grpc.Server, services: Mapping[str, AddToServer], config: Config, context: ServiceContext
) -> dict[str, str]:
    """Add every wanted service to the server; return their protobuf names, each with its entry point's."""
    refuse_unknown(config.services, tuple(sorted(services)), "[services]")
    wanted = {name.strip() for name in config.server.services.split(",") if name.strip()} or set(services)
    refuse_unknown(dict.fromkeys(wanted), tuple(sorted(services)), "[server] services")
    names: dict[str, str] = {}
    for name, add in sorted((name, add) for name, add in services.items() if name in wanted):
        own = replace(context, settings=config.services.get(name, {}))
        names |= dict.fromkeys(add(server, own), name)
    return names
