"""The hard geometric rules of a needle plan, in plain Python.

The search's native rules are tested against these.

Source: needle patterns that BC Cancer's plans never have (Aleef et al., IJCARS 2021); seed spacing is
two planes, so that 4.5 mm seeds never touch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from trocar.planners.geometry import distance_outside_mm
from trocar.planners.protocol import GeometryRules
from trocar.planners.types import Anatomy, Finding, Float64Array, Needle, Plan, Template

TOLERANCE_MM = 0.05
DEFAULT_PITCH_MM = 5.0

Hole = tuple[int, int]

# Each pattern as offsets (column, row) from its first hole; found wherever all of them are used.
PATTERNS: dict[str, tuple[tuple[Hole, ...], ...]] = {
    "row3": (((0, 0), (1, 0), (2, 0)),),
    "column4": (((0, 0), (0, 1), (0, 2), (0, 3)),),
    "tee": (
        ((0, 0), (0, 1), (0, 2), (1, 1)),
        ((0, 0), (0, 1), (0, 2), (-1, 1)),
        ((0, 0), (1, 0), (2, 0), (1, 1)),
        ((0, 0), (1, 0), (2, 0), (1, -1)),
    ),
    "block2x2": (((0, 0), (1, 0), (0, 1), (1, 1)),),
}


def forbidden_patterns(
    holes: Iterable[Hole], names: Iterable[str] = tuple(PATTERNS)
) -> Iterator[tuple[str, Hole]]:
    """Yield every forbidden pattern among the used holes, with the hole it starts at."""
    used = set(holes)
    for name in names:
        for shape in PATTERNS[name]:
            for column, row in sorted(used):
                if all((column + dc, row + dr) in used for dc, dr in shape):
                    yield name, (column, row)


def tight_spacings_mm(needles: Iterable[Needle], minimum_mm: float) -> list[tuple[str, float]]:
    """Needles whose neighbouring seeds are closer than the minimum, with the smallest distance, mm."""
    found = []
    for needle in needles:
        gaps = np.diff(np.sort(needle.seeds_z_mm))
        if gaps.size and gaps.min() < minimum_mm - TOLERANCE_MM:
            found.append((needle.label, float(gaps.min())))
    return found


def adjacent_pairs(needles: tuple[Needle, ...], pitch_mm: float) -> list[tuple[str, str, float]]:
    """Seeds side by side in one plane: (label, label, z_mm) of needles one pitch apart along x or y."""
    found: list[tuple[str, str, float]] = []
    for i, first in enumerate(needles):
        for second in needles[i + 1 :]:
            dx, dy = abs(first.x_mm - second.x_mm), abs(first.y_mm - second.y_mm)
            if max(dx, dy) > pitch_mm + TOLERANCE_MM or min(dx, dy) > TOLERANCE_MM:
                continue
            shared = [z for z in first.seeds_z_mm if any(abs(z - w) < 0.5 for w in second.seeds_z_mm)]
            found.extend((first.label, second.label, z) for z in shared)
    return found


def holes_of(needles: Iterable[Needle], template: Template) -> tuple[dict[str, Hole], list[str]]:
    """Template hole of each needle, and the labels of needles that are in no hole."""
    holes, astray = {}, []
    for needle in needles:
        column = (needle.x_mm - template.origin_xy_mm[0]) / template.pitch_mm
        row = (needle.y_mm - template.origin_xy_mm[1]) / template.pitch_mm
        nearest = round(column), round(row)
        off_mm = max(abs(column - nearest[0]), abs(row - nearest[1])) * template.pitch_mm
        inside = 0 <= nearest[0] < template.columns and 0 <= nearest[1] < template.rows
        if off_mm > TOLERANCE_MM or not inside:
            astray.append(needle.label)
        else:
            holes[needle.label] = nearest
    return holes, astray


def seed_distances_mm(seeds_xyz_mm: Float64Array, anatomy: Anatomy, role: str = "ptv") -> Float64Array:
    """Distance of each seed centre from a structure, mm (0 inside); beyond the grid counts as far (inf)."""
    grid = anatomy.grid
    index = np.rint(
        (seeds_xyz_mm[:, ::-1] - np.asarray(grid.origin_xyz_mm[::-1])) / np.asarray(grid.spacing_zyx_mm)
    ).astype(int)
    on_grid = np.all((index >= 0) & (index < np.asarray(grid.shape_zyx)), axis=1)
    distance = np.full(len(seeds_xyz_mm), np.inf)
    if on_grid.any():
        field = distance_outside_mm(anatomy.fractions[role], grid.spacing_zyx_mm)
        distance[on_grid] = field[tuple(index[on_grid].T)]
    return distance


def needle_clearances_mm(xy_mm: Float64Array, anatomy: Anatomy, role: str = "urethra") -> Float64Array:
    """Distance of needle axes (n, 2) from a structure's outline as seen along z, mm; 0 inside it."""
    grid, seen = anatomy.grid, (anatomy.fractions[role] >= 0.5).any(axis=0)
    row, column = np.nonzero(seen)
    if not len(row):
        return np.full(len(xy_mm), np.inf)
    _, y, x = grid.axes_zyx_mm
    apart = np.hypot(xy_mm[:, :1] - x[column], xy_mm[:, 1:] - y[row]).min(axis=1)
    return np.asarray(np.maximum(apart - 0.5 * min(grid.spacing_zyx_mm[1:]), 0.0), dtype=np.float64)


