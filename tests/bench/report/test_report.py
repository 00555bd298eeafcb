import csv
import io
import re

import numpy as np
import pytest

from trocar.bench.report.document import dumps, floors
from trocar.bench.report.page import html
from trocar.bench.report.plots import distribution
from trocar.bench.report.text import comma_separated, markdown
from trocar.bench.timing import Timing, beside

MANY = Timing(tuple(np.random.default_rng(1).lognormal(0.0, 0.5, 5000).tolist())).document()


@pytest.fixture
def measured():
    return {
        "schema": "trocar.bench/1",
        "workload": "w",
        "command": "trocar bench run w --name <b>",
        "environment": {
            "cpu": "c<script>alert(1)</script>",
            "cores": 2,
            "gpu": [],
            "packages": {"numpy": "2"},
        },
        "usage": {"cpu_s": 1.5},
        "timings": {
            "quick | case": beside(MANY, 0.5, "reading once"),
            "slow & <b>rare</b>": Timing((3.0, 4.0)).document(),
        },
        "tables": {"counts": [{"clip": "a|b", "frames": 3}, {"clip": "c", "late": 1.23456}]},
        "answer": 42,
    }


def test_markdown_has_every_case_and_table(measured):
    text = markdown([measured, measured])
    assert text.count("## w\n") == 2
    assert "| quick \\| case |" in text
    assert "| a\\|b | 3 |  |" in text
    assert "- answer: 42" in text
    assert "- floor, reading once: quick | case" in text
    rows = [line for line in text.splitlines() if line.startswith("| quick")]
    head = next(line for line in text.splitlines() if line.startswith("| case"))
    assert rows[0].replace("\\|", "").count("|") == head.count("|")


def test_csv_reads_back(measured):
    rows = list(csv.DictReader(io.StringIO(comma_separated([measured]))))
    assert [row["case"] for row in rows] == ["quick | case", "slow & <b>rare</b>"]
    assert float(rows[0]["p50_ms"]) == MANY["p50_ms"]
    assert float(rows[0]["p99_9_ms"]) == MANY["p99_9_ms"]
    assert rows[1]["p99_ms"] == ""
    assert rows[0]["over_floor"]


def test_the_page_fetches_and_runs_nothing(measured):
    page = html([measured])
    assert "default-src &#x27;none&#x27;" in page
    assert "<script" not in page
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#)""", page)
    assert not re.search(r"url\((?!#)", page)
    assert page.count("<svg") == 2  # how latencies are distributed, and how they went
    assert "<b>rare" not in page
    assert "quick | case" in page
    assert "times floor" in page
    assert "numpy" in page


def test_a_record_without_samples_still_has_a_page(measured):
    for timing in measured["timings"].values():
        del timing["series_ms"]
    page = html([measured])
    assert "<svg" not in page
    assert "quick | case" in page


def test_many_cases_have_several_plots(measured):
    measured["timings"] = {f"case {k}": MANY for k in range(17)}
    assert html([measured]).count("<svg") == 6


def test_a_page_is_the_same_each_time(measured):
    assert html([measured]) == html([measured])


def test_a_distribution_rises_to_its_exact_tail():
    at_ms, share = distribution(MANY)
    assert np.all(np.diff(at_ms) >= 0)
    assert np.all(np.diff(share) > 0)
    assert (at_ms[-1], share[-1]) == (MANY["max_ms"], 1.0)
    assert (at_ms[-3:-1].tolist(), share[-3:-1].tolist()) == (
        [MANY["p99_ms"], MANY["p99_9_ms"]],
        [0.99, 0.999],
    )
    few, parts = distribution(Timing((3.0, 1.0)).document())
    assert (few.tolist(), parts.tolist()) == ([1.0, 3.0], [0.5, 1.0])


def test_floors_name_their_cases(measured):
    measured["timings"]["third"] = beside(MANY, 1.0, "reading once")
    assert floors(measured) == ["floor, reading once: quick | case, third"]


def test_series_take_one_line_each(measured):
    lines = [line for line in dumps(measured).splitlines() if "series_ms" in line]
    assert len(lines) == 2
    assert all(line.count("[") == line.count("]") == 1 for line in lines)
