"""`report.html` of a stream: one page without scripts, to look at and to print."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trocar.runtime.command import INTENDED_USE
from trocar.video.digest import QUALITIES, Digest, remarks

_PHASE_COLOURS = {
    "outside": "#999999",
    "exploring": "#56b4e9",
    "working": "#009e73",
    "pausing": "#f0e442",
    "unknown": "#d0d0d0",
}
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.6rem 0}
td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}img{max-width:100%}figure{display:inline-block;margin:.3rem}
figcaption{font-size:.8rem;color:#666}.note{color:#666}
@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}td,th{border-color:#444}img.plot{background:#fff}}
"""


def render(document: Mapping[str, Any], digest: Digest) -> str:
    """Return the page.

    Parameters
    ----------
    document : as `trocar annotate --json` prints it.
    digest : the stream's values over time.
    """
    frames = document["frames"]
    parts = [
        f"<h1>{_text(document['input'])}</h1>",
        f"<p class=note>{_text(INTENDED_USE)} Masks and figures were not checked by a person.</p>",
        f"<p>{frames['frames']} frames, {document['fps']:.1f} a second; model {_text(document['model'])} on "
        f"{_text(document['device'])}. Annotated {frames['annotated']}, skipped {frames['skipped']}, failed "
        f"{frames['failed']}, dropped {frames['dropped']}.</p>",
        *(f"<p>{_text(remark)}.</p>" for remark in remarks(document)),
        _plot(_timeline(digest), "activity, instruments and picture quality over time"),
        "".join(_thumbnail(time_s, jpeg) for time_s, jpeg in digest.thumbnails),
        "<h2>Latency, ms</h2>",
        _table(
            ("stage", "p50", "p99", "max"),
            ((name, *(f"{row[key]:.2f}" for key in row)) for name, row in document["latency_ms"].items()),
        ),
        _plot(_latencies(digest), "share of frames done within a time"),
        f"<h2>Motion of the tips, {_text(document['motion']['unit'])}</h2>",
        _motion(document["motion"]),
        "<h2>Phases</h2><p class=note>By rules from what is in view: not the steps of an operation.</p>",
        _table(
            ("phase", "from, s", "to, s"),
            ((one["name"], f"{one['begin_s']:.2f}", f"{one['end_s']:.2f}") for one in document["phases"]),
        ),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{_text(document['input'])}</title><style>{_STYLE}</style>{''.join(parts)}</html>\n"
    )


def _timeline(digest: Digest) -> Figure:
    figure = Figure(figsize=(10, 5.4), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[1, 2, 4])
    names: set[str] = set()
    for phase in digest.phases:
        top.axvspan(
            phase.begin_s,
            phase.end_s,
            color=_PHASE_COLOURS[phase.name],
            label=None if phase.name in names else phase.name,
        )
        names.add(phase.name)
    top.set_yticks([])
    _legend(top)
    times = np.array(digest.times_s)
    middle.step(times, digest.instruments, where="post", color="#0072b2", label="instruments in view")
    middle.fill_between(
        times, 0, max([1, *digest.instruments]), where=~np.array(digest.ai_on), color="#d55e00", alpha=0.25,
        step="post", label="AI off",
    )  # fmt: skip
    _legend(middle)
    for name in QUALITIES:
        bottom.plot(times, digest.quality[name], label=name.replace("_", " "), linewidth=1.2)
    bottom.set_ylim(0, 1)
    bottom.set_xlabel("time, s")
    _legend(bottom)
    return figure


def _latencies(digest: Digest) -> Figure:
    figure = Figure(figsize=(10, 3), layout="constrained")
    axes = figure.subplots()
    for name, values in digest.stage_ms.items():
        axes.plot(np.sort(values), np.linspace(0, 100, len(values)), label=name)
    axes.set_xscale("log")
    axes.set_xlabel("ms")
    axes.set_ylabel("frames, %")
    _legend(axes)
    return figure


def _legend(axes: Axes) -> None:
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)


def _motion(motion: Mapping[str, Any]) -> str:
    keys = (
        "in_view_s", "path_length", "mean_speed", "peak_speed", "idle_s", "economy_of_area", "ldlj", "sparc"
    )  # fmt: skip
    rows = (
        (number, *("–" if row[key] is None else f"{row[key]:.3g}" for key in keys))
        for number, row in motion["tracks"].items()
    )
    switches = f"<p>{motion['tool_switches']} switches of the leading instrument.</p>"
    return switches + _table(("track", *(key.replace("_", " ") for key in keys)), rows)


def _plot(figure: Figure, says: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f'<img class=plot alt="{_text(says)}" src="{_data("png", buffer.getvalue())}">'


def _thumbnail(time_s: float, jpeg: bytes) -> str:
    image = f'<img alt="frame at {time_s:.1f} s" src="{_data("jpeg", jpeg)}">'
    return f"<figure>{image}<figcaption>{time_s:.1f} s</figcaption></figure>"


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{_text(cell)}" for cell in heading)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}" for cell in row) for row in rows)
    return f"<table><tr>{head}{body}</table>"


def _text(value: object) -> str:
    return html.escape(str(value))
