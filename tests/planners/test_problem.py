from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trocar.planners.dose.reference import dose_gy
from trocar.planners.problem import build_problem
from trocar.planners.rules import needle_clearances_mm
from trocar.planners.types import Lattice, Planes, Template
from trocar.runtime.errors import InvalidInput
from trocar.runtime.kernels.anneal import POINT_MULTIPLE


def test_matrix_is_the_reference_dose_in_prescriptions(small_problem, engine, protocol):
    random = np.random.default_rng(5)
    rows = random.integers(len(small_problem.matrix), size=6)
    columns = random.integers(small_problem.matrix.shape[1], size=300)
    points = small_problem.samples.points_xyz_mm[columns]
    for row in rows:
        seed = small_problem.candidates.centres_xyz_mm[[row]]
        expected = dose_gy(engine.source, points, seed, protocol.strength_u) / 145.0
        np.testing.assert_allclose(
            small_problem.matrix[row, columns], np.minimum(expected, 4.0), rtol=2e-5, atol=1e-6
        )


def test_strata_are_disjoint_and_hold_each_structure_whole(small_problem, small_volumes):
    samples, (_, volumes) = small_problem.samples, small_volumes
    assert len(set(samples.roles)) == len(samples.roles)
    counts = np.diff(samples.starts)
    assert (counts % POINT_MULTIPLE == 0).all()
    for role in ("ctv", "ptv", "urethra"):
        sampled_cc = sum(
            counts[s] * samples.point_cc[s] for s, roles in enumerate(samples.roles) if role in roles
        )
        assert sampled_cc == pytest.approx(volumes.volume_cc(role), rel=0.05)


def test_points_lie_in_the_structures_of_their_stratum(small_problem, small_volumes):
    samples, (_, volumes) = small_problem.samples, small_volumes
    grid = volumes.grid
    for s, roles in enumerate(samples.roles):
        points = samples.points_xyz_mm[samples.starts[s] : samples.starts[s + 1]]
        index = np.rint((points[:, ::-1] - grid.origin_xyz_mm[::-1]) / grid.spacing_zyx_mm).astype(int)
        for role in ("ctv", "ptv", "urethra", "rectum"):
            inside = volumes.fractions[role][tuple(index.T)] >= 0.5
            assert inside.all() if role in roles else not inside.any()


def test_sampled_volumes_of_dose_are_the_grid_s(small_problem, small_volumes, engine, protocol):
    """What the search counts on its samples is what the grid holds, within a sampling error."""
    _, volumes = small_volumes
    random = np.random.default_rng(8)
    chosen = random.choice(len(small_problem.matrix), size=60, replace=False)
    seeds = small_problem.candidates.centres_xyz_mm[chosen]
    on_grid = engine.grid_gy(seeds, protocol.strength_u, volumes.grid) / 145.0
    on_samples = small_problem.matrix[chosen].sum(axis=0)
    samples = small_problem.samples
    weight = np.repeat(samples.point_cc, np.diff(samples.starts))
    for role in ("ctv", "ptv"):
        mask = np.repeat([role in roles for roles in samples.roles], np.diff(samples.starts))
        fraction = volumes.fractions[role]
        for level in (0.8, 1.0, 1.5):
            sampled = weight[mask & (on_samples >= level)].sum() / weight[mask].sum()
            whole = fraction[on_grid >= level].sum() / fraction.sum()
            assert sampled == pytest.approx(whole, abs=0.02)


def test_candidates_keep_to_the_target(small_problem, small_volumes, protocol):
    lattice, volumes = small_volumes
    inside = np.argwhere(volumes.fractions["ptv"] >= 0.5)
    grid = volumes.grid
    box_low = grid.points_xyz_mm(inside.min(axis=0)[None])[0] - protocol.geometry.candidate_margin_mm - 1
    box_high = grid.points_xyz_mm(inside.max(axis=0)[None])[0] + protocol.geometry.candidate_margin_mm + 1
    centres = small_problem.candidates.centres_xyz_mm
    assert ((centres >= box_low) & (centres <= box_high)).all()
    holes = lattice.template.columns * lattice.template.rows * lattice.planes.count
    assert 0.1 * holes < len(centres) < 0.7 * holes


def test_no_candidate_leads_through_the_urethra(small_problem, small_volumes, protocol):
    _, volumes = small_volumes
    clearance = needle_clearances_mm(small_problem.candidates.centres_xyz_mm[:, :2], volumes)
    assert clearance.min() >= protocol.geometry.urethra_clearance_mm


def test_needles_carry_their_seeds(small_problem):
    sites = small_problem.candidates
    hole = sites.hole[len(sites.hole) // 2]
    chosen = np.flatnonzero(sites.hole == hole)[::2]
    (needle,) = small_problem.needles(list(chosen)[::-1])
    assert list(needle.seeds_z_mm) == sorted(sites.centres_xyz_mm[chosen, 2])
    assert (needle.x_mm, needle.y_mm) == pytest.approx(tuple(sites.centres_xyz_mm[chosen[0], :2]))


def test_a_lattice_far_from_the_target_is_refused(small_volumes, engine, protocol):
    _, volumes = small_volumes
    away = Lattice(Template((500.0, 500.0)), Planes(0.0))
    with pytest.raises(InvalidInput, match="no template hole lies within 3 mm of the PTV"):
        build_problem(volumes, away, engine, protocol, strength_u=0.42, prescription_gy=145.0, seed=0)


def test_goals_without_their_structure_are_left_out(small_volumes, engine, protocol):
    lattice, volumes = small_volumes
    kept = replace(volumes, fractions={r: f for r, f in volumes.fractions.items() if r != "rectum"})
    problem = build_problem(kept, lattice, engine, protocol, strength_u=0.42, prescription_gy=145.0, seed=0)
    rectal = sum(goal.role == "rectum" for goal in protocol.search.goals)
    assert len(problem.goals) == len(protocol.search.goals) - rectal
