"""The pictures drawn by matplotlib: the DVH, and the plan at a glance."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from trocar.planners.metric import parse_metric
from trocar.planners.report.planes import PlanePicture, View, plane_pictures, silhouette
from trocar.planners.report.style import FAINT_INK, INK, ISODOSES, ROLE_COLOURS, ROLE_TITLES
from trocar.planners.types import ROLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trocar.planners.pipeline import PlanResult
    from trocar.planners.protocol import Limit

# Which way the acceptable side lies, as a marker: (coverage limits, dose limits).
_MARKERS = {">": ("^", ">"), "<": ("v", "<")}


def dvh_png(result: PlanResult) -> bytes:
    """Return the dose-volume histogram as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 4.1), dpi=170, layout="constrained")
    draw_dvh(figure.add_subplot(), result)
    return _png(figure)


def plan_png(result: PlanResult) -> bytes:
    """Return the plan at a glance: three planes, the template and the DVH."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 7.6), dpi=130, layout="constrained")
    grid = figure.add_gridspec(2, 6, height_ratios=(1.0, 1.15))
    view, pictures = plane_pictures(result)
    for slot, picture in enumerate(_base_middle_apex(pictures)):
        draw_plane(figure.add_subplot(grid[0, 2 * slot : 2 * slot + 2]), picture, view)
    draw_template(figure.add_subplot(grid[1, :3]), result)
    draw_dvh(figure.add_subplot(grid[1, 3:]), result, legend=False)
    _draw_key(figure, result)
    return _png(figure)


def _draw_key(figure: Figure, result: PlanResult) -> None:
    """Draw what the colours mean, above everything."""
    from matplotlib.lines import Line2D

    roles = [role for role in ROLES if role in result.anatomy.fractions]
    lines = [Line2D([], [], color=ROLE_COLOURS[role], lw=1.8, label=ROLE_TITLES[role]) for role in roles]
    lines += [
        Line2D([], [], color=colour, lw=width, label=f"{percent} %")
        for percent, (colour, width) in ISODOSES.items()
    ]
    lines.append(Line2D([], [], color=INK, marker="o", ms=4.5, ls="none", label="seed"))
    figure.legend(handles=lines, loc="outside upper center", ncols=len(lines), frameon=False, fontsize=9)


def draw_dvh(axes: Axes, result: PlanResult, *, legend: bool = True) -> None:
    """Draw the curve of every structure, the prescription, and the limits as triangles.

    A triangle stands at its limit and points to the acceptable side; it is filled where the limit is met.
    """
    prescription_gy = result.plan.prescription_gy
    top_gy = 2.5 * prescription_gy
    for role in ROLES:
        if role in result.dvhs:
            dose_gy, volume_pct = result.dvhs[role].curve()
            axes.plot(dose_gy, volume_pct, color=ROLE_COLOURS[role], lw=1.7, label=ROLE_TITLES[role])
    axes.axvline(prescription_gy, color=INK, lw=0.9, ls=(0, (4, 3)))
    axes.text(prescription_gy, 101.5, f" {prescription_gy:g} Gy", fontsize=8, color=INK, va="bottom")
    for limit in result.protocol.limits:
        _draw_limit(axes, result, limit)
    axes.set(xlim=(0, top_gy), ylim=(0, 108), xlabel="Dose (Gy)", ylabel="Volume (%)")
    axes.set_yticks(range(0, 101, 20))
    axes.grid(color="#e3e6ea", lw=0.6)
    axes.set_axisbelow(True)
    gy_of_pct = prescription_gy / 100.0
    percent = axes.secondary_xaxis(
        "top", functions=(lambda gy: np.divide(gy, gy_of_pct), lambda pct: np.multiply(pct, gy_of_pct))
    )
    percent.set_xlabel("% of prescription", fontsize=8, color=FAINT_INK)
    percent.tick_params(labelsize=8, colors=FAINT_INK)
    axes.spines[["right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False, fontsize=9, loc="upper right", bbox_to_anchor=(1.0, 0.97))


def draw_plane(axes: Axes, picture: PlanePicture, view: View) -> None:
    """Draw one axial plane, anterior up, the patient's right on the left."""
    for percent, lines in picture.isodoses.items():
        colour, width = ISODOSES[percent]
        for line in lines:
            axes.plot(line[:, 0], line[:, 1], color=colour, lw=width)
    for role, lines in picture.outlines.items():
        for line in lines:
            axes.plot(line[:, 0], line[:, 1], color=ROLE_COLOURS[role], lw=1.8)
    axes.plot(*picture.seeds_xy_mm.T, "o", ms=4.5, mfc=INK, mec="white", mew=0.7)
    axes.set(xlim=view.x_mm, ylim=view.y_mm[::-1], aspect="equal")
    axes.set_title(f"z = {picture.z_mm:.1f} mm, {len(picture.seeds_xy_mm)} seeds", fontsize=9, color=INK)
    axes.tick_params(labelsize=7, colors=FAINT_INK)
    axes.spines[:].set_color("#c9ced6")
    for text, x, y in (("R", 0.04, 0.5), ("L", 0.96, 0.5), ("A", 0.5, 0.95), ("P", 0.5, 0.05)):
        axes.text(x, y, text, transform=axes.transAxes, ha="center", va="center", fontsize=9, color=FAINT_INK)


