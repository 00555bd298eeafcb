"""The endpoint itself, in this process; a whole server's metrics are in tests/integration/test_seeing.py."""

import http.client
import socket
from collections.abc import Iterator

import pytest

from trocar.runtime.config import ServerConfig
from trocar.runtime.errors import InvalidInput
from trocar.runtime.server.address import Address
from trocar.runtime.telemetry import Family, Request
from trocar.runtime.telemetry.metrics import BUCKETS_S, Metrics
from trocar.runtime.telemetry.open import open_telemetry


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    one = Metrics(Address("127.0.0.1", 0))
    yield one
    one.close()


def _read(metrics: Metrics) -> list[str]:
    connection = http.client.HTTPConnection("127.0.0.1", metrics.port, timeout=10)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return [line for line in lines if not line.startswith(("#", "process_"))]


def test_requests(metrics: Metrics) -> None:
    for code, took_s in (("OK", 0.0001), ("OK", 0.0002), ("INTERNAL", 100.0)):
        metrics.begin("/a.B/C", "unary_unary", "", Request())(code, took_s)
    labels = 'grpc_method="C",grpc_service="a.B"'
    lines = _read(metrics)
    assert f'grpc_server_handled_total{{grpc_code="OK",{labels}}} 2.0' in lines
    assert f'grpc_server_handled_total{{grpc_code="INTERNAL",{labels}}} 1.0' in lines
    buckets = [line for line in lines if "handling_seconds_bucket" in line]
    # A bound is part of its bucket; what is beyond the last is in +Inf alone.
    assert [float(line.rpartition(" ")[2]) for line in buckets] == [2.0] * len(BUCKETS_S) + [3.0]
    assert f"grpc_server_handling_seconds_sum{{{labels}}} 100.0003" in lines


def test_stages_that_are_not_named_are_not_recorded(metrics: Metrics) -> None:
    record = metrics.stages("planning", ("dose",), timed=True, alone=False)
    assert record is not None
    record([("dose", 1.0, 1.5), ("MUELLER^HANS", 1.0, 2.0)])
    lines = _read(metrics)
    assert 'trocar_stage_seconds_sum{part="planning",stage="dose"} 0.5' in lines
    assert not any("MUELLER" in line for line in lines)
    assert metrics.stages("inference", ("input",), timed=False, alone=False) is None


def test_families_of_one_name_are_one(metrics: Metrics) -> None:
    def broken() -> Iterator[Family]:
        raise OSError("no such thing")

    for service in ("planning", "video"):
        rows = [((service,), 1.0)]
        metrics.collect(lambda rows=rows: [Family("trocar_test", "gauge", "A test's.", ("service",), rows)])
    metrics.collect(broken)
    metrics.collect(lambda: [Family("trocar_sum_seconds", "summary", "A test's.", rows=[((), (2.0, 0.5))])])
    lines = _read(metrics)
    assert [line for line in lines if line.startswith("trocar_")] == [
        'trocar_test{service="planning"} 1.0',
        'trocar_test{service="video"} 1.0',
        "trocar_sum_seconds_count 2.0",
        "trocar_sum_seconds_sum 0.5",
    ]


def test_idle_clients_leave_room(metrics: Metrics) -> None:
    """More connections than there are threads for: those beyond are closed, and the rest go on."""
    idle = [socket.create_connection(("127.0.0.1", metrics.port), timeout=10) for _ in range(8)]
    with socket.create_connection(("127.0.0.1", metrics.port), timeout=10) as more:
        assert more.recv(1) == b""
    for one in idle:
        one.close()
    for _ in range(100):
        try:
            assert _read(metrics) == []
            break
        except (OSError, http.client.HTTPException):
            continue
    else:
        pytest.fail("nobody answers any more")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"metrics": "0.0.0.0:0"}, "expected an address of this machine alone"),
        ({"metrics": "unix:/tmp/x"}, "expected host:port"),
        ({"metrics": "9001"}, "expected an address such as"),
        ({"traces": "localhost"}, "expected http://HOST:PORT"),
    ],
)
def test_settings_that_do_not_do(settings: dict[str, str], expected: str) -> None:
    if "traces" in settings:
        pytest.importorskip("opentelemetry.sdk", reason="the extra telemetry is not installed")
    with pytest.raises(InvalidInput, match=expected):
        open_telemetry(ServerConfig(**settings))  # type: ignore[arg-type]


def test_a_port_in_use(metrics: Metrics) -> None:
    with pytest.raises(
        InvalidInput, match=r"cannot show metrics on 127\.0\.0\.1:[0-9]+: Address already in use"
    ):
        open_telemetry(ServerConfig(metrics=f"127.0.0.1:{metrics.port}"))


def test_others_may_look_where_somebody_says_so() -> None:
    telemetry = open_telemetry(ServerConfig(metrics="0.0.0.0:0", metrics_public=True))
    assert telemetry.address.startswith("0.0.0.0:")
    telemetry.close()
