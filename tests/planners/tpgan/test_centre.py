from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from trocar.planners.io.plans import plan_document
from trocar.planners.io.seg_writer import write_seg_nrrd
from trocar.planners.tpgan.centre import centre_example, centre_plans, example_of
from trocar.planners.types import Lattice, Plan, Planes, Template
from trocar.runtime.errors import InvalidInput


@pytest.fixture(scope="module")
def plan(small_problem):
    """Seeds on the odd board: half of the holes, every other plane of each."""
    sites, lattice = small_problem.candidates, small_problem.lattice
    row, column = np.divmod(sites.hole, lattice.template.columns)
    odd = ((row + column) % 2 == 1) & ((sites.plane + column) % 2 == 0)
    return Plan("i125-6711", 0.5, 145.0, small_problem.needles(np.flatnonzero(odd)), lattice)


def test_the_seeds_of_a_plan_stand_where_they_stood(small_case, plan, protocol, engine):
    example = example_of(small_case, plan, protocol, engine)
    assert example.seeds.sum() == len(plan.seeds_xyz_mm)
    assert example.strength == pytest.approx(0.5 / 145.0)
    # Distances between seeds are the plan's, whatever the window.
    placed = np.argwhere(example.seeds) * 5.0
    wanted = plan.seeds_xyz_mm[:, ::-1]
    np.testing.assert_allclose(
        np.sort(placed - placed.min(axis=0), axis=0), np.sort(wanted - wanted.min(axis=0), axis=0), atol=0.05
    )
    assert (example.features[4][example.seeds == 1] == 1).all()


def test_either_board_is_learned_as_the_canonical_one(small_case, plan, protocol, engine):
    example = example_of(small_case, plan, protocol, engine)
    plane, row, column = np.nonzero(example.seeds)
    assert ((row + column) % 2 == 0).all()
    assert ((plane + column) % 2 == 0).all()


def test_planes_that_a_seed_list_does_not_name_are_added(small_case, plan, protocol, engine):
    whole = example_of(small_case, plan, protocol, engine)
    used = plan.seeds_xyz_mm[:, 2]
    count = round((used.max() - used.min()) / 5.0) + 1
    fewer = replace(plan, lattice=Lattice(plan.lattice.template, Planes(float(used.min()), 5.0, count)))
    again = example_of(small_case, fewer, protocol, engine)
    np.testing.assert_array_equal(again.seeds, whole.seeds)
    np.testing.assert_array_equal(again.features, whole.features)


def test_plans_that_no_lattice_holds_are_refused(small_case, plan, protocol, engine):
    with pytest.raises(InvalidInput, match="template and planes, or seeds on one lattice"):
        example_of(small_case, replace(plan, lattice=None), protocol, engine)
    wide = Lattice(Template((-36.0, -36.0), 6.0, 13, 13), plan.lattice.planes)
    with pytest.raises(InvalidInput, match="a lattice of 5 mm, got 6 mm"):
        example_of(small_case, replace(plan, lattice=wide), protocol, engine)
    aside = tuple(replace(needle, x_mm=needle.x_mm + 2.0) for needle in plan.needles)
    with pytest.raises(InvalidInput, match=r"expected most seeds at lattice sites near the PTV, got 0 of"):
        example_of(small_case, replace(plan, needles=aside), protocol, engine)


def test_a_folder_is_read_in_pairs(small_case, plan, protocol, engine, tmp_path):
    (tmp_path / "one.seg.nrrd").write_bytes(write_seg_nrrd(small_case))
    (tmp_path / "one_plan.json").write_text(json.dumps(plan_document(plan)))
    (tmp_path / "notes.txt").write_text("not a case")
    found = centre_plans(tmp_path)
    assert [(held.name, held.plan_path.name) for held in found] == [("one", "one_plan.json")]
    example = centre_example(found[0], protocol, engine, strength_u=0.42)
    assert example.seeds.sum() == len(plan.seeds_xyz_mm)
    assert example.strength == pytest.approx(0.5 / 145.0)


def test_a_folder_that_cannot_be_meant_is_refused_by_name(protocol, engine, tmp_path):
    with pytest.raises(InvalidInput, match="expected a folder of contours and plans"):
        centre_plans(tmp_path / "none")
    with pytest.raises(InvalidInput, match=r"expected NAME\.seg\.nrrd files"):
        centre_plans(tmp_path)
    (tmp_path / "one.seg.nrrd").write_bytes(b"NRRD0004\nnot really")
    with pytest.raises(InvalidInput, match=r"one\.seg\.nrrd has no plan: expected one_plan\.json or"):
        centre_plans(tmp_path)
    (tmp_path / "one_plan.json").write_text("{}")
    with pytest.raises(InvalidInput, match="--data: one: "):
        centre_example(centre_plans(tmp_path)[0], protocol, engine, strength_u=0.42)


def test_clinical_plans_become_examples(shared_dir, protocol, engine):
    for plan in centre_plans(shared_dir / "cases" / "ldr_clinical"):
        example = centre_example(plan, protocol, engine, strength_u=0.42)
        # 100 to 128 seeds, less those of needles through the urethra, which is assumed here.
        assert 80 <= example.seeds.sum() <= 128
