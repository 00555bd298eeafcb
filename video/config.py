"""The `[services.video]` table of `trocar.toml`, for the service and for `trocar annotate --config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trocar.runtime.config import limits, parse_table
from trocar.runtime.errors import InvalidInput
from trocar.video.pipeline import VideoSettings

WHERE = "[services.video]"


@dataclass(frozen=True, slots=True)
class VideoConfig(VideoSettings):
    """The table; the pipeline's thresholds are tables in it, such as `[services.video.latency]`.

    Parameters
    ----------
    max_streams : streams of one model at once; the service's.
    max_megapixels : of a frame that a client may send; each stream holds twelve.
    threads : of the network.
    device : `auto`, `cpu` or `cuda`.
    idle_s : a stream without a frame for longer is ended; the service's.
    """

    max_streams: int = field(default=4, metadata=limits(1, 64))
    max_megapixels: float = field(default=9.0, metadata=limits(0.01, 67.2))
    threads: int = field(default=2, metadata=limits(1, 256))
    device: str = field(default="auto", metadata=limits(choices=("auto", "cpu", "cuda")))
    idle_s: float = field(default=30.0, metadata=limits(0.1, 3600))


def read_config(table: Mapping[str, Any]) -> VideoConfig:
    """Read the table.

    Raises
    ------
    InvalidInput
        A key is unknown or out of range, or a pair of thresholds is the wrong way round.
    """
    config = parse_table(VideoConfig, table, where=WHERE)
    gate, privacy = config.gate, config.privacy
    rising = {
        "latency soft_ms, hard_ms": (config.latency.soft_ms, config.latency.hard_ms),
        "watchdog retry_least_s, retry_most_s": (config.watchdog.retry_least_s, config.watchdog.retry_most_s),
        "gate confidence_off, confidence_on": (gate.confidence_off, gate.confidence_on),
        "gate overlap_off, overlap_on": (gate.overlap_off, gate.overlap_on),
        "gate smoke_on, smoke_off": (gate.smoke_on, gate.smoke_off),
        "gate blur_on, blur_off": (gate.blur_on, gate.blur_off),
        "gate out_of_body_on, out_of_body_off": (gate.out_of_body_on, gate.out_of_body_off),
        "privacy inside, outside": (privacy.inside, privacy.outside),
    }
    for names, (less, more) in rising.items():
        if less > more:
            raise InvalidInput(
                f"{WHERE} {names}: expected the first not above the second, got {less}, {more}"
            )
    return config
