"""Configuration: TOML into frozen dataclasses, strictly.

An unknown key, a wrong type or a value out of range is `InvalidInput`, with the key's full name. A
misspelt limit must not silently become the default.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from trocar.runtime.errors import InvalidInput

T = TypeVar("T")


def limits(
    least: float | None = None, most: float | None = None, choices: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Give a dataclass field the bounds that `parse_table` enforces."""
    return {"least": least, "most": most, "choices": choices}


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """The `[server.tls]` table. The files are read anew when they change.

    Parameters
    ----------
    certificate : a PEM file, the server's certificate first and the chain after it; no TLS where it is empty.
    key : its private key, a PEM file that others of the machine cannot read.
    client_ca : a PEM file of authorities; a client has to show a certificate of one of them. Empty: no client
        shows any.
    """

    certificate: str = ""
    key: str = ""
    client_ca: str = ""


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """The `[server.auth]` table.

    Parameters
    ----------
    tokens : the file that `trocar token` keeps; every call but health's needs one of them; empty: none does.
    """

    tokens: str = ""


@dataclass(frozen=True, slots=True)
class ClientsConfig:
    """The `[server.clients]` table: what one client, or all together, may take of the server.

    Parameters
    ----------
    requests_per_s : of each client, by its token or else its address; 0 is any number.
    burst : requests that a client may send at once before that rate holds.
    max_connections : of all clients; the next is closed at once.
    """

    requests_per_s: float = field(default=0.0, metadata=limits(0, 1e6))
    burst: int = field(default=100, metadata=limits(1, 1_000_000))
    max_connections: int = field(default=64, metadata=limits(1, 100_000))


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The `[server]` table.

    Parameters
    ----------
    listen : `host:port`, `[ipv6]:port` or `unix:/path`; port 0 takes a free one.
    insecure : whether other machines may reach it without TLS.
    services : what to host, by the names of `[services.NAME]` with commas between; all where it is empty.
    repository : the folder of the models served; those that come with the package where it is empty.
    require_signature : a PEM file of public keys, one of which has to have signed every model; none where it
        is empty.
    max_message_mib : the largest request taken; a larger one is RESOURCE_EXHAUSTED.
    max_running : requests computed at once.
    max_queued : requests that may wait for each model, and for planning; the next is RESOURCE_EXHAUSTED.
    max_held : requests that run or wait, over all models and services; the next is RESOURCE_EXHAUSTED.
    drain_grace_s : how long SIGTERM waits for what is in flight before it is cancelled.
    reflection : whether the server describes its services to tools such as grpcurl.
    watch_s : how often to look for new versions of models in the repository, and serve them; 0 never.
    metrics : `host:port` where Prometheus may read metrics over HTTP; empty nowhere.
    metrics_public : whether `metrics` may be an address that other machines reach; there is no TLS there.
    traces : `http://host:port` of an OpenTelemetry collector (OTLP over gRPC); empty as the environment's
        `OTEL_*` variables say.
    log_level : `debug`, `info`, `warning` or `error`, on stderr.
    log_format : `text`, or `json` with an object a line.
    tls, auth, clients : tables of their own.
    """

    listen: str = "127.0.0.1:8001"
    insecure: bool = False
    services: str = ""
    repository: str = ""
    require_signature: str = ""
    max_message_mib: int = field(default=64, metadata=limits(1, 1024))
    max_running: int = field(default=2, metadata=limits(1, 256))
    max_queued: int = field(default=8, metadata=limits(0, 1024))
    max_held: int = field(default=64, metadata=limits(1, 4096))
    drain_grace_s: float = field(default=30.0, metadata=limits(0, 3600))
    reflection: bool = False
    watch_s: float = field(default=0.0, metadata=limits(0, 3600))
    metrics: str = ""
    metrics_public: bool = False
    traces: str = ""
    log_level: str = field(default="info", metadata=limits(choices=("debug", "info", "warning", "error")))
    log_format: str = field(default="text", metadata=limits(choices=("text", "json")))
    tls: TlsConfig = field(default_factory=TlsConfig)
    auth: AuthConfig = field(default_factory=AuthConfig)
    clients: ClientsConfig = field(default_factory=ClientsConfig)


@dataclass(frozen=True, slots=True)
class Config:
    """A whole `trocar.toml`: `[server]`, and a table `[services.NAME]` that each service reads itself."""

    server: ServerConfig = field(default_factory=ServerConfig)
    services: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def load_config(path: Path) -> Config:
    """Read a TOML file.

    Raises
    ------
    InvalidInput
        The file cannot be read, is not TOML, or says something this version does not know.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not TOML: {error}") from error
    return parse_config(document, where=str(path))


def parse_config(document: Mapping[str, Any], *, where: str) -> Config:
    """Check a parsed TOML document; `where` begins every message."""
    refuse_unknown(document, ("server", "services"), where)
    services = document.get("services", {})
    if not isinstance(services, Mapping) or not all(
        isinstance(table, Mapping) for table in services.values()
    ):
        raise InvalidInput(f"{where}: expected tables [services.NAME], got something else under services")
    server = parse_table(ServerConfig, document.get("server", {}), where=f"{where}: [server]")
    return Config(server=server, services=services)


def parse_table(cls: type[T], table: Any, *, where: str) -> T:
    """Build a frozen dataclass from a TOML table.

    Parameters
    ----------
    cls : dataclass whose fields are bool, int, float, str or such dataclasses again (tables in the table),
        with defaults; see `limits`.
    table : what the TOML file holds.
    where : begins every message, such as `trocar.toml: [server]`.
    """
    if not isinstance(table, Mapping):
        raise InvalidInput(f"{where}: expected a table, got {type(table).__name__}")
    fields = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    refuse_unknown(table, tuple(fields), where)
    types = typing.get_type_hints(cls)
    values = {
        key: _value(value, types[key], fields[key].metadata, f"{where} {key}") for key, value in table.items()
    }
    return cls(**values)


def refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """Raise `InvalidInput` for a key that is not among `known`."""
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise InvalidInput(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(known)}")


def _value(value: Any, kind: type, limit: Mapping[str, Any], where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return parse_table(kind, value, where=where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise InvalidInput(f"{where}: expected {kind.__name__}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"{where}: expected a finite number, got {value}")
    least, most, choices = limit.get("least"), limit.get("most"), limit.get("choices")
    if (least is not None and value < least) or (most is not None and value > most):
        raise InvalidInput(f"{where}: expected {least} to {most}, got {value}")
    if choices and value not in choices:
        raise InvalidInput(f"{where}: expected one of {', '.join(choices)}, got {value!r}")
    return value
