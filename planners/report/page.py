"""report.html: one file to read on a screen or on A4 paper, with nothing to fetch and nothing to run."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from trocar.planners.report import drawing, sections
from trocar.planners.report.markup import Markup, element, image, joined, table
from trocar.planners.report.style import (
    FAINT_INK,
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
        sections.dose_volume(result, dvh_png),
        sections.needles(result),
        sections.planes(result),
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
                sections.role_cell(role),
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


def _checks(result: PlanResult) -> Markup:
    findings = sorted(result.validity.findings, key=lambda finding: SEVERITY_ORDER.index(finding.severity))
    rows = [
        (
            element("td", SEVERITY_WORDS[finding.severity], class_=f"severity {finding.severity}"),
            rule_title(finding.rule),
            element("td", number(finding.measured), class_="n"),
            element("td", number(finding.limit), class_="n"),
            element("td", finding.unit, class_="unit"),
            element("small", finding.source),
        )
        for finding in findings
        if finding.severity != "note"
    ]
    # What was assumed stands with the case, the intended use at the top.
    elsewhere = {*result.case.assumptions, INTENDED_USE}
    said = [
        element("li", f"{finding.measured} {finding.limit}".strip(), " ", element("small", finding.source))
        for finding in findings
        if finding.severity == "note" and finding.measured not in elsewhere
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
            table(head, rows, class_="checks"),
            joined((element("h3", "Notes"), element("ul", *said, class_="plain"))) if said else "",
        )
    )


def _origin(result: PlanResult) -> Markup:
    facts = [
        (
            element("th", rule_title(key)),
            element("code", value) if value and "sha256" in key else _plain(value),
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


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    return str(value) or "\N{EN DASH}"
