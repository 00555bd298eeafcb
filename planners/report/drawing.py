"""Seed planes, the needle template and needle loadings as SVG, in mm.

Everything is seen as on the ultrasound image: anterior at the top, the patient's right on the left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trocar.planners.report.markup import Markup, element, joined
from trocar.planners.report.planes import PlanePicture, Polylines, View, silhouette
from trocar.planners.report.style import ISODOSES, ROLE_COLOURS, number
from trocar.planners.types import SEED_LENGTH_MM

if TYPE_CHECKING:
    from trocar.planners.pipeline import PlanResult
    from trocar.planners.types import Needle, Plan, Template

TICK_MM = 10
LABELLED_TICK_MM = 20


def stylesheet() -> str:
    """Return the CSS of the drawings: one class a role and an isodose level."""
    roles = [f".{role}{{stroke:{colour}}}" for role, colour in ROLE_COLOURS.items()]
    doses = [
        f".iso{percent}{{stroke:{colour};stroke-width:{width}px}}"
        for percent, (colour, width) in ISODOSES.items()
    ]
    return "".join(roles + doses)


def plane(picture: PlanePicture, view: View) -> Markup:
    """Return one axial plane: outlines, isodose lines, seeds and a frame with mm."""
    left, top = 7.0, 1.0
    frame = (view.x_mm[0] - left, view.y_mm[0] - top, view.width_mm + left + 1.0, view.height_mm + top + 5.5)
    layers = [
        element("path", class_="wash", d=_path(picture.wash)),
        *(element("path", class_=f"iso{level}", d=_path(lines)) for level, lines in picture.isodoses.items()),
        *(
            element("path", class_=f"organ {role}", d=_path(lines))
            for role, lines in picture.outlines.items()
        ),
        *(_seed(x, y, "seed") for x, y in picture.seeds_xy_mm),
        *(_seed(x, y, "seed near") for x, y in picture.near_seeds_xy_mm),
    ]
    return element(
        "svg",
        element("title", f"Plane z = {number(picture.z_mm, 1)} mm"),
        element(
            "rect", class_="frame", x=view.x_mm[0], y=view.y_mm[0], width=view.width_mm, height=view.height_mm
        ),
        *layers,
        _axes(view),
        _letters(view),
        viewBox=" ".join(f"{value:.2f}" for value in frame),
        role="img",
    )


def template_map(result: PlanResult) -> Markup:
    """Return the template as printed, the seeds in every used hole, and the anatomy's silhouettes behind."""
    plan = result.plan
    holes = [] if plan.lattice is None else _holes(plan.lattice.template, plan)
    used = [_used_hole(needle, labelled=plan.lattice is None) for needle in plan.needles]
    outlines = [
        element("path", class_=f"organ {role} quiet", d=_path(silhouette(result, role)))
        for role in ("ptv", "ctv", "urethra", "rectum")
        if role in result.anatomy.fractions
    ]
    view = _template_view(plan)
    frame = (view.x_mm[0] - 6.0, view.y_mm[0] - 4.0, view.width_mm + 12.0, view.height_mm + 8.0)
    return element(
        "svg",
        element("title", "Needle template"),
        element("defs", element("clipPath", _box(view), id="template")),
        _box(view, class_="frame"),
        element("g", *outlines, clip_path="url(#template)"),
        *holes,
        *used,
        _corner_letters(view),
        viewBox=" ".join(f"{value:.2f}" for value in frame),
        class_="template",
        role="img",
    )


def loading(needle: Needle, base_mm: float, apex_mm: float) -> Markup:
    """Return one needle as a strip, base on the left: a bar for every seed, to scale."""
    margin = 3.0
    length = base_mm - apex_mm + 2 * margin
    bars = [
        element(
            "rect",
            x=f"{base_mm - z - SEED_LENGTH_MM / 2:.2f}",
            y=-1.3,
            width=SEED_LENGTH_MM,
            height=2.6,
            rx=1.1,
        )
        for z in needle.seeds_z_mm
    ]
    return element(
        "svg",
        element("line", x1=-margin, x2=f"{length - margin:.2f}", y1=0, y2=0),
        *bars,
        viewBox=f"{-margin} -1.8 {length:.2f} 3.6",
        class_="loading",
        style=f"width:{length:.1f}mm",
    )


def _path(lines: Polylines) -> str:
    """Return the lines as path data, 0.05 mm fine. A closed line is closed with Z."""
    parts = []
    for line in lines:
        closed = len(line) > 2 and np.array_equal(line[0], line[-1])
        points = line[:-1] if closed else line
        parts.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points.tolist()) + ("Z" if closed else ""))
    return "".join(parts)


def _seed(x: float, y: float, name: str) -> Markup:
    return element("circle", class_=name, cx=f"{x:.2f}", cy=f"{y:.2f}", r=0.9)


def _text(text: object, x: float, y: float, name: str) -> Markup:
    return element("text", text, class_=name, x=f"{x:.2f}", y=f"{y:.2f}")


