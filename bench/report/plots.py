"""How latencies are distributed, and how they went over time, as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = 8
"""Cases in one plot: more cannot be told apart."""
_TAIL = (("p99_ms", 0.99), ("p99_9_ms", 0.999))


def distributions_svg(cases: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Cumulative distributions of the cases' latencies; a dashed line is a case's floor."""
    figure, axes = _figure(3.4)
    for number, (name, timing) in enumerate(cases):
        at_ms, share = distribution(timing)
        axes.plot(at_ms, 100.0 * share, drawstyle="steps-post", color=f"C{number}", lw=1.2, label=name)
        if "floor_ms" in timing:
            axes.axvline(timing["floor_ms"], color=f"C{number}", lw=0.8, ls="--")
    axes.set(xscale="log", xlabel="ms", ylabel="% of calls within", ylim=(0, 101))
    return _svg(figure, axes)


def series_svg(cases: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """The cases' latencies in the order they were taken: what drifted, and when it was disturbed."""
    figure, axes = _figure(2.8)
    for number, (name, timing) in enumerate(cases):
        values = timing["series_ms"]
        at = np.linspace(0.0, 100.0, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(at, values, ".-", ms=2.5, lw=0.5, color=f"C{number}", label=name)
    axes.set(yscale="log", xlabel="% of the run", ylabel="ms")
    return _svg(figure, axes)


def distribution(timing: Mapping[str, Any]) -> tuple[Any, Any]:
    """Latencies and the share of calls within each, from the samples kept and the tail's percentiles.

    Of many calls only some are kept; the exact percentiles beyond p98 and the maximum take the place of
    the few kept ones there.
    """
    kept = np.sort(np.asarray(timing["series_ms"], dtype=np.float64))
    share = np.arange(1, len(kept) + 1) / len(kept)
    if timing["samples"] > len(kept) and "p99_ms" in timing:
        body = share < 0.98
        tail = [(timing[name], part) for name, part in _TAIL if name in timing] + [(timing["max_ms"], 1.0)]
        kept = np.concatenate([kept[body], [at for at, _ in tail]])
        share = np.concatenate([share[body], [part for _, part in tail]])
        kept = np.maximum.accumulate(kept)
    return kept, share


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure, axes: Axes) -> str:
    """The drawing as an element to put into a page; text stays text."""
    from matplotlib import rc_context

    axes.grid(visible=True, which="both", lw=0.3, alpha=0.5)
    axes.legend(fontsize=7, loc="best", framealpha=0.8)
    out = io.StringIO()
    # The same file from the same measurement: no time, no random names.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "trocar"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
