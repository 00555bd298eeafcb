"""report.html: one file to read on a screen or on A4 paper, with nothing to fetch and nothing to run."""

from __future__ import annotations

import base64
from importlib import resources
from typing import TYPE_CHECKING

from trocar.planners.report import drawing
from trocar.planners.report.markup import Markup, element, image, joined, table
from trocar.planners.report.planes import plane_pictures, reference_plane_mm
from trocar.planners.report.style import (
    FAINT_INK,
    ISODOSES,
    ROLE_COLOURS,
    ROLE_TITLES,
    metric_title,
    number,
    rule_title,
)
from trocar.planners.types import ROLES
from trocar.runtime.command import INTENDED_USE

if TYPE_CHECKING:
    from trocar.planners.pipeline import PlanResult
    from trocar.planners.types import Finding

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
SEVERITY_ORDER = ("fail", "warn", "pass", "note")
SEVERITY_WORDS = {"fail": "\u2715 fails", "warn": "\u25b3 warning", "pass": "\u2713 met", "note": "note"}


def report_html(result: PlanResult, dvh_png: bytes) -> bytes:
    """Return the report of a plan as a self-contained HTML page."""
    title = f"Seed plan: {result.case.name}"
    style = resources.files("trocar.planners.report").joinpath("page.css").read_text("utf-8")
    head = element(
        "head",
        image("meta", charset="utf-8"),
        image("meta", name="viewport", content="width=device-width, initial-scale=1"),
        # Nothing may be fetched or run, whatever a name in the input says.
        image(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; img-src data:; style-src 'unsafe-inline'",
        ),
        element("title", title),
        element("style", Markup(style + drawing.stylesheet())),
    )
    body = element(
        "body",
        element("p", INTENDED_USE, class_="intended"),
        element("h1", title),
        element("p", _subtitle(result), class_="subtitle"),
        _verdict(result),
        _key_figures(result),
        _case(result),
        _checks(result),
        _dose_volume(result, dvh_png),
        _needles(result),
        _planes(result),
        _origin(result),
    )
    page = Markup("<!doctype html>") + element("html", head, body, lang="en") + "\n"
    return page.encode("utf-8")


def _subtitle(result: PlanResult) -> str:
    plan = result.plan
    return (
        f"{result.protocol.title} \u00b7 prescription {number(plan.prescription_gy)} Gy \u00b7 {plan.source} "
        f"at {number(plan.strength_u)} U a seed \u00b7 {result.provenance.get('created', '')}"
    ).removesuffix(" \u00b7 ")


def _verdict(result: PlanResult) -> Markup:
    failing = [finding for finding in result.validity.findings if finding.severity == "fail"]
    warnings = sum(finding.severity == "warn" for finding in result.validity.findings)
    if result.validity.acceptable:
        warned = {0: "no warning", 1: "one warning"}.get(warnings, f"{warnings} warnings")
        return element(
            "div",
            element("p", element("strong", "ACCEPTABLE"), f" \u2003every rule is met, {warned}"),
            class_="verdict good",
        )
    broken = {1: "one rule fails"}.get(len(failing), f"{len(failing)} rules fail")
    return element(
        "div",
        element("p", element("strong", "NOT ACCEPTABLE"), f" \u2003{broken}"),
        element("ul", *(element("li", _in_words(finding)) for finding in failing)),
        class_="verdict bad",
    )


def _in_words(finding: Finding) -> str:
    measured, limit = _with_unit(finding.measured, finding.unit), _with_unit(finding.limit, finding.unit)
    return f"{rule_title(finding.rule)}: measured {measured}, the limit is {limit}"


def _with_unit(value: float | str, unit: str) -> str:
    return f"{number(value)} {unit}".strip()


