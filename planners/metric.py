"""Names of dose-volume metrics, such as `v100_pct`, `d90_gy` and `d0_1cc_gy`, and what they mean."""

from __future__ import annotations

import re
from dataclasses import dataclass

from trocar.planners.types import require

# `d0_1cc_gy`: an underscore between digits is the decimal point.
_AMOUNT = r"(?P<amount>\d{1,3}(?:_\d{1,2})?)"
_PATTERNS = (
    ("volume_at_dose", re.compile(rf"v{_AMOUNT}_(?P<unit>pct|cc)", re.ASCII)),
    ("dose_at_volume_cc", re.compile(rf"d{_AMOUNT}cc_(?P<unit>gy)", re.ASCII)),
    ("dose_at_volume_pct", re.compile(rf"d{_AMOUNT}_(?P<unit>gy)", re.ASCII)),
    ("mean_dose", re.compile(r"mean_(?P<unit>gy)")),
    ("min_dose", re.compile(r"min_(?P<unit>gy)")),
    ("max_dose", re.compile(r"max_(?P<unit>gy)")),
    ("volume", re.compile(r"volume_(?P<unit>cc)")),
)


@dataclass(frozen=True, slots=True)
class Metric:
    """A parsed name.

    `kind` is `volume_at_dose` (`amount` in % of the prescription), `dose_at_volume_pct`, `dose_at_volume_cc`,
    `mean_dose`, `min_dose`, `max_dose` or `volume`; `unit` is what it is measured in: `pct`, `cc` or `gy`.
    """

    name: str
    kind: str
    amount: float
    unit: str


def parse_metric(name: str) -> Metric:
    """Read a metric's name.

    Raises
    ------
    InvalidInput
        No such metric, or a dose to a volume outside 0 to 100 %.
    """
    for kind, pattern in _PATTERNS:
        match = pattern.fullmatch(name)
        if match:
            groups = match.groupdict()
            metric = Metric(name, kind, float(groups.get("amount", "0").replace("_", ".")), groups["unit"])
            in_range = kind != "dose_at_volume_pct" or metric.amount <= 100
            require(in_range, f"metric {name!r}: expected a dose to at most 100 % of the volume")
            return metric
    require(False, f"expected a metric such as v100_pct, v100_cc, d90_gy or d0_1cc_gy, got {name!r}")
    raise AssertionError  # for the type checker: require() has raised
