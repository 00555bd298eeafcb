"""Addresses as they may be shown: without a user, a password, or what a query says."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"[a-zA-Z][\w+.-]*://\S+")
_HIDDEN = "***"


def shown(address: str) -> str:
    """Return an address without its secrets; anything else, a path for one, as it is.

    What stands before the last `@` is taken for user and password, however they are written, and what follows
    an equals sign for a secret: cameras take passwords in a query or in a path.
    """
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address
    before, at, place = rest.rpartition("@")
    hidden = f"{_HIDDEN}@" if before or at else ""
    return scheme + mark + hidden + re.sub(r"=[^&;/?]*", f"={_HIDDEN}", place)


def without_secrets(text: str) -> str:
    """Return a text with each address in it as it may be shown."""
    return _ADDRESS.sub(lambda found: shown(found[0]), text)
