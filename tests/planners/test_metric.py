from __future__ import annotations

import pytest

from trocar.planners.metric import parse_metric
from trocar.runtime.errors import InvalidInput


@pytest.mark.parametrize(
    ("name", "kind", "amount", "unit"),
    [
        ("v100_pct", "volume_at_dose", 100, "pct"),
        ("v100_cc", "volume_at_dose", 100, "cc"),
        ("d90_gy", "dose_at_volume_pct", 90, "gy"),
        ("d2cc_gy", "dose_at_volume_cc", 2, "gy"),
        ("d0_1cc_gy", "dose_at_volume_cc", 0.1, "gy"),
        ("d99_5_gy", "dose_at_volume_pct", 99.5, "gy"),
        ("mean_gy", "mean_dose", 0, "gy"),
        ("volume_cc", "volume", 0, "cc"),
    ],
)
def test_names_are_read(name, kind, amount, unit):
    metric = parse_metric(name)
    assert (metric.kind, metric.amount, metric.unit) == (kind, amount, unit)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "v100",
        "V100_pct",
        "v_pct",
        "d101_gy",
        "d2cc_cc",
        "dcc_gy",
        "v1e2_pct",
        "v٣_pct",
        "v100_pct ",
        "d-1_gy",
    ],
)
def test_other_names_are_refused(name):
    with pytest.raises(InvalidInput, match="metric"):
        parse_metric(name)
