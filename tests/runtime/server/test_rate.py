from __future__ import annotations

from typing import Any

import pytest

from trocar.runtime.errors import QueueFull
from trocar.runtime.server import rate
from trocar.runtime.server.rate import Buckets, client_of


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_bucket_by_hand() -> None:
    clock = Clock()
    buckets = Buckets(2.0, 3, clock)
    for _ in range(3):
        buckets.take("a")
    with pytest.raises(QueueFull, match=r"at most 2 requests a second, 3 at once, .* again in 0\.5 s"):
        buckets.take("a")
    buckets.take("b")  # each has its own
    clock.now_s += 0.25
    with pytest.raises(QueueFull, match=r"again in 0\.25 s"):
        buckets.take("a")
    clock.now_s += 0.25
    buckets.take("a")
    clock.now_s += 1e6  # no more than the burst gathers
    for _ in range(3):
        buckets.take("a")
    with pytest.raises(QueueFull):
        buckets.take("a")


def test_asking_on_does_not_lengthen_the_wait() -> None:
    clock = Clock()
    buckets = Buckets(1.0, 1, clock)
    buckets.take("a")
    for _ in range(9):
        clock.now_s += 0.1
        with pytest.raises(QueueFull):
            buckets.take("a")
    clock.now_s += 0.11
    buckets.take("a")


def test_a_million_clients_take_no_more_room_than_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "MAX_CLIENTS", 100)
    buckets = Buckets(1.0, 1, Clock())
    for number in range(1000):
        buckets.take(f"client {number}")
    assert len(buckets._left) == 100
    with pytest.raises(QueueFull):
        buckets.take("client 999")


@pytest.mark.parametrize(
    ("peer", "client"),
    [("ipv4:10.0.0.7:4242", "10.0.0.7"), ("ipv6:%5B::1%5D:4242", "%5B::1%5D"), ("unix:", "unix")],
)
def test_a_client_is_its_address_whatever_the_port(peer: str, client: str) -> None:
    class Context:
        def peer(self) -> str:
            return peer

    context: Any = Context()
    assert client_of(context) == client