def _key_figures(result: PlanResult) -> Markup:
    ctv, urethra = result.metrics.get("ctv", {}), result.metrics.get("urethra", {})
    rectum = result.metrics.get("rectum", {})
    needles = sum(bool(needle.seeds_z_mm) for needle in result.plan.needles)
    figures: list[tuple[str, str]] = [
        (f"{len(result.plan.seeds_xyz_mm)} / {needles}", "seeds / needles"),
        (f"{number(result.plan.total_strength_u, 1)} U", "total strength"),
    ]
    for role, metrics, metric in (
        ("ctv", ctv, "v100_pct"),
        ("ctv", ctv, "d90_gy"),
        ("urethra", urethra, "d10_gy"),
        ("rectum", rectum, "d2cc_gy"),
    ):
        if metric in metrics:
            unit = "%" if metric.endswith("pct") else "Gy"
            figures.append(
                (f"{number(metrics[metric], 1)} {unit}", f"{ROLE_TITLES[role]} {metric_title(metric)}")
            )
    return element(
        "div",
        *(element("div", element("b", value), element("span", name)) for value, name in figures),
        class_="figures",
    )


def _case(result: PlanResult) -> Markup:
    structures = table(
        ("Role", "Name in the input", element("th", "Volume (cc)", class_="n")),
        [
            (
                _role(role),
                result.case.structures[role].name if role in result.case.structures else "derived",
                element("td", number(result.anatomy.volume_cc(role), 1), class_="n"),
            )
            for role in ROLES
            if role in result.anatomy.fractions
        ],
    )
    assumed = (
        element("ul", *(element("li", text) for text in result.case.assumptions), class_="plain")
        if result.case.assumptions
        else element("p", "Nothing: every structure came with the case.", class_="caption")
    )
    return joined(
        (
            element("h2", "Case"),
            element(
                "div",
                element("div", structures),
                element("div", element("h3", "What was assumed", style="margin-top:0"), assumed),
                class_="two",
            ),
        )
    )


def _role(role: str) -> Markup:
    return joined(
        (
            element("span", class_="swatch", style=f"background:{ROLE_COLOURS[role]}"),
            ROLE_TITLES[role],
        )
    )


def _checks(result: PlanResult) -> Markup:
    findings = sorted(result.validity.findings, key=lambda finding: SEVERITY_ORDER.index(finding.severity))
    rows = [
        (
            element("td", SEVERITY_WORDS[finding.severity], class_=f"severity {finding.severity}"),
            rule_title(finding.rule),
            element("td", number(finding.measured), class_="n"),
            element("td", number(finding.limit), class_="n"),
            finding.unit,
            element("small", finding.source),
        )
        for finding in findings
        if finding.severity != "note"
    ]
    notes = [finding for finding in findings if finding.severity == "note"]
    said = [
        element("li", f"{finding.measured} {finding.limit}".strip(), " ", element("small", finding.source))
        for finding in notes
    ]
    head = (
        "Outcome",
        "Rule",
        element("th", "Measured", class_="n"),
        element("th", "Limit", class_="n"),
        "Unit",
        "Source of the limit",
    )
    return joined(
        (
            element("h2", "Checks"),
            table(head, rows),
            joined((element("h3", "Notes"), element("ul", *said, class_="plain"))) if said else "",
        )
    )


def _dose_volume(result: PlanResult, dvh_png: bytes) -> Markup:
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
        (_role(role), *(cell(result.metrics[role], metric) for metric in METRICS))
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


def _needles(result: PlanResult) -> Markup:
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


def _planes(result: PlanResult) -> Markup:
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


def _origin(result: PlanResult) -> Markup:
    facts = [
        (
            element("th", rule_title(key)),
            element("code", value) if value and "sha256" in key else value or "\N{EN DASH}",
        )
        for key, value in result.provenance.items()
    ]
    steps = [
        (rule_title(step), element("td", number(value, 1), class_="n"))
        for step, value in result.timing_ms.items()
    ]
    return joined(
        (
            element("h2", "Provenance"),
            element(
                "div",
                table((), facts, class_="facts"),
                table(("Step", element("th", "Time (ms)", class_="n")), steps, style="max-width:60mm"),
                class_="two",
            ),
            element("p", INTENDED_USE, style=f"color:{FAINT_INK};margin-top:6mm", class_="caption"),
        )
    )
