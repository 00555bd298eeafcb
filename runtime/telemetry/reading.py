"""A server's metrics, read from outside, and what two readings say of the time between them."""

from __future__ import annotations

import http.client
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trocar.runtime.errors import InvalidInput, Unavailable
from trocar.runtime.server.address import Address

MAX_BYTES = 8 << 20
TIMEOUT_S = 5.0
_HINT = '`trocar serve` shows them where its configuration says [server] metrics = "127.0.0.1:9001"'

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a server said, by sample name and labels.

    Parameters
    ----------
    at_s : when, on the monotonic clock.
    """

    at_s: float
    values: Mapping[str, Mapping[Labels, float]]

    def of(self, name: str) -> Mapping[Labels, float]:
        """Return the samples of a name."""
        return self.values.get(name, {})


def read(address: Address) -> Reading:
    """Read a server's metrics.

    Raises
    ------
    Unavailable
        Nobody answers.
    InvalidInput
        What answers has other things to say.
    """
    connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/metrics", headers={"Accept": "text/plain; version=0.0.4"})
        answer = connection.getresponse()
        text = answer.read(MAX_BYTES + 1)
    except http.client.HTTPException as error:
        raise InvalidInput(
            f"{address.target}: expected metrics over HTTP, got something else; {_HINT}"
        ) from error
    except OSError as error:
        why = error.strerror or str(error)
        raise Unavailable(f"no metrics at {address.target}: {why}; {_HINT}") from error
    finally:
        connection.close()
    if answer.status != http.client.OK or len(text) > MAX_BYTES:
        raise InvalidInput(f"{address.target}: expected metrics, got HTTP status {answer.status}; {_HINT}")
    return parse(text, address.target)


def parse(text: bytes, where: str) -> Reading:
    """Read the text that Prometheus reads.

    Raises
    ------
    InvalidInput
        It is none, or not of a server of ours.
    """
    from prometheus_client.parser import text_string_to_metric_families

    values: dict[str, dict[Labels, float]] = {}
    try:
        for family in text_string_to_metric_families(text.decode("utf-8")):
            for sample in family.samples:
                values.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    except (ValueError, KeyError, IndexError) as error:
        raise InvalidInput(
            f"{where}: expected metrics as Prometheus reads them, got something else"
        ) from error
    if "trocar_requests_in_flight" not in values:
        raise InvalidInput(f"{where}: expected metrics of `trocar serve`, got others'")
    return Reading(time.monotonic(), values)


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """Return a quantile of cumulative counts by upper bound, s; None where nothing was counted.

    Within a bucket values count as spread evenly. Of what is beyond the last finite bound, that is returned.
    """
    bounds = sorted(buckets)
    whole = buckets[bounds[-1]] if bounds else 0.0
    if whole <= 0:
        return None
    wanted, low, below = share * whole, 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= wanted and buckets[bound] > below:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (wanted - below) / (buckets[bound] - below)
        low, below = bound, buckets[bound]
    return low


def document(before: Reading, after: Reading) -> dict[str, Any]:
    """Say what happened between two readings, in plain JSON types; see docs/operating.md."""
    took_s = max(after.at_s - before.at_s, 1e-9)
    gauges = {name: sum(found.values()) if (found := after.of(name)) else None for name in _GAUGES}
    cpu_s = sum(_gained(before, after, "process_cpu_seconds_total").values())
    resident = gauges["process_resident_memory_bytes"]
    return {
        "interval_s": round(took_s, 3),
        "requests_in_flight": _whole(gauges["trocar_requests_in_flight"]),
        "queue": {
            "running": _whole(gauges["trocar_queue_running"]),
            "waiting": _whole(gauges["trocar_queue_waiting"]),
        },
        "methods": list(_methods(before, after, took_s)),
        "stages": list(_stages(before, after, took_s)),
        "models": list(_models(before, after, took_s)),
        "video": _video(before, after, took_s),
        "resident_mib": None if resident is None else round(resident / 2**20, 1),
        "device_mib": {
            f"{dict(labels)['device']} {dict(labels)['state']}": round(value / 2**20, 1)
            for labels, value in after.of("trocar_device_memory_bytes").items()
        },
        "cpu_cores": round(cpu_s / took_s, 3),
    }


_GAUGES = (
    "trocar_requests_in_flight",
    "trocar_queue_running",
    "trocar_queue_waiting",
    "process_resident_memory_bytes",
)


def _methods(before: Reading, after: Reading, took_s: float) -> Iterator[dict[str, Any]]:
    handled = _gained(before, after, "grpc_server_handled_total")
    keys = ("grpc_service", "grpc_method")
    times = _times(before, after, "grpc_server_handling_seconds", keys)
    totals: dict[tuple[str, ...], list[float]] = {}
    for labels, count in handled.items():
        said = dict(labels)
        row = totals.setdefault(tuple(said[key] for key in keys), [0.0, 0.0, 0.0])
        row[0] += count
        row[1] += count if said["grpc_code"] != "OK" else 0.0
        row[2] += after.of("grpc_server_handled_total")[labels]
    for method, (count, failed, ever) in sorted(totals.items()):
        yield {
            "method": "/".join(method),
            "requests": int(ever),
            "requests_per_s": round(count / took_s, 3),
            "failed_per_s": round(failed / took_s, 3),
            **times.get(method, _NO_TIMES),
        }


def _stages(before: Reading, after: Reading, took_s: float) -> Iterator[dict[str, Any]]:
    counts = _gained(before, after, "trocar_stage_seconds_count")
    times = _times(before, after, "trocar_stage_seconds", ("part", "stage"))
    for labels, count in sorted(counts.items()):
        said = dict(labels)
        key = (said["part"], said["stage"])
        yield {
            "part": key[0],
            "stage": key[1],
            "per_s": round(count / took_s, 3),
            **times.get(key, _NO_TIMES),
        }


def _models(before: Reading, after: Reading, took_s: float) -> Iterator[dict[str, Any]]:
    requests = _gained(before, after, "trocar_model_requests_total")
    spent = _gained(before, after, "trocar_model_compute_seconds_sum")
    runs = _gained(before, after, "trocar_model_compute_seconds_count")
    refused = {tuple(dict(labels).values()) for labels in after.of("trocar_model_newest_refused")}
    for labels in sorted(after.of("trocar_model_loaded")):
        said = dict(labels)
        one: Labels = tuple(pair for pair in labels if pair[0] != "service")
        ours = said["service"] == "inference"
        count = sum(value for key, value in requests.items() if set(one) <= set(key)) if ours else None
        ran = runs.get(one, 0.0) if ours else 0.0
        yield {
            **said,
            "requests_per_s": None if count is None else round(count / took_s, 3),
            "compute_ms": round(1000 * spent[one] / ran, 3) if ran else None,
            "newest_refused": (said["model"], said["service"]) in refused,
        }


def _video(before: Reading, after: Reading, took_s: float) -> dict[str, Any]:
    frames = {
        dict(labels)["outcome"]: round(count / took_s, 3)
        for labels, count in _gained(before, after, "trocar_video_frames_total").items()
    }
    late = sum(_gained(before, after, "trocar_video_frames_late_total").values())
    drops = [
        {**dict(labels), "per_s": round(count / took_s, 3)}
        for labels, count in sorted(_gained(before, after, "trocar_video_frames_dropped_total").items())
    ]
    return {
        "streams": int(sum(after.of("trocar_video_streams").values())),
        "frames_per_s": frames,
        "late_per_s": round(late / took_s, 3),
        "dropped": drops,
    }


_NO_TIMES = {"p50_ms": None, "p99_ms": None}


def _times(
    before: Reading, after: Reading, name: str, keys: tuple[str, ...]
) -> dict[tuple[str, ...], dict[str, float | None]]:
    """Return p50 and p99 of a histogram between two readings, by the values of some labels."""
    counts: dict[tuple[str, ...], dict[float, float]] = {}
    for labels, count in _gained(before, after, f"{name}_bucket").items():
        said = dict(labels)
        counts.setdefault(tuple(said[key] for key in keys), {})[float(said["le"])] = count
    return {
        key: {
            f"p{share:g}_ms": None
            if (at_s := quantile(buckets, share / 100)) is None
            else round(1000 * at_s, 3)
            for share in (50, 99)
        }
        for key, buckets in counts.items()
    }


def _gained(before: Reading, after: Reading, name: str) -> dict[Labels, float]:
    """Return what counters gained; one that is lower than before began anew."""
    old = before.of(name)
    return {
        labels: value - old[labels] if value >= old.get(labels, math.inf) else value
        for labels, value in after.of(name).items()
    }


def _whole(value: float | None) -> int:
    return int(value or 0)
