"""Bearer tokens: a file of their hashes, and what each may call.

The file is TOML, a table for each token, kept by `trocar token`:

    [tokens.theatre-3]
    sha256 = "..."                  # of the token, which nobody stores
    scopes = ["video", "inference/ModelInfer"]
    expires = 2027-01-01            # may be absent
    shared_memory_prefix = "or3_"   # may be absent
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import tempfile
import time
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from trocar.runtime.config import refuse_unknown
from trocar.runtime.errors import InvalidInput
from trocar.runtime.server.files import Stamp, read_file, stamp

LOG = logging.getLogger("trocar.server.tokens")

MAX_TOKENS = 1000
# How long a token that was taken out of the file may still be good.
REFRESH_S = 1.0
# 256 bits from the system: nothing to guess, so a plain hash is enough.
SECRET_BYTES = 32
ALL = "*"
OWNERS_ALONE = 0o077
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_SCOPE = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)(?:/[A-Za-z]+)?")
_PREFIX = re.compile(r"[A-Za-z0-9_.-]{0,100}")


@dataclass(frozen=True, slots=True)
class Token:
    """One caller.

    Parameters
    ----------
    name : what logs and messages call it.
    sha256 : of the token, hex.
    scopes : a service (`planning`), one of its methods (`inference/ModelInfer`), or `*`.
    expires : from when on it is no good.
    shared_memory_prefix : with which the shared-memory objects it registers have to begin.
    """

    name: str
    sha256: str
    scopes: frozenset[str]
    expires: datetime | None = None
    shared_memory_prefix: str = ""

    def allows(self, service: str, method: str) -> bool:
        """Whether it may call a method of a service, by the name of `[services.NAME]`."""
        return not self.scopes.isdisjoint((service, f"{service}/{method}", ALL))

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and datetime.now(UTC) >= self.expires


def new_secret() -> str:
    """Make a token; only its hash is kept."""
    return f"trocar_{secrets.token_urlsafe(SECRET_BYTES)}"


def digest(secret: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def read_tokens(path: Path, services: Collection[str] | None = None) -> tuple[Token, ...]:
    """Read a token file.

    Parameters
    ----------
    services : the services that scopes may name; any where it is None.

    Raises
    ------
    InvalidInput
        The file cannot be read, others can read it, or something in it is not as described above.
    """
    tokens = _parse(read_file(path, "token file", forbidden=OWNERS_ALONE), f"token file {path}")
    if services is not None:
        for token in tokens:
            _require_known(token, services, path)
    return tokens


def write_tokens(path: Path, tokens: Sequence[Token]) -> None:
    """Put tokens in the place of a token file, whole or not at all; it is its owner's alone.

    Raises
    ------
    InvalidInput
        One of them is not as `read_tokens` wants it, or the file cannot be written.
    """
    text = "# Kept by `trocar token`; who may call, and what.\n\n" + "\n".join(map(_toml, tokens))
    _parse(text.encode(), f"token file {path}")
    try:
        # Made with 0600, in the same folder so that it can take the place at once.
        descriptor, new = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            os.replace(new, path)
        except BaseException:
            os.unlink(new)
            raise
    except OSError as error:
        raise InvalidInput(f"cannot write the token file {path}: {error.strerror}") from error


def _toml(token: Token) -> str:
    # A JSON text or list of plain texts is TOML too.
    lines = [
        f"[tokens.{json.dumps(token.name)}]",
        f"sha256 = {json.dumps(token.sha256)}",
        f"scopes = {json.dumps(sorted(token.scopes))}",
    ]
    if token.expires is not None:
        lines.append(f"expires = {token.expires.isoformat()}")
    if token.shared_memory_prefix:
        lines.append(f"shared_memory_prefix = {json.dumps(token.shared_memory_prefix)}")
    return "\n".join(lines) + "\n"


def _parse(data: bytes, where: str) -> tuple[Token, ...]:
    try:
        document = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{where} is not TOML: {error}") from error
    refuse_unknown(document, ("tokens",), where)
    tables = document.get("tokens", {})
    if not isinstance(tables, Mapping) or len(tables) > MAX_TOKENS:
        raise InvalidInput(f"{where}: expected at most {MAX_TOKENS} tables [tokens.NAME]")
    return tuple(_token(name, table, f"{where}: [tokens.{name}]") for name, table in tables.items())


def _require_known(token: Token, services: Collection[str], path: Path) -> None:
    for scope in sorted(token.scopes - {ALL}):
        if scope.partition("/")[0] not in services:
            raise InvalidInput(
                f"token file {path}: [tokens.{token.name}] scopes: expected {ALL}, or services of "
                f"{', '.join(sorted(services))}, got {scope!r}"
            )


def _token(name: str, table: Any, where: str) -> Token:
    if not isinstance(table, Mapping):
        raise InvalidInput(f"{where}: expected a table, got {type(table).__name__}")
    refuse_unknown(table, ("sha256", "scopes", "expires", "shared_memory_prefix"), where)
    sha256, scopes, prefix = (
        table.get("sha256"),
        table.get("scopes", []),
        table.get("shared_memory_prefix", ""),
    )
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{where}: expected a name of letters, digits, '_' and '-', got {name!r:.80}")
    if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        # Not shown: it may be the token itself.
        raise InvalidInput(f"{where} sha256: expected 64 hex digits, got something else")
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        raise InvalidInput(f"{where} scopes: expected a list of texts, got {scopes!r:.80}")
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise InvalidInput(f"{where} shared_memory_prefix: expected plain text, got {prefix!r:.80}")
    return Token(name, sha256, check_scopes(scopes, where), _expires(table.get("expires"), where), prefix)


def check_scopes(scopes: Collection[str], where: str) -> frozenset[str]:
    """Return scopes as a set; `InvalidInput` where one is not of that form."""
    for scope in scopes:
        if scope != ALL and not _SCOPE.fullmatch(scope):
            raise InvalidInput(
                f"{where} scopes: expected {ALL}, a service (planning) or one method of it "
                f"(inference/ModelInfer), got {scope!r:.80}"
            )
    return frozenset(scopes)


def _expires(value: Any, where: str) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise InvalidInput(f"{where} expires: expected a date such as 2027-01-01, got {value!r:.80}")


class Tokens:
    """The tokens that are good now; the file is looked at again every second.

    Parameters
    ----------
    path : the file.
    services : the services that its scopes may name.

    Raises
    ------
    InvalidInput
        See `read_tokens`. Later on, a file that cannot be used leaves the tokens as they were, and is logged.
    """

    def __init__(self, path: Path, services: Collection[str]) -> None:
        self._path, self._services = path, services
        self._seen: Stamp = stamp([path])
        self._tokens = read_tokens(path, services)
        self._looked_s = time.monotonic()

    def find(self, secret: str) -> Token | None:
        """Return whose token it is, expired or not."""
        if time.monotonic() - self._looked_s >= REFRESH_S:
            self._refresh()
        asked = digest(secret)
        found = None
        # Every one is compared, in constant time: how long it takes says nothing about what is in the file.
        for token in self._tokens:
            if hmac.compare_digest(token.sha256, asked):
                found = token
        return found

    def _refresh(self) -> None:
        self._looked_s = time.monotonic()
        now = stamp([self._path])
        if now == self._seen:
            return
        self._seen = now
        try:
            self._tokens = read_tokens(self._path, self._services)
        except InvalidInput as error:
            LOG.error("the tokens stay as they were: %s", error)
        else:
            LOG.info("token file %s read anew: %d tokens", self._path, len(self._tokens))