def _box(view: View, **attributes: object) -> Markup:
    sides = {"x": view.x_mm[0], "y": view.y_mm[0], "width": view.width_mm, "height": view.height_mm}
    return element("rect", **{key: f"{value:.2f}" for key, value in sides.items()}, **attributes)


def _axes(view: View) -> Markup:
    """Return ticks every cm along the left and lower edges, every other one with its coordinate."""
    x0, y1 = view.x_mm[0], view.y_mm[1]
    marks = []
    for x in _ticks(view.x_mm):
        marks.append(element("line", class_="tick", x1=x, x2=x, y1=f"{y1:.2f}", y2=f"{y1 + 0.9:.2f}"))
        if x % LABELLED_TICK_MM == 0:
            marks.append(_text(number(float(x), 0), x, y1 + 3.9, "axis middle"))
    for y in _ticks(view.y_mm):
        marks.append(element("line", class_="tick", x1=f"{x0 - 0.9:.2f}", x2=f"{x0:.2f}", y1=y, y2=y))
        if y % LABELLED_TICK_MM == 0:
            marks.append(_text(number(float(y), 0), x0 - 1.5, y + 0.9, "axis end"))
    return joined(marks)


def _ticks(limits_mm: tuple[float, float]) -> range:
    return range(int(np.ceil(limits_mm[0] / TICK_MM)) * TICK_MM, int(np.floor(limits_mm[1])) + 1, TICK_MM)


def _letters(view: View) -> Markup:
    """Return the orientation letters: right, left, anterior and posterior of the patient."""
    (x0, x1), (y0, y1) = view.x_mm, view.y_mm
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    return joined(
        (
            _text("R", x0 + 1.8, middle_y + 1.1, "letter middle"),
            _text("L", x1 - 1.8, middle_y + 1.1, "letter middle"),
            _text("A", middle_x, y0 + 3.3, "letter middle"),
            _text("P", middle_x, y1 - 1.2, "letter middle"),
        )
    )


def _corner_letters(view: View) -> Markup:
    """Return the orientation letters where no needle of a usual plan hides them."""
    top = view.y_mm[0] + 2.9
    return joined(
        (
            _text("R", view.x_mm[0] + 1.9, top, "letter middle"),
            _text("L", view.x_mm[1] - 1.9, top, "letter middle"),
            _text("A", sum(view.x_mm) / 2, top, "letter middle"),
            _text("P", sum(view.x_mm) / 2, view.y_mm[1] - 1.2, "letter middle"),
        )
    )


def _template_view(plan: Plan) -> View:
    if plan.lattice is None:
        xy = np.array([(needle.x_mm, needle.y_mm) for needle in plan.needles]).reshape(-1, 2)
        low, high = (xy.min(axis=0), xy.max(axis=0)) if len(xy) else (np.zeros(2), np.zeros(2))
    else:
        template = plan.lattice.template
        low = np.array(template.origin_xy_mm)
        high = np.array(template.hole_xy_mm(template.columns - 1, template.rows - 1))
    margin = 5.0
    return View(
        (float(low[0]) - margin, float(high[0]) + margin), (float(low[1]) - margin, float(high[1]) + margin)
    )


def _holes(template: Template, plan: Plan) -> list[Markup]:
    """Return the empty holes and the printed labels along all four sides."""
    used = {needle.label for needle in plan.needles}
    marks = []
    view = _template_view(plan)
    for column in range(template.columns):
        x, _ = template.hole_xy_mm(column, 0)
        label = template.label(column, template.rows - 1).removesuffix("1.0")
        marks.append(_text(label, x, view.y_mm[0] - 1.4, "hole-label middle"))
        marks.append(_text(label, x, view.y_mm[1] + 3.0, "hole-label middle"))
    for row in range(template.rows):
        _, y = template.hole_xy_mm(0, row)
        label = f"{1.0 + 0.5 * (template.rows - 1 - row):.1f}"
        marks.append(_text(label, view.x_mm[0] - 1.3, y + 0.8, "hole-label end"))
        marks.append(_text(label, view.x_mm[1] + 1.3, y + 0.8, "hole-label"))
    for column in range(template.columns):
        for row in range(template.rows):
            if template.label(column, row) not in used:
                x, y = template.hole_xy_mm(column, row)
                marks.append(element("circle", class_="hole", cx=f"{x:.2f}", cy=f"{y:.2f}", r=0.5))
    return marks


def _used_hole(needle: Needle, *, labelled: bool) -> Markup:
    x, y = needle.x_mm, needle.y_mm
    marks = [
        element("circle", class_="needle", cx=f"{x:.2f}", cy=f"{y:.2f}", r=2.0),
        _text(len(needle.seeds_z_mm), x, y + 0.95, "count middle"),
    ]
    if labelled:
        marks.append(_text(needle.label, x, y - 2.5, "hole-label middle"))
    return element("g", element("title", needle.label), *marks)
