import copy
import json

import pytest

from trocar.planners.io.plans import plan_document, read_plan
from trocar.planners.types import Lattice, Needle, Plan, Planes, Template
from trocar.runtime.errors import InvalidInput

LATTICE = Lattice(Template((2.5, 2.5), 5.0, 13, 10), Planes(0.0, 5.0, 12))
PLAN = Plan(
    "i125-6711",
    0.42,
    144.0,
    (Needle("A5.5", 2.5, 2.5, (0.0, 10.0)), Needle("D1.0", 32.5, 47.5, (5.0,))),
    LATTICE,
    {"seed": 3},
)
DOCUMENT = plan_document(PLAN)


def test_the_document_as_it_stands():
    assert DOCUMENT == {
        "schema": "trocar.plan/1",
        "source": "i125-6711",
        "strength_u": 0.42,
        "prescription_gy": 144.0,
        "frame": "patient-lps-mm",
        "template": {"origin_xy_mm": [2.5, 2.5], "pitch_mm": 5.0, "columns": 13, "rows": 10},
        "planes": {"z0_mm": 0.0, "pitch_mm": 5.0, "count": 12},
        "needles": [
            {"label": "A5.5", "x_mm": 2.5, "y_mm": 2.5, "seeds_z_mm": [0.0, 10.0]},
            {"label": "D1.0", "x_mm": 32.5, "y_mm": 47.5, "seeds_z_mm": [5.0]},
        ],
        "provenance": {"seed": 3},
    }


def test_round_trip(tmp_path):
    text = json.dumps(DOCUMENT)
    (tmp_path / "plan.json").write_text(text)
    for form in (DOCUMENT, text.encode(), tmp_path / "plan.json", str(tmp_path / "plan.json")):
        assert read_plan(form) == PLAN
    bare = Plan(PLAN.source, 0.4, 100.0, PLAN.needles)
    assert "template" not in plan_document(bare)
    assert read_plan(plan_document(bare)) == bare


def test_what_a_plan_says_stands():
    assert read_plan(DOCUMENT, source="other", strength_u=9.0, prescription_gy=1.0) == PLAN


def test_labels_are_filled_in_and_seeds_sorted():
    changed = copy.deepcopy(DOCUMENT)
    del changed["needles"][0]["label"]
    changed["needles"][0]["seeds_z_mm"] = [10, 0]
    assert read_plan(changed) == PLAN


