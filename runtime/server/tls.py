"""TLS and mutual TLS, from files that are read anew when they change."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from trocar.runtime.config import TlsConfig
from trocar.runtime.errors import InvalidInput
from trocar.runtime.server.files import Stamp, read_file, stamp

LOG = logging.getLogger("trocar.server.tls")

# A group such as Debian's ssl-cert may read a key; the rest of the machine may not.
KEY_FORBIDDEN = 0o037


def server_credentials(config: TlsConfig) -> grpc.ServerCredentials:
    """Return credentials that follow the files.

    Raises
    ------
    InvalidInput
        A file cannot be read or is not what it should be, or the key is another certificate's.
    """
    if not config.certificate or not config.key:
        raise InvalidInput("[server.tls]: expected both certificate and key, got one")
    files = TlsFiles(config)
    # None is how gRPC is told that nothing changed, which its stubs do not say.
    changed: Any = files.changed
    return grpc.dynamic_ssl_server_credentials(files.load(), changed, bool(config.client_ca))


class TlsFiles:
    """Certificate, key and authorities, as they are now.

    Parameters
    ----------
    config : where they are.
    """

    def __init__(self, config: TlsConfig) -> None:
        self._certificate, self._key = Path(config.certificate), Path(config.key)
        self._client_ca = Path(config.client_ca) if config.client_ca else None
        self._paths = [path for path in (self._certificate, self._key, self._client_ca) if path is not None]
        self._used: Stamp | None = None
        self._refused: Stamp | None = None

    def load(self) -> grpc.ServerCertificateConfiguration:
        """Read and check all of them; `InvalidInput` says which is wrong."""
        # Looked at before they are read: what is written in between is noticed the next time.
        seen = stamp(self._paths)
        chain = read_file(self._certificate, "TLS certificate")
        key = read_file(self._key, "TLS key", forbidden=KEY_FORBIDDEN)
        leaf = _certificates(chain, f"TLS certificate {self._certificate}")[0]
        _require_pair(leaf, key, self._certificate, self._key)
        authorities = None
        if self._client_ca is not None:
            authorities = read_file(self._client_ca, "TLS client_ca")
            _certificates(authorities, f"TLS client_ca {self._client_ca}")
        if leaf.not_valid_after_utc < datetime.now(UTC):
            LOG.warning("TLS certificate %s expired on %s", self._certificate, leaf.not_valid_after_utc)
        self._used = seen
        return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=authorities)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what to use from now on, or None for what is in use; gRPC asks before every handshake."""
        now = stamp(self._paths)
        if now == self._used:
            return None
        try:
            configuration = self.load()
        except InvalidInput as error:
            if now != self._refused:
                LOG.error("the TLS files in use stay, those that are new are refused: %s", error)
            self._refused = now
            return None
        except Exception:  # whatever it is, a handshake goes on with what is in use
            LOG.exception("the TLS files in use stay, those that are new cannot be read")
            return None
        LOG.info("TLS certificate %s read anew", self._certificate)
        return configuration


def _certificates(data: bytes, what: str) -> list[x509.Certificate]:
    # A file cut in the middle of its second certificate has a first one that is whole.
    begun, ended = data.count(b"-----BEGIN CERTIFICATE-----"), data.count(b"-----END CERTIFICATE-----")
    if begun == 0 or begun != ended:
        raise InvalidInput(f"{what}: expected whole PEM certificates, got {begun} begun and {ended} ended")
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise InvalidInput(f"{what}: expected PEM certificates, got others: {error}") from error


def _require_pair(leaf: x509.Certificate, key: bytes, certificate_path: Path, key_path: Path) -> None:
    try:
        private = load_pem_private_key(key, password=None)
        same = private.public_key() == leaf.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidInput(
            f"TLS key {key_path}: expected a private key in PEM without a passphrase, got another: {error}"
        ) from error
    if not same:
        raise InvalidInput(f"TLS key {key_path}: expected the key of {certificate_path}, got another's")
