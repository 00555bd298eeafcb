from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

from trocar.planners.report import render_artifacts
from trocar.planners.types import Needle, Validity
from trocar.runtime.command import INTENDED_USE

VOID = {"meta", "img"}


class Page(HTMLParser):
    """Checks nesting, and collects the tags, their attributes and the text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(page.decode("utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data + "\n"


def page_of(result: Any) -> Page:
    return Page(render_artifacts(result, ["report.html"])["report.html"])


def test_intended_use_comes_first(result: Any) -> None:
    page = render_artifacts(result, ["report.html"])["report.html"].decode()
    body = page.split("<body>")[1]
    assert re.sub("<[^>]+>", "", body).replace("&#x27;", "'").startswith(INTENDED_USE)


def test_nothing_is_fetched_and_nothing_runs(failing: Any) -> None:
    page = page_of(failing)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href"):
            assert (tag, value[:22]) == ("img", "data:image/png;base64,")
        if "url(" in value:
            assert value == "url(#template)"


def test_names_from_the_input_stay_text(failing: Any) -> None:
    page = page_of(failing)
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert "<script>alert(1)</script>\ufffdVTC" in page.text
    assert '"><img src=x onerror=alert(2)>' in page.text
    assert "urethra: <b>assumed</b> & drawn as a straight tube" in page.text


def test_verdict_of_an_acceptable_plan(result: Any) -> None:
    text = page_of(result).text
    assert "ACCEPTABLE" in text
    assert "NOT ACCEPTABLE" not in text
    assert "one warning" in text


def test_verdict_names_what_fails(failing: Any) -> None:
    text = page_of(failing).text
    assert "NOT ACCEPTABLE" in text
    assert "2 rules fail" in text
    assert "CTV V100: measured 91.3 %, the limit is \u2265 95 %" in text
    assert "Adjacent seeds: measured 3 pairs, the limit is 0 pairs" in text


def test_every_finding_shows_its_source(result: Any) -> None:
    text = page_of(result).text
    for finding in result.validity.findings:
        assert finding.source in text
    assert "not modelled: D90 is about 3 % lower" in text


def test_every_structure_shows_its_volume_and_metrics(result: Any) -> None:
    text = page_of(result).text
    for role in result.metrics:
        assert f"{result.anatomy.volume_cc(role):.1f}" in text
        assert f"{result.metrics[role]['mean_gy']:.1f}" in text


def test_needle_table_says_retraction_and_positions(result: Any) -> None:
    text = page_of(result).text
    rows = re.findall(r"\n(\d+)\n([A-Ga-g]\d\.\d)\n(\d)\n([\d.]+)\n([\d., ]+)(?=\n)", text)
    assert len(rows) == len(result.plan.needles)
    by_label = {
        label: (int(seeds), float(retraction), places) for _, label, seeds, retraction, places in rows
    }
    # b5.0 starts at the base-most plane, c5.0 one plane (5 mm) below it.
    assert by_label["b5.0"] == (5, 0.0, "40.0, 30.0, 20.0, 10.0, 0.0")
    assert by_label["c5.0"] == (4, 5.0, "35.0, 25.0, 15.0, 5.0")


def test_template_has_every_label_and_row_one_at_the_bottom(result: Any) -> None:
    page = render_artifacts(result, ["report.html"])["report.html"].decode()
    drawing = re.search(r"<svg[^>]*class=\"template\".*?</svg>", page, re.DOTALL)
    assert drawing
    placed = re.findall(r'<text class="hole-label[^"]*" x="([-\d.]+)" y="([-\d.]+)">([^<]+)<', drawing[0])
    height = {text: float(y) for _, y, text in placed if text[0].isdigit()}
    across = {text: float(x) for x, _, text in placed if text[0].isalpha()}
    assert list(across) == ["A", "a", "B", "b", "C", "c", "D", "d", "E", "e", "F", "f", "G"]
    assert list(across.values()) == sorted(across.values())
    assert height["1.0"] - height["7.0"] == 60.0


def test_a_plan_off_the_template_without_seeds_or_organs_still_has_a_report(result: Any) -> None:
    anatomy = replace(result.anatomy, fractions={"ctv": result.anatomy.fractions["ctv"]})
    bare = replace(
        result,
        anatomy=anatomy,
        dvhs={"ctv": result.dvhs["ctv"]},
        metrics={"ctv": result.metrics["ctv"]},
        plan=replace(result.plan, lattice=None, needles=(Needle("17", 3.0, 4.0, ()),)),
        validity=Validity(()),
        provenance={},
        timing_ms={},
    )
    assert "17" in page_of(bare).text
    no_needles = replace(bare, plan=replace(bare.plan, needles=()))
    assert "ACCEPTABLE" in page_of(no_needles).text