def edited(path, value):
    document = copy.deepcopy(DOCUMENT)
    at = document
    for key in path[:-1]:
        at = at[key]
    if value is KeyError:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema",), "trocar.plan/2", 'schema: expected "trocar.plan/1", got "trocar.plan/2"'),
        (("schema",), KeyError, 'schema: expected "trocar.plan/1", got nothing'),
        (("frame",), "ras", 'frame: expected "patient-lps-mm", got "ras"'),
        (("source",), KeyError, "source: missing"),
        (("source",), 3, "source: expected text, got 3"),
        (("strength_u",), -0.4, "strength_u: expected a figure > 0, got -0.4"),
        (("strength_u",), 0, "strength_u: expected a figure > 0"),
        (("strength_u",), float("nan"), "strength_u: expected a finite figure, got NaN"),
        (("strength_u",), "0.4", 'strength_u: expected a finite figure, got "0.4"'),
        (("strength_u",), True, "strength_u: expected a finite figure, got true"),
        (("prescription_gy",), 0, "prescription_gy: expected a figure > 0"),
        (("prescription_gy",), 10**400, "prescription_gy: expected a finite figure"),
        (("needles",), {}, "needles: expected a list"),
        (("needles",), [], "needles: expected 1 to 1000 seeds, got 0"),
        (("needles", 1), [], r"needles\[1\]: expected an object"),
        (("needles", 1, "x_mm"), float("inf"), r"needles\[1\].x_mm: expected a finite figure, got Infinity"),
        (("needles", 1, "y_mm"), KeyError, r"needles\[1\].y_mm: missing"),
        (("needles", 1, "x_mm"), 33.0, r"needles\[1\].x_mm, y_mm: \(33, 47.5\) mm is not a hole"),
        (("needles", 1, "x_mm"), 102.5, "is not a hole of the template"),
        (("needles", 1, "label"), "D1.5", r'needles\[1\].label: the hole at its x, y is "D1.0", got "D1.5"'),
        (
            ("needles", 0, "seeds_z_mm", 1),
            None,
            r"needles\[0\].seeds_z_mm\[1\]: expected a finite figure, got nothing",
        ),
        (("needles", 0, "seeds_z_mm"), "0", r"needles\[0\].seeds_z_mm: expected a list"),
        (("needles", 0, "seeds_z_mm"), [0.0] * 999 + [1e6], "1e\\+06 mm is beyond 10000 mm"),
        (("needles", 0, "seeds_z_mm"), [0.0] * 1001, "1001 seeds, more than 1000"),
        (("needles", 0, "seeds_z_mm"), [0.0] * 1000, "expected 1 to 1000 seeds, got 1001"),
        (("template", "pitch_mm"), 0, "template pitch: expected > 0 mm"),
        (("template", "rows"), 2.5, "template.rows: expected a whole number, got 2.5"),
        (("template", "columns"), 10**6, "template columns: expected 1 to 40"),
        (("template", "origin_xy_mm"), [1], "template.origin_xy_mm: expected 2 figures, got 1"),
        (("template",), 4, "template: expected an object, got 4"),
        (("planes", "count"), KeyError, "planes.count: missing"),
        (("planes", "z0_mm"), float("-inf"), "planes.z0_mm: expected a finite figure"),
        (("provenance",), [1], "provenance: expected an object"),
    ],
)
def test_every_refusal_names_its_field(path, value, message):
    with pytest.raises(InvalidInput, match=f"^plan: .*{message}") as caught:
        read_plan(edited(path, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema": "a\\nb"}', b"1" * 5000]
)
def test_garbage(data):
    with pytest.raises(InvalidInput) as caught:
        read_plan(data)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(InvalidInput, match="no such plan"):
        read_plan(tmp_path / "none.json")
    with pytest.raises(InvalidInput, match="no such plan"):
        read_plan(tmp_path)
    with pytest.raises(InvalidInput, match="plan"):
        read_plan("a\0b")


SEEDS = {"plans_seed_xyz_mm": [[[7.5, 2.5, 10.0], [2.5, 2.5, 0.0], [7.5, 2.5, 0.0]], [[2.5, 7.5, 0.0]]]}
GIVEN = {"source": "i125-6711", "strength_u": 0.42, "prescription_gy": 144.0}


def test_a_seed_list():
    plan = read_plan(SEEDS, **GIVEN)
    assert [(n.x_mm, n.y_mm, n.seeds_z_mm) for n in plan.needles] == [
        (2.5, 2.5, (0.0,)),
        (7.5, 2.5, (0.0, 10.0)),
    ]
    assert (plan.source, plan.strength_u, plan.lattice) == ("i125-6711", 0.42, None)
    assert len(read_plan(SEEDS, index=1, **GIVEN).needles) == 1
    sized = {**SEEDS, "template_pitch_mm": 5.0, "template_rows": 10, "template_cols": 13}
    plan = read_plan(sized, **GIVEN)
    assert plan.lattice == Lattice(Template((2.5, 2.5), 5.0, 13, 10), Planes(0.0, 5.0, 3))
    assert [needle.label for needle in plan.needles] == ["A5.5", "a5.5"]
    off = {**sized, "plans_seed_xyz_mm": [[[2.5, 2.5, 0.0], [8.0, 2.5, 0.0]]]}
    assert read_plan(off, **GIVEN).lattice is None


@pytest.mark.parametrize(
    ("document", "options", "message"),
    [
        (SEEDS, {**GIVEN, "index": 2}, "the file holds 2 plans, number 2 was asked for"),
        (SEEDS, {**GIVEN, "index": -1}, "number -1 was asked for"),
        (SEEDS, {**GIVEN, "source": None}, "says no source, strength or prescription"),
        (SEEDS, {**GIVEN, "strength_u": float("nan")}, "strength_u: expected a figure > 0, got nan"),
        ({"plans_seed_xyz_mm": [[[1, 2]]]}, GIVEN, r"plans_seed_xyz_mm\[0\]\[0\]: expected x, y, z, got 2"),
        (
            {"plans_seed_xyz_mm": [[[1, 2, None]]]},
            GIVEN,
            r"plans_seed_xyz_mm\[0\]\[0\]\[2\]: expected a finite",
        ),
        ({"plans_seed_xyz_mm": [[[0, 0, 0]] * 1001]}, GIVEN, "1001 seeds, more than 1000"),
        ({"plans_seed_xyz_mm": [[]]}, GIVEN, "expected 1 to 1000 seeds, got 0"),
        ({"plans_seed_xyz_mm": 3}, GIVEN, "plans_seed_xyz_mm: expected a list, got 3"),
    ],
)
def test_seed_lists_that_do_not_do(document, options, message):
    with pytest.raises(InvalidInput, match=message):
        read_plan(document, **options)


def test_a_plan_json_holds_one_plan():
    with pytest.raises(InvalidInput, match="holds one plan, number 1 was asked for"):
        read_plan(DOCUMENT, index=1)


@pytest.mark.parametrize(
    ("case", "plans", "seeds", "needles"), [(1, 3, 104, 22), (2, 5, 116, 26), (3, 3, 124, 28)]
)
def test_clinical_plans(shared_dir, case, plans, seeds, needles):
    path = shared_dir / f"cases/ldr_clinical/case{case}_seeds.json"
    read = [read_plan(path, index=index, **GIVEN) for index in range(plans)]
    assert (len(read[0].seeds_xyz_mm), len(read[0].needles)) == (seeds, needles)
    for plan in read:
        assert plan.lattice is not None
        assert plan.lattice.template == Template((2.5, 2.5), 5.0, 13, 10)
        assert read_plan(plan_document(plan)) == plan
