from __future__ import annotations

import pytest

from trocar.planners.report.style import metric_title, number, rule_title


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        ("v100_pct", "V100"),
        ("d90_gy", "D90"),
        ("d2cc_gy", "D2cc"),
        ("d0_1cc_gy", "D0.1cc"),
        ("mean_gy", "Mean"),
    ],
)
def test_metric_titles(metric: str, title: str) -> None:
    assert metric_title(metric) == title


@pytest.mark.parametrize(
    ("rule", "title"),
    [
        ("ctv_v100", "CTV V100"),
        ("ctv_d90_goal", "CTV D90 (goal)"),
        ("rectum_d0_1cc", "Rectum D0.1cc"),
        ("rectum_v100_cc_goal", "Rectum V100 (goal)"),
        ("seed_outside_ptv", "Seed outside PTV"),
        ("needle_pattern_row3", "Needle pattern three in a row"),
        ("needle_count", "Needle count"),
        ("input_sha256", "Input SHA-256"),
        ("", ""),
    ],
)
def test_rule_titles(rule: str, title: str) -> None:
    assert rule_title(rule) == title


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (98.123, "98.1"),
        (12, "12"),
        (0.42, "0.42"),
        (0.000412, "0.00041"),
        (-3.25, "\u22123.25"),
        (">= 95", "\u2265 95"),
        (0.0, "0"),
    ],
)
def test_numbers(value: float | str, text: str) -> None:
    assert number(value) == text


def test_a_figure_that_is_not_finite_is_written_as_it_is() -> None:
    assert number(float("nan")) == "nan"
    assert number(float("inf")) == "inf"
