import math

import pytest

from trocar.runtime.errors import InvalidInput
from trocar.runtime.telemetry.reading import Reading, document, parse, quantile

INF = math.inf


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ({}, 0.5, None),
        ({1.0: 0.0, INF: 0.0}, 0.5, None),
        ({1.0: 4.0, INF: 4.0}, 0.5, 0.5),  # half of the first bucket
        ({1.0: 2.0, 2.0: 4.0, INF: 4.0}, 0.5, 1.0),
        ({1.0: 2.0, 2.0: 4.0, INF: 4.0}, 0.75, 1.5),
        ({1.0: 0.0, 2.0: 0.0, 5.0: 10.0, INF: 10.0}, 0.99, 4.97),
        ({1.0: 1.0, 2.0: 1.0, INF: 2.0}, 0.99, 2.0),  # beyond the last bound nothing is known
    ],
)
def test_quantiles_by_hand(buckets: dict[float, float], share: float, expected: float | None) -> None:
    found = quantile(buckets, share)
    assert found is None if expected is None else found == pytest.approx(expected)


TEXT = """\
# TYPE trocar_requests_in_flight gauge
trocar_requests_in_flight 1.0
# TYPE grpc_server_handled_total counter
grpc_server_handled_total{grpc_code="OK",grpc_method="C",grpc_service="a.B"} %(ok)s
grpc_server_handled_total{grpc_code="INTERNAL",grpc_method="C",grpc_service="a.B"} %(failed)s
# TYPE grpc_server_handling_seconds histogram
grpc_server_handling_seconds_bucket{grpc_method="C",grpc_service="a.B",le="0.1"} %(fast)s
grpc_server_handling_seconds_bucket{grpc_method="C",grpc_service="a.B",le="+Inf"} %(all)s
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 1.048576e+07
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total %(cpu)s
# TYPE trocar_model_loaded gauge
trocar_model_loaded{model="pair",service="inference",version="2"} 1.0
# TYPE trocar_model_newest_refused gauge
trocar_model_newest_refused{model="pair",service="inference"} 1.0
"""


def _at(at_s: float, **values: float) -> Reading:
    return Reading(at_s, parse((TEXT % values).encode(), "here").values)


def test_what_two_readings_say() -> None:
    before = _at(10.0, ok=5, failed=0, fast=5, all=5, cpu=1)
    said = document(before, _at(12.0, ok=13, failed=2, fast=15, all=15, cpu=2))
    (method,) = said["methods"]
    assert method == {
        "method": "a.B/C",
        "requests": 15,
        "requests_per_s": 5.0,
        "failed_per_s": 1.0,
        "p50_ms": 50.0,
        "p99_ms": 99.0,
    }
    assert (said["resident_mib"], said["cpu_cores"], said["requests_in_flight"]) == (10.0, 0.5, 1)
    (model,) = said["models"]
    assert (model["version"], model["newest_refused"], model["compute_ms"]) == ("2", True, None)


def test_a_server_that_began_anew() -> None:
    before = _at(10.0, ok=500, failed=0, fast=500, all=500, cpu=9)
    (method,) = document(before, _at(12.0, ok=4, failed=0, fast=4, all=4, cpu=1))["methods"]
    assert method["requests_per_s"] == 2.0


@pytest.mark.parametrize("text", [b"<html>", b"\xff\xfe", b"", b"a{b 1", b"up 1\n"])
def test_what_is_no_server_s_metrics(text: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"^here: expected metrics"):
        parse(text, "here")
