"""The video table: every threshold can be set, and none by a name or value that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trocar.runtime.config import load_config
from trocar.runtime.errors import InvalidInput
from trocar.video.config import VideoConfig, read_config


def test_tables_in_the_table_set_the_thresholds(tmp_path: Path) -> None:
    path = tmp_path / "trocar.toml"
    path.write_text(
        "[services.video]\nthreads = 3\n[services.video.latency]\nsoft_ms = 20\n"
        "[services.video.gate]\non_after = 9\n[services.video.privacy]\nblur_out_of_body = false\n"
    )
    config = read_config(load_config(path).services["video"])
    assert (config.threads, config.latency.soft_ms, config.latency.hard_ms) == (3, 20.0, 50.0)
    assert (config.gate.on_after, config.privacy.blur_out_of_body) == (9, False)
    assert config.tracker == VideoConfig().tracker


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"latency": {"sofft_ms": 3}}, r"\[services.video\] latency: unknown key 'sofft_ms'"),
        ({"gate": {"smoke_off": 1.5}}, "gate smoke_off: expected 0 to 1, got 1.5"),
        ({"gate": 3}, "gate: expected a table, got int"),
        ({"watchdog": {"stuck_ms": float("nan")}}, "expected a finite number"),
        ({"gate": {"smoke_off": 0.2}}, "smoke_on, smoke_off: expected the first not above"),
        ({"latency": {"soft_ms": 60}}, "soft_ms, hard_ms: expected the first not above"),
        ({"laten": {}}, "unknown key 'laten'"),
    ],
)
def test_a_wrong_key_or_value_is_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read_config(table)