def geometry_findings(plan: Plan, anatomy: Anatomy, rules: GeometryRules) -> tuple[Finding, ...]:
    """Check a plan's needles and seeds against the rules; one finding a rule, passed ones included.

    A seed far from the PTV and a needle near the urethra only warn: people choose them on purpose.
    """
    return tuple(_findings(plan, anatomy, rules))


def _findings(plan: Plan, anatomy: Anatomy, rules: GeometryRules) -> Iterator[Finding]:
    count = len(plan.needles)
    yield Finding(
        "max_needles",
        count,
        f"<= {rules.max_needles}",
        "needles",
        _severity(count <= rules.max_needles),
        rules.source,
    )
    yield _spacing_finding(plan, rules)
    if rules.no_adjacent_in_plane:
        pairs = adjacent_pairs(
            plan.needles, plan.lattice.template.pitch_mm if plan.lattice else DEFAULT_PITCH_MM
        )
        where = f"{pairs[0][0]} and {pairs[0][1]} at z = {pairs[0][2]:g} mm" if pairs else ""
        yield _none_allowed("adjacent_seeds", len(pairs), where, "pairs in one plane", rules)
    template = plan.lattice.template if plan.lattice else _inferred_template(plan)
    holes, astray = holes_of(plan.needles, template)
    yield _none_allowed("template_holes", len(astray), ", ".join(astray[:3]), "needles outside a hole", rules)
    for name in rules.forbidden_patterns:
        at = [hole for _, hole in forbidden_patterns(holes.values(), [name])]
        where = f"at {template.label(*at[0])}" if at else ""
        yield _none_allowed(f"needle_pattern_{name}", len(at), where, "patterns", rules)
    if "urethra" in anatomy.fractions and plan.needles:
        yield _urethra_finding(plan, anatomy, rules)
    if "ptv" in anatomy.fractions and len(plan.seeds_xyz_mm):
        worst_mm = float(seed_distances_mm(plan.seeds_xyz_mm, anatomy).max())
        # Distances on the grid are good to half a voxel.
        near = worst_mm <= rules.candidate_margin_mm + 0.5 * max(anatomy.grid.spacing_zyx_mm)
        yield Finding(
            "seed_outside_ptv",
            round(worst_mm, 2) if np.isfinite(worst_mm) else "off the grid",
            f"<= {rules.candidate_margin_mm:g}",
            "mm beyond the PTV",
            "pass" if near else "warn",
            rules.source,
        )


def _spacing_finding(plan: Plan, rules: GeometryRules) -> Finding:
    gaps = [(float(gap), n.label) for n in plan.needles for gap in np.diff(np.sort(n.seeds_z_mm))]
    tight = tight_spacings_mm(plan.needles, rules.min_spacing_along_needle_mm)
    smallest_mm, label = min(gaps, default=(float("inf"), ""))
    measured: float | str = "one seed a needle" if not gaps else round(smallest_mm, 2)
    return Finding(
        "seed_spacing",
        f"{measured} in {label}, {len(tight)} needles" if tight else measured,
        f">= {rules.min_spacing_along_needle_mm:g}",
        "mm along a needle",
        _severity(not tight),
        rules.source,
    )


def _urethra_finding(plan: Plan, anatomy: Anatomy, rules: GeometryRules) -> Finding:
    axes = np.array([(needle.x_mm, needle.y_mm) for needle in plan.needles])
    clearance = needle_clearances_mm(axes, anatomy)
    nearest = int(clearance.argmin())
    kept = clearance[nearest] >= rules.urethra_clearance_mm
    least = round(float(clearance[nearest]), 2)
    return Finding(
        "needle_urethra_clearance",
        least if kept else f"{least} at {plan.needles[nearest].label}",
        f">= {rules.urethra_clearance_mm:g}",
        "mm from the urethra",
        "pass" if kept else "warn",
        rules.source,
    )


def _inferred_template(plan: Plan) -> Template:
    """The smallest 5 mm template through the first needle that spans the plan, where the file names none."""
    x = np.array([needle.x_mm for needle in plan.needles] or [0.0])
    y = np.array([needle.y_mm for needle in plan.needles] or [0.0])
    columns, rows = (round((axis.max() - axis.min()) / DEFAULT_PITCH_MM) + 1 for axis in (x, y))
    return Template((float(x.min()), float(y.min())), DEFAULT_PITCH_MM, columns, rows)


def _none_allowed(rule: str, count: int, where: str, unit: str, rules: GeometryRules) -> Finding:
    measured: float | str = f"{count} ({where})" if where else float(count)
    return Finding(rule, measured, "0", unit, _severity(count == 0), rules.source)


def _severity(passed: bool) -> str:
    return "pass" if passed else "fail"
