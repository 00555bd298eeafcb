"""The seed lattice of a case: template holes x planes."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np

from trocar.planners.geometry.shape import extent_mm
from trocar.planners.types import Case, Lattice, Planes, Template, require

_DEFAULT_PITCH_MM = 5.0
_DEFAULT_SIDE = 13
MAX_SIDE = 40
MAX_PLANES = 60


def default_lattice(
    case: Case, template: Template | None, planes: Planes | None
) -> tuple[Lattice, list[str]]:
    """The lattice a case is planned on, and what was assumed to get it.

    Without a template, 13 x 13 holes at 5 mm are centred on the PTV (column D on its middle); without
    planes, planes at 5 mm are centred on it from base to apex.

    Returns
    -------
    The lattice, and one sentence per assumption.

    Raises
    ------
    InvalidInput
        A pitch or count out of range; a target that reaches more than one pitch beyond the outermost
        holes or planes.
    """
    box = extent_mm(case.structures["ptv"])
    notes = []
    if template is None:
        half = 0.5 * _DEFAULT_PITCH_MM * (_DEFAULT_SIDE - 1)
        # Rounded again, so that a plan file reads 3.59 and not 3.5900000000000034.
        origin = (round(_middle(box.x_mm) - half, 2), round(_middle(box.y_mm) - half, 2))
        template = Template(origin, _DEFAULT_PITCH_MM, _DEFAULT_SIDE, _DEFAULT_SIDE)
        notes.append(
            f"No template was given: {_DEFAULT_SIDE} x {_DEFAULT_SIDE} holes at {_DEFAULT_PITCH_MM:g} mm "
            f"were centred on the PTV "
            f"(column A at x = {origin[0]:.2f} mm, anterior row at y = {origin[1]:.2f} mm)."
        )
    if planes is None:
        # Each plane stands for a slab of one pitch, so the outermost lie at most half a pitch inside.
        length = box.z_mm[1] - box.z_mm[0]
        count = max(1, int(np.ceil(length / _DEFAULT_PITCH_MM - 1e-6)))
        z0 = round(_middle(box.z_mm) - 0.5 * _DEFAULT_PITCH_MM * (count - 1), 2)
        planes = Planes(z0, _DEFAULT_PITCH_MM, count)
        notes.append(
            f"No planes were given: {count} planes at {_DEFAULT_PITCH_MM:g} mm from z = {z0:.2f} mm were "
            f"centred on the PTV ({box.z_mm[0]:.1f} to {box.z_mm[1]:.1f} mm)."
        )
    check_template(template)
    check_planes(planes)
    ends = (
        ("x", box.x_mm, template.origin_xy_mm[0], template.pitch_mm, template.columns, "template"),
        ("y", box.y_mm, template.origin_xy_mm[1], template.pitch_mm, template.rows, "template"),
        ("z", box.z_mm, planes.z0_mm, planes.pitch_mm, planes.count, "planes"),
    )
    for axis, (low, high), first, pitch, count, what in ends:
        last = first + pitch * (count - 1)
        require(
            low >= first - pitch - 1e-6 and high <= last + pitch + 1e-6,
            f"the target reaches outside the {what}: PTV {axis} = {low:.1f} to {high:.1f} mm, "
            f"{what} {axis} = {first:.1f} to {last:.1f} mm (at most one pitch of {pitch:g} mm beyond)",
        )
    return Lattice(template, planes), notes


def check_template(template: Template) -> None:
    """Raise `InvalidInput` unless a template's figures make sense."""
    require(
        all(map(np.isfinite, (*template.origin_xy_mm, template.pitch_mm))), "template: a figure is not finite"
    )
    require(template.pitch_mm > 0, f"template pitch: expected > 0 mm, got {template.pitch_mm:g}")
    for what, count in (("columns", template.columns), ("rows", template.rows)):
        require(1 <= count <= MAX_SIDE, f"template {what}: expected 1 to {MAX_SIDE}, got {count}")


def check_planes(planes: Planes) -> None:
    """Raise `InvalidInput` unless the planes' figures make sense."""
    require(all(map(np.isfinite, astuple(planes))), "planes: a figure is not finite")
    require(planes.pitch_mm > 0, f"planes pitch: expected > 0 mm, got {planes.pitch_mm:g}")
    require(1 <= planes.count <= MAX_PLANES, f"planes count: expected 1 to {MAX_PLANES}, got {planes.count}")


def _middle(side_mm: tuple[float, float]) -> float:
    """The middle of a box's side, to 0.01 mm so that a plan's figures stay readable."""
    return round(0.5 * (side_mm[0] + side_mm[1]), 2)
