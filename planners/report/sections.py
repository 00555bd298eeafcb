"""The sections of the report that show dose: DVH, needles and planes."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from trocar.planners.report import drawing
from trocar.planners.report.markup import Markup, element, image, joined, table
from trocar.planners.report.planes import plane_pictures, reference_plane_mm
from trocar.planners.report.style import ISODOSES, ROLE_COLOURS, ROLE_TITLES, metric_title, number
from trocar.planners.types import ROLES

if TYPE_CHECKING:
    from trocar.planners.pipeline import PlanResult

METRICS = (
    "v100_pct",
    "v150_pct",
    "v200_pct",
    "d90_gy",
    "d30_gy",
    "d10_gy",
    "d2cc_gy",
    "d0_1cc_gy",
    "mean_gy",
)


def role_cell(role: str) -> Markup:
    """Return a structure's name with its colour."""
    return joined(
        (
            element("span", class_="swatch", style=f"background:{ROLE_COLOURS[role]}"),
            ROLE_TITLES[role],
        )
    )


def dose_volume(result: PlanResult, dvh_png: bytes) -> Markup:
    """Return the DVH and the table of figures."""
    prescription_gy = result.plan.prescription_gy

    def cell(metrics: object, metric: str) -> Markup:
        value = metrics.get(metric) if hasattr(metrics, "get") else None
        if value is None:
            return element("td", "\N{EN DASH}", class_="n")
        if metric.endswith("_gy"):
            share = element("small", f" {number(100.0 * value / prescription_gy, 0)}\u2009%")
            return element("td", number(value, 1), share, class_="n")
        return element("td", number(value, 1), class_="n")

    titles = [
        element("th", f"{metric_title(metric)} ({'%' if metric.endswith('pct') else 'Gy'})", class_="n")
        for metric in METRICS
    ]
    rows = [
        (role_cell(role), *(cell(result.metrics[role], metric) for metric in METRICS))
        for role in ROLES
        if role in result.metrics
    ]
    source = "data:image/png;base64," + base64.b64encode(dvh_png).decode("ascii")
    return joined(
        (
            element("h2", "Dose and volume"),
            element("figure", image("img", src=source, alt="Dose-volume histogram of every structure")),
            element(
                "p",
                "Triangles are the protocol's limits: each points to its acceptable side and is filled where "
                "it is met; the small ones only warn.",
                class_="caption",
            ),
            table(("", *titles), rows),
        )
    )


def needles(result: PlanResult) -> Markup:
    """Return the template map and the loading of every needle."""
    plan = result.plan
    needles = sorted(plan.needles, key=lambda needle: (needle.y_mm, needle.x_mm))
    z_mm = plan.seeds_xyz_mm[:, 2] if len(plan.seeds_xyz_mm) else [0.0]
    base_mm, apex_mm = reference_plane_mm(plan), float(min(z_mm))
    rows = [
        (
            element("td", index, class_="n"),
            element("b", needle.label),
            element("td", len(needle.seeds_z_mm), class_="n"),
            element(
                "td", number(base_mm - max(needle.seeds_z_mm), 1) if needle.seeds_z_mm else "", class_="n"
            ),
            drawing.loading(needle, base_mm, apex_mm),
            ", ".join(number(z, 1) for z in sorted(needle.seeds_z_mm, reverse=True)),
        )
        for index, needle in enumerate(needles, 1)
    ]
    head = (
        element("th", "#", class_="n"),
        "Hole",
        element("th", "Seeds", class_="n"),
        element("th", "Retraction (mm)", class_="n"),
        "Base \u2192 apex",
        "Seed centres, z (mm)",
    )
    return joined(
        (
            element("h2", "Needles"),
            element(
                "figure",
                element("div", drawing.template_map(result), style="max-width:120mm;margin:0 auto 2mm"),
            ),
            element(
                "p",
                "The template as the operator faces it: row 1.0 is the most posterior, column A is on the "
                "patient's right. A circle holds the needle's number of seeds; behind it the largest "
                "outlines of PTV (dashed), CTV, urethra and rectum.",
                class_="caption",
            ),
            table(head, rows, class_="needles"),
            element(
                "p",
                f"Retraction counts from the seed nearest the base, z = {number(base_mm, 1)} mm, to the "
                "needle's own first seed. Strips are to scale: a bar is one seed.",
                class_="caption",
            ),
        )
    )


def planes(result: PlanResult) -> Markup:
    """Return one panel a seed plane: dose on the contours."""
    view, pictures = plane_pictures(result)
    panels = [
        element(
            "figure",
            element(
                "figcaption",
                f"z = {number(picture.z_mm, 1)} mm",
                element("span", _seed_count(len(picture.seeds_xy_mm) + len(picture.near_seeds_xy_mm))),
            ),
            drawing.plane(picture, view),
        )
        for picture in pictures
    ]
    return joined(
        (
            element("h2", "Dose on the contours"),
            _legend(result),
            element("div", *panels, class_="planes"),
            element(
                "p",
                "Axial planes from base to apex, anterior up, the patient's right on the left; coordinates "
                "are DICOM patient LPS in mm. An open circle is a seed more than 1 mm off the plane.",
                class_="caption",
                style="margin-top:3mm",
            ),
        )
    )


def _seed_count(count: int) -> str:
    return {0: "no seed", 1: "1 seed"}.get(count, f"{count} seeds")


def _legend(result: PlanResult) -> Markup:
    organs = [
        element(
            "span",
            element("i", style=f"color:{ROLE_COLOURS[role]}", class_="dashed" if role == "ptv" else None),
            ROLE_TITLES[role],
        )
        for role in ROLES
        if role in result.anatomy.fractions
    ]
    doses = [
        element(
            "span",
            element("i", style=f"color:{colour}"),
            f"{percent} % ({number(percent / 100.0 * result.plan.prescription_gy, 1)} Gy)",
        )
        for percent, (colour, _) in ISODOSES.items()
    ]
    seeds = element("span", element("i", class_="dot"), "seed")
    return element("div", *organs, *doses, seeds, class_="legend")
