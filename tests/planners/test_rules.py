from __future__ import annotations

import json

import numpy as np
import pytest

from trocar.planners.protocol import load_protocol
from trocar.planners.rules import (
    adjacent_pairs,
    forbidden_patterns,
    geometry_findings,
    holes_of,
    tight_spacings_mm,
)
from trocar.planners.types import Anatomy, Grid, Lattice, Needle, Plan, Planes, Template

TEMPLATE = Template((0.0, 0.0))
LATTICE = Lattice(TEMPLATE, Planes(0.0, 5.0, 8))


def needle(column: int, row: int, *planes: int) -> Needle:
    x_mm, y_mm = TEMPLATE.hole_xy_mm(column, row)
    return Needle(TEMPLATE.label(column, row), x_mm, y_mm, tuple(5.0 * p for p in planes))


def plan(*needles: Needle) -> Plan:
    return Plan("i125-6711", 0.42, 145.0, needles, LATTICE)


def box(low_mm: float = 0.0, high_mm: float = 60.0) -> Anatomy:
    grid = Grid((-10.0, -10.0, -10.0), (1.0, 1.0, 1.0), (81, 81, 81))
    z, y, x = np.meshgrid(*grid.axes_zyx_mm, indexing="ij")
    inside = np.all([(a >= low_mm) & (a <= high_mm) for a in (x, y, z)], axis=0)
    return Anatomy(grid, {"ptv": inside.astype(np.float32)})


def failed(*needles: Needle) -> set[str]:
    rules = load_protocol("ldr-i125-145").geometry
    return {f.rule for f in geometry_findings(plan(*needles), box(), rules) if f.severity == "fail"}


def test_labels_are_the_printed_ones():
    assert TEMPLATE.label(0, 12) == "A1.0"
    assert TEMPLATE.label(6, 7) == "D3.5"
    assert TEMPLATE.label(12, 0) == "G7.0"


def test_a_legal_plan_passes_every_rule():
    legal = [needle(2, 2, 0, 2, 4), needle(3, 2, 1, 3), needle(2, 4, 0, 2), needle(3, 3, 2)]
    assert failed(*legal) == set()


@pytest.mark.parametrize(
    ("needles", "rule"),
    [
        ([needle(2, 2, 0, 1)], "seed_spacing"),
        ([needle(2, 2, 0), needle(3, 2, 0)], "adjacent_seeds"),
        ([needle(2, 2, 0), needle(2, 3, 0)], "adjacent_seeds"),
        ([needle(2, 2, 0), needle(3, 2, 1), needle(4, 2, 0)], "needle_pattern_row3"),
        ([needle(2, r, r % 2) for r in range(2, 6)], "needle_pattern_column4"),
        ([needle(2, r, r % 2) for r in range(2, 5)] + [needle(3, 3, 0)], "needle_pattern_tee"),
        ([needle(2, 2, 0), needle(3, 2, 1), needle(2, 3, 1), needle(3, 3, 0)], "needle_pattern_block2x2"),
        ([Needle("X", 7.0, 10.0, (0.0,))], "template_holes"),
        ([Needle("X", -5.0, 10.0, (0.0,))], "template_holes"),
        ([needle(c, r, (c + r) % 4) for c in range(0, 13, 2) for r in range(0, 13, 2)], "max_needles"),
    ],
)
def test_each_rule_is_broken_by_its_example(needles, rule):
    assert rule in failed(*needles)


def test_a_seed_far_from_the_ptv_is_a_warning():
    rules = load_protocol("ldr-i125-145").geometry
    found = {f.rule: f for f in geometry_findings(plan(needle(2, 2, 0), needle(4, 4, 13)), box(), rules)}
    assert found["seed_outside_ptv"].severity == "warn"
    assert found["seed_outside_ptv"].measured == pytest.approx(5.0, abs=0.6)
    near = {f.rule: f for f in geometry_findings(plan(needle(2, 2, 0), needle(4, 4, 12)), box(), rules)}
    assert near["seed_outside_ptv"].severity == "pass"


def test_a_needle_near_the_urethra_is_a_warning():
    rules = load_protocol("ldr-i125-145").geometry
    anatomy = box()
    z, y, x = np.meshgrid(*anatomy.grid.axes_zyx_mm, indexing="ij")
    tube = (np.hypot(x - 30.0, y - 30.0) <= 3.0) & (z > 20.0)
    anatomy = Anatomy(anatomy.grid, dict(anatomy.fractions) | {"urethra": tube.astype(np.float32)})
    through, beside = plan(needle(6, 6, 0)), plan(needle(7, 7, 0))
    found = {f.rule: f for f in geometry_findings(through, anatomy, rules)}["needle_urethra_clearance"]
    assert (found.severity, found.measured) == ("warn", f"0.0 at {TEMPLATE.label(6, 6)}")
    found = {f.rule: f for f in geometry_findings(beside, anatomy, rules)}["needle_urethra_clearance"]
    # The hole (35, 35) is 7.07 mm from the axis of a tube of 3 mm.
    assert found.severity == "pass"
    assert found.measured == pytest.approx(np.hypot(5, 5) - 3.0, abs=0.8)


def test_the_least_spacing_is_reported():
    rules = load_protocol("ldr-i125-145").geometry
    found = {f.rule: f for f in geometry_findings(plan(needle(2, 2, 0, 3), needle(4, 4, 1, 5)), box(), rules)}
    assert (found["seed_spacing"].measured, found["seed_spacing"].severity) == (15.0, "pass")


def test_diagonal_neighbours_are_no_pair():
    assert adjacent_pairs((needle(2, 2, 0), needle(3, 3, 0)), 5.0) == []


def test_spacing_names_the_needle_and_the_gap():
    assert tight_spacings_mm([needle(2, 2, 3, 0, 2)], 10.0) == [(TEMPLATE.label(2, 2), 5.0)]


def test_holes_of_finds_the_hole_and_the_stray():
    holes, stray = holes_of([needle(4, 5, 0), Needle("lost", 22.4, 25.0, (0.0,))], TEMPLATE)
    assert holes == {TEMPLATE.label(4, 5): (4, 5)}
    assert stray == ["lost"]


def test_each_pattern_is_found_where_it_starts():
    assert list(forbidden_patterns({(1, 1), (2, 1), (3, 1)})) == [("row3", (1, 1))]
    assert list(forbidden_patterns({(1, 1), (2, 1), (3, 2)})) == []


def test_clinical_plans_keep_the_rules(shared_dir):
    """Eleven plans made by people: none has a forbidden pattern, a tight spacing or an adjacent pair."""
    template = Template((2.5, 2.5), 5.0, 13, 10)
    rules = load_protocol("ldr-i125-145").geometry
    seen = 0
    for path in sorted((shared_dir / "cases/ldr_clinical").glob("*_seeds.json")):
        for seeds in json.loads(path.read_text())["plans_seed_xyz_mm"]:
            holes: dict[tuple[float, float], list[float]] = {}
            for x, y, z in seeds:
                holes.setdefault((x, y), []).append(z)
            needles = tuple(Needle(f"{x},{y}", x, y, tuple(z)) for (x, y), z in holes.items())
            clinical = Plan("i125-6711", 0.42, 144.0, needles, Lattice(template, Planes(0.0)))
            findings = geometry_findings(clinical, Anatomy(box().grid, {}), rules)
            assert [f.rule for f in findings if f.severity == "fail"] == []
            seen += 1
    assert seen == 11
