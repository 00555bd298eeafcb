"""The colours and names that every picture of a plan shares."""

from __future__ import annotations

import re

from trocar.planners.metric import parse_metric
from trocar.runtime.errors import InvalidInput

ROLE_TITLES = {"ctv": "CTV", "ptv": "PTV", "urethra": "Urethra", "rectum": "Rectum", "bladder": "Bladder"}
ROLE_COLOURS = {
    "ctv": "#b3202c",
    "ptv": "#2457a6",
    "urethra": "#b07d00",
    "rectum": "#7a4a21",
    "bladder": "#0f7f86",
}
# Percent of the prescription: colour and line width in points.
ISODOSES = {50: ("#a9b2bf", 0.8), 100: ("#1f8a3b", 1.4), 150: ("#e07b00", 1.1), 200: ("#c2188f", 1.1)}
INK = "#1b1f24"
FAINT_INK = "#6b7480"

_ABBREVIATIONS = {"dvh": "DVH", "sha256": "SHA-256", "gpu": "GPU", "tpgan": "TP-GAN"}
_METRIC_TITLES = {
    "volume_at_dose": "V{:g}",
    "dose_at_volume_pct": "D{:g}",
    "dose_at_volume_cc": "D{:g}cc",
    "mean_dose": "Mean",
    "min_dose": "Minimum",
    "max_dose": "Maximum",
    "volume": "Volume",
}


def metric_title(name: str) -> str:
    """Return a metric's name as physicists write it: `d0_1cc_gy` is D0.1cc, `v100_pct` is V100."""
    metric = parse_metric(name)
    return _METRIC_TITLES[metric.kind].format(metric.amount)


def rule_title(rule: str) -> str:
    """Return a rule's name in words: `ctv.v100_pct` is CTV V100, `needle_count` is Needle count."""
    words = []
    for word in re.split(r"[.\s:]+", rule.strip()):
        if word in ROLE_TITLES:
            words.append(ROLE_TITLES[word])
        else:
            words.append(_word_title(word))
    title = " ".join(words)
    return title[:1].upper() + title[1:]


def _word_title(word: str) -> str:
    try:
        return metric_title(word)
    except InvalidInput:
        return " ".join(_ABBREVIATIONS.get(part, part) for part in word.split("_"))


def number(value: float | str, decimals: int | None = None) -> str:
    """Return a figure with about three significant digits, or the text it already is."""
    if isinstance(value, str):
        return value.replace(">=", "\N{GREATER-THAN OR EQUAL TO}").replace("<=", "\N{LESS-THAN OR EQUAL TO}")
    if decimals is None:
        size = abs(value)
        whole = float(value).is_integer()
        decimals = 0 if whole or size >= 1000 else 1 if size >= 10 else 2 if size >= 0.1 or size == 0 else 4
    return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")
