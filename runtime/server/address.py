"""Where the server listens: TCP or a Unix socket, checked before gRPC binds it."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from trocar.runtime.errors import InvalidInput

# sockaddr_un holds 108 bytes with the closing zero.
MAX_SOCKET_PATH = 107


@dataclass(frozen=True, slots=True)
class Address:
    """`host` and `port`, or `path` of a Unix socket."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    @property
    def target(self) -> str:
        """What gRPC and the `--server` option take."""
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name, such as 127.example.org
            return False


def parse_address(text: str) -> Address:
    """Read `host:port`, `[ipv6]:port` or `unix:/path`."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("///") else path
        if not path or len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise InvalidInput(f"expected unix:/path of at most {MAX_SOCKET_PATH} bytes, got {text!r}")
        return Address(path=Path(path))
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidInput(f"expected an address such as 127.0.0.1:8001 or unix:/path, got {text!r}")
    return Address(host=host, port=int(port))


def prepare(address: Address) -> None:
    """Check that the address can be bound; a Unix socket that a dead server left is removed.

    gRPC alone would unlink the socket of a server that is alive.

    Raises
    ------
    InvalidInput
        The address is in use, or the path is something else than a socket.
    """
    if address.path is not None:
        _prepare_path(address.path)
        return
    try:
        family, kind, proto, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        raise InvalidInput(f"cannot listen on {address.target}: {error.strerror}") from error


def _prepare_path(path: Path) -> None:
    if not path.parent.is_dir():
        raise InvalidInput(f"cannot listen on unix:{path}: no folder {path.parent}")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise InvalidInput(f"cannot listen on unix:{path}: it exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise InvalidInput(f"cannot listen on unix:{path}: {error.strerror}") from error
    raise InvalidInput(f"cannot listen on unix:{path}: another server answers there")


def release(address: Address) -> None:
    """Remove the socket file, if any."""
    if address.path is not None:
        with contextlib.suppress(FileNotFoundError):
            address.path.unlink()
