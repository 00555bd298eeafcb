from __future__ import annotations

from typing import Any

import pytest

from trocar.runtime.errors import PermissionDenied
from trocar.runtime.server.inference.service import _from_here


class Call:
    def __init__(self, peer: str) -> None:
        self._peer = peer

    def peer(self) -> str:
        return self._peer


@pytest.mark.parametrize("peer", ["unix:", "unix:/run/t.sock", "ipv4:127.0.0.1:9", "ipv6:%5B::1%5D:9"])
def test_shared_memory_is_for_clients_of_this_machine(peer: str) -> None:
    call: Any = Call(peer)
    assert _from_here(lambda data, _: data)(b"x", call) == b"x"


@pytest.mark.parametrize("peer", ["ipv4:10.0.0.7:9", "ipv6:%5B2001:db8::1%5D:9", "ipv4:128.0.0.1:9", ""])
def test_and_for_no_others(peer: str) -> None:
    call: Any = Call(peer)
    with pytest.raises(PermissionDenied, match="expected a client of this machine"):
        _from_here(lambda data, _: data)(b"x", call)
