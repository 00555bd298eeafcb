"""The colours and names that every picture of a plan shares."""

from __future__ import annotations

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

_WORDS = {
    **ROLE_TITLES,
    "block2x2": "2 \N{MULTIPLICATION SIGN} 2 block",
    "column4": "four in a column",
    "dvh": "DVH",
    "p95": "95th percentile",
    "row3": "three in a row",
    "sha256": "SHA-256",
    "tee": "T",
}
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
    """Return a rule's name in words: `ctv_v100_goal` is CTV V100 (goal), `max_needles` is Max needles."""
    name = rule.strip()
    goal = " (goal)" if name.endswith("_goal") else ""
    name = name.removesuffix("_goal")
    role, _, metric = name.partition("_")
    if role in ROLE_TITLES and (found := _metric_title_of_rule(metric)):
        return f"{ROLE_TITLES[role]} {found}{goal}"
    title = " ".join(_WORDS.get(word, word) for word in name.split("_")) + goal
    return title[:1].upper() + title[1:]


def _metric_title_of_rule(metric: str) -> str | None:
    # A rule leaves out the unit where it is the usual one.
    for name in (metric, f"{metric}_pct", f"{metric}_gy"):
        try:
            return metric_title(name)
        except InvalidInput:
            continue
    return None


def number(value: float | str, decimals: int | None = None) -> str:
    """Return a figure with about three significant digits, or the text it already is."""
    if isinstance(value, str):
        return value.replace(">=", "\N{GREATER-THAN OR EQUAL TO}").replace("<=", "\N{LESS-THAN OR EQUAL TO}")
    if decimals is None:
        size = abs(value)
        whole = float(value).is_integer()
        if 0.0 < size < 0.01:
            return f"{value:.2g}".replace("-", "\N{MINUS SIGN}")
        decimals = 0 if whole or size >= 1000 else 1 if size >= 10 else 2
    return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")