def draw_template(axes: Axes, result: PlanResult) -> None:
    """Draw the needles in the template with their seed counts, and the anatomy's silhouettes behind."""
    for role in ("ptv", "ctv", "urethra", "rectum"):
        if role in result.anatomy.fractions:
            for line in silhouette(result, role):
                axes.plot(line[:, 0], line[:, 1], color=ROLE_COLOURS[role], lw=1.0, alpha=0.55)
    for needle in result.plan.needles:
        axes.plot(needle.x_mm, needle.y_mm, "o", ms=11, mfc="white", mec=INK, mew=1.1)
        axes.annotate(
            str(len(needle.seeds_z_mm)),
            (needle.x_mm, needle.y_mm),
            ha="center",
            va="center",
            fontsize=7.5,
            color=INK,
        )
    _label_template(axes, result)
    count, seeds = len(result.plan.needles), len(result.plan.seeds_xyz_mm)
    axes.set_title(f"{count} needles, {seeds} seeds", fontsize=9, color=INK)
    axes.set_aspect("equal")
    axes.spines[:].set_color("#c9ced6")
    axes.tick_params(length=0, labelsize=8, colors=FAINT_INK)


def _label_template(axes: Axes, result: PlanResult) -> None:
    if result.plan.lattice is None:
        axes.invert_yaxis()
        return
    template = result.plan.lattice.template
    holes = np.array(
        [
            [template.hole_xy_mm(column, row) for column in range(template.columns)]
            for row in range(template.rows)
        ]
    )
    axes.plot(*holes.reshape(-1, 2).T, ".", ms=2.5, color="#b4bbc5", zorder=1)
    last = template.rows - 1
    columns = [template.label(column, last).removesuffix("1.0") for column in range(template.columns)]
    axes.set_xticks(holes[0, :, 0], columns)
    axes.set_yticks(holes[:, 0, 1], [f"{1.0 + 0.5 * (last - row):.1f}" for row in range(template.rows)])
    axes.set(
        xlim=(holes[0, 0, 0] - 4, holes[0, -1, 0] + 4),
        ylim=(holes[-1, 0, 1] + 4, holes[0, 0, 1] - 4),
    )


def _draw_limit(axes: Axes, result: PlanResult, limit: Limit) -> None:
    """Draw a limit where its metric lies among the curves; a mean or a volume has no place there."""
    dvh = result.dvhs.get(limit.role)
    metric = parse_metric(limit.metric)
    if dvh is None or not (dvh.volume_cc > 0 and metric.amount):
        return
    prescription_gy = result.plan.prescription_gy
    pct_of_cc = 100.0 / dvh.volume_cc
    if metric.kind == "volume_at_dose":
        dose_gy = metric.amount / 100.0 * prescription_gy
        volume_pct = limit.value * (pct_of_cc if limit.unit == "cc" else 1.0)
    else:
        dose_gy = limit.value if limit.unit == "Gy" else limit.value / 100.0 * prescription_gy
        volume_pct = metric.amount * (pct_of_cc if metric.kind == "dose_at_volume_cc" else 1.0)
    dose_marker = metric.kind != "volume_at_dose"
    measured = np.interp(dose_gy, *dvh.curve())
    met = measured >= volume_pct if limit.op.startswith(">") else measured <= volume_pct
    axes.plot(
        dose_gy,
        volume_pct,
        marker=_MARKERS[limit.op[0]][dose_marker],
        ms=6.0 if limit.severity == "fail" else 4.2,
        mec=ROLE_COLOURS[limit.role],
        mfc=ROLE_COLOURS[limit.role] if met else "white",
        mew=1.0,
        ls="none",
        zorder=4,
    )


def _base_middle_apex(pictures: tuple[PlanePicture, ...]) -> list[PlanePicture]:
    """Return three planes a quarter, a half and three quarters down from the base."""
    last = len(pictures) - 1
    return [pictures[round(last * part)] for part in (0.25, 0.5, 0.75)] if pictures else []


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    # No entry of the software's version: the same result gives the same bytes.
    figure.savefig(stream, format="png", dpi="figure", metadata={"Software": None})
    return stream.getvalue()
