"""How a client reaches a `trocar serve`: address, TLS and token, from options or from Python."""

from __future__ import annotations

import argparse
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trocar.runtime.errors import InvalidInput

if TYPE_CHECKING:
    import grpc

TOKEN_VARIABLE = "TROCAR_TOKEN"
MAX_FILE_BYTES = 1 << 20
# Requests and replies are bounded by the server; a reply with its pictures passes gRPC's 4 MB default.
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@dataclass(frozen=True, slots=True)
class Access:
    """A server, and what it takes to be let in.

    Parameters
    ----------
    address : `host:port` or `unix:/path`.
    tls_ca : PEM of the authorities of the server's certificate; no TLS where it is empty.
    tls_cert, tls_key : PEM of the client's own certificate and key, where the server asks for them.
    token : sent with every call.
    """

    address: str
    tls_ca: bytes = b""
    tls_cert: bytes = b""
    tls_key: bytes = b""
    token: str = ""

    def __post_init__(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise InvalidInput("expected both --tls-cert and --tls-key, got one")
        if self.tls_cert and not self.tls_ca:
            raise InvalidInput("expected --tls-ca with --tls-cert, got none")
        if self.token and not self.tls_ca and not _is_local(self.address):
            raise InvalidInput(
                f"expected --tls-ca with a token for {self.address}: without TLS the network can read it"
            )

    def __repr__(self) -> str:
        """Its address; the rest is secret."""
        return f"Access({self.address!r})"


def add_access(group: argparse._ArgumentGroup) -> None:
    """`--tls-ca`, `--tls-cert`, `--tls-key` and `--token-file`, beside a `--server` that is there already."""
    group.add_argument(
        "--tls-ca", metavar="FILE", type=Path, help="with --server: TLS, by an authority of this PEM file"
    )
    group.add_argument(
        "--tls-cert",
        metavar="FILE",
        type=Path,
        help="with --tls-ca: our own certificate, where it is asked for",
    )
    group.add_argument("--tls-key", metavar="FILE", type=Path, help="with --tls-cert: its private key")
    group.add_argument(
        "--token-file",
        metavar="FILE",
        type=Path,
        help=f"with --server: a file that holds the token alone (else the variable {TOKEN_VARIABLE}, if set)",
    )


def access_of(args: argparse.Namespace) -> Access | None:
    """Read what `--server` and the options of `add_access` say; None without `--server`.

    Raises
    ------
    InvalidInput
        A file cannot be read, an option is missing its other, or a secret would travel in the clear.
    """
    files = {"--tls-ca": args.tls_ca, "--tls-cert": args.tls_cert, "--tls-key": args.tls_key}
    if not args.server:
        for option, path in {**files, "--token-file": args.token_file}.items():
            if path is not None:
                raise InvalidInput(f"{option}: expected --server with it, got none")
        return None
    ca, certificate, key = (b"" if path is None else _read(path, option) for option, path in files.items())
    return Access(args.server, ca, certificate, key, _token(args.token_file))


def open_channel(access: Access, more: tuple[tuple[str, int], ...] = ()) -> grpc.Channel:
    """Open a channel; nothing is sent before the first call.

    Parameters
    ----------
    more : options of the channel besides ours.
    """
    import grpc

    options = (*_OPTIONS, *more)
    if not (access.tls_ca or access.token):
        return grpc.insecure_channel(access.address, options=options)
    if access.tls_ca:
        credentials = grpc.ssl_channel_credentials(
            access.tls_ca, access.tls_key or None, access.tls_cert or None
        )
    else:
        # No secret on the wire but the token's, and gRPC itself sees to it that the wire is this machine's.
        kind = grpc.LocalConnectionType
        unix = access.address.startswith("unix:")
        credentials = grpc.local_channel_credentials(kind.UDS if unix else kind.LOCAL_TCP)
    if access.token:
        token = grpc.access_token_call_credentials(access.token)
        credentials = grpc.composite_channel_credentials(credentials, token)
    return grpc.secure_channel(access.address, credentials, options=options)


def _token(path: Path | None) -> str:
    if path is None:
        token, where = os.environ.get(TOKEN_VARIABLE, ""), TOKEN_VARIABLE
    else:
        data, where = _read(path, "--token-file"), f"--token-file {path}"
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise InvalidInput(f"{where}: expected a file that others cannot open (chmod 600)")
        token = data.decode("utf-8", "replace").strip()
        if not token:
            raise InvalidInput(f"{where}: expected a token, got an empty file")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidInput(f"{where}: expected a token alone, in one line, got something else")
    return token


def _read(path: Path, option: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"{option} {path}: {error.strerror}") from error
    if not data or len(data) > MAX_FILE_BYTES:
        raise InvalidInput(f"{option} {path}: expected a file of 1 to {MAX_FILE_BYTES} bytes")
    return data


def _is_local(address: str) -> bool:
    from trocar.runtime.server.address import parse_address

    return parse_address(address).local
