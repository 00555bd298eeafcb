"""Anything the user may call a case, as a `Case`: read, matched to roles, completed, and said."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from trocar.planners.geometry import Margins, expand, extent_mm, rasterise_contours, runs, slab_volume_cc
from trocar.planners.io.contours import Contour, contours_sha256, read_contours
from trocar.planners.io.dicom import is_dicom
from trocar.planners.io.identity import read_identity
from trocar.planners.io.named import MAX_FILE_BYTES, NamedContours, clean_name, listed
from trocar.planners.io.roles import match_roles
from trocar.planners.io.rtstruct import find_rtstruct, read_rtstruct
from trocar.planners.io.segmentation import read_segmentation
from trocar.planners.types import ROLES, Case, Structure, require
from trocar.runtime.errors import InvalidInput

# The usual pre-plan margin (GEC-ESTRO: Salembier et al., Radiother Oncol 83, 2007: 3 mm, none towards
# the rectum).
PTV_MARGINS_MM = Margins(left=3.0, right=3.0, anterior=3.0, posterior=0.0, superior=3.0, inferior=3.0)
ASSUMED_URETHRA_MM = 5.0
MAX_PHANTOM_SEED = 2**32 - 1
# A gap of so many times the usual slice pitch is worth a sentence.
BRIDGE_SAID_AT = 1.6


def load_case(
    spec: str, *, labels: Mapping[str, int] | None = None, roles: Mapping[str, str] | None = None
) -> Case:
    """Load what a command line calls CASE.

    Parameters
    ----------
    spec : a `.seg.nrrd`, a label NRRD (with `labels`), a DICOM RTSTRUCT file or a folder holding one,
        or `phantom:SEED`.
    labels : structure name to voxel value, for a label NRRD.
    roles : role to structure name where the usual names do not fit; "none" leaves a role out.

    Raises
    ------
    InvalidInput
        The file cannot be used, or holds no target; one line says why.
    """
    if spec.startswith("phantom:"):
        return _phantom(spec)
    path = Path(spec)
    try:
        if path.is_dir():
            path = find_rtstruct(path)
        require(path.is_file(), f'no such case: "{clean_name(spec)}"')
        size = path.stat().st_size
        require(size <= MAX_FILE_BYTES, f"the case file has {size} bytes, more than {MAX_FILE_BYTES}")
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(f'case "{clean_name(spec)}" cannot be read: {reason}') from None
    return case_from_bytes(data, filename_hint=path.name, labels=labels, roles=roles)


def case_from_bytes(
    data: bytes,
    *,
    filename_hint: str = "case",
    labels: Mapping[str, int] | None = None,
    roles: Mapping[str, str] | None = None,
) -> Case:
    """Read a case file's bytes; what it is shows in its first bytes, not in its name."""
    require(len(data) > 0, "the case file is empty")
    dicom = data[:4] != b"NRRD" and is_dicom(data)
    if data[:4] == b"NRRD":
        found = read_segmentation(data, labels=labels)
    elif dicom:
        require(not labels, "--labels is for a label NRRD, this is DICOM")
        found = read_rtstruct(data)
    else:
        raise InvalidInput(f"the case is neither NRRD nor DICOM: it begins with {data[:8]!r}")
    name = re.sub(r"(\.seg)?\.(nrrd|dcm)$", "", clean_name(filename_hint), flags=re.IGNORECASE)
    case = _cast(found, name, hashlib.sha256(data).hexdigest(), roles)
    if not dicom:
        return case
    contoured = {one.name for role, one in case.structures.items() if role not in case.derived}
    return replace(case, identity=read_identity(data, contoured))


def case_from_contours(
    structures: Mapping[str, Sequence[Contour]],
    *,
    name: str = "request",
    roles: Mapping[str, str] | None = None,
) -> Case:
    """Make a case of closed polygons: structure name to (z_mm, (n, 2) x, y mm) each, patient LPS."""
    found = read_contours(structures)
    return _cast(found, clean_name(name), contours_sha256(structures), roles)


def _phantom(spec: str) -> Case:
    text = spec.removeprefix("phantom:")
    require(
        bool(re.fullmatch(r"\d{1,10}", text, flags=re.ASCII)) and int(text) <= MAX_PHANTOM_SEED,
        f'phantom: expected a seed from 0 to {MAX_PHANTOM_SEED}, got "{clean_name(text)}"',
    )
    from trocar.planners.phantom import phantom_case

    return phantom_case(int(text))


def _cast(found: NamedContours, name: str, sha256: str, roles: Mapping[str, str] | None) -> Case:
    chosen = match_roles(found.names, roles)
    require(
        bool({"ctv", "ptv"} & chosen.keys()),
        f"no target structure (prostate, CTV or PTV) among: {listed(found.names)}",
    )
    built = found.build(chosen)
    return complete_case(name, built.structures, assumptions=built.assumptions, input_sha256=sha256)


def complete_case(
    name: str,
    structures: Mapping[str, Structure],
    *,
    assumptions: Sequence[str] = (),
    input_sha256: str = "",
    phantom_seed: int | None = None,
) -> Case:
    """Derive what is missing and say so.

    PTV = CTV + 3 mm (0 posterior); CTV = PTV where only that is drawn; urethra = a straight 5 mm tube
    along z through the CTV's centroid. Rectum and bladder are never invented.

    Parameters
    ----------
    structures : by role; a CTV or a PTV at least.

    Raises
    ------
    InvalidInput
        No target, or an empty structure.
    """
    parts = dict(structures)
    notes, derived = list(assumptions), {}
    require(bool({"ctv", "ptv"} & parts.keys()), "no target structure (prostate, CTV or PTV)")
    for part in parts.values():
        extent_mm(part)  # refuses an empty one
    if "ctv" not in parts:
        parts["ctv"] = replace(parts["ptv"], role="ctv")
        notes.append(
            f"No CTV was contoured: the PTV ({slab_volume_cc(parts['ctv']):.1f} cc) was taken for it."
        )
    if "ptv" not in parts:
        parts["ptv"] = expand(parts["ctv"], PTV_MARGINS_MM, name="PTV (derived)", role="ptv")
        derived["ptv"] = (
            f"No PTV was contoured: the CTV ({slab_volume_cc(parts['ctv']):.1f} cc) was grown by 3 mm, 0 mm "
            f"posterior, to {slab_volume_cc(parts['ptv']):.1f} cc."
        )
        notes.append(derived["ptv"])
    if "urethra" not in parts:
        parts["urethra"], x_mm, y_mm = _assumed_urethra(parts["ctv"])
        derived["urethra"] = (
            f"No urethra was contoured: a straight tube of {ASSUMED_URETHRA_MM:g} mm diameter along z "
            f"through the CTV's centroid (x = {x_mm:.1f}, y = {y_mm:.1f} mm) was assumed."
        )
        notes.append(derived["urethra"])
    if "rectum" not in parts:
        notes.append("No rectum was contoured: rectal dose was not checked.")
    if "bladder" not in parts:
        notes.append("No bladder was contoured: bladder dose was not checked.")
    notes += [note for role, part in parts.items() for note in _gap_notes(role, part)]
    ctv_cc, ptv_cc = slab_volume_cc(parts["ctv"]), slab_volume_cc(parts["ptv"])
    if ptv_cc < 0.98 * ctv_cc:
        notes.append(
            f"The PTV ({ptv_cc:.1f} cc) is smaller than the CTV ({ctv_cc:.1f} cc); both were used as drawn."
        )
    ordered = {role: parts[role] for role in ROLES if role in parts}
    return Case(name, ordered, tuple(notes), input_sha256, phantom_seed, derived=derived)


def _assumed_urethra(ctv: Structure) -> tuple[Structure, float, float]:
    box = extent_mm(ctv)
    _, ny, nx = ctv.occupancy_zyx.shape
    (ox, oy), (sy, sx) = ctv.origin_xy_mm, ctv.spacing_yx_mm
    # Slices may be uneven: weigh each by the part of z it stands for.
    weight = np.gradient(ctv.z_mm) if len(ctv.z_mm) > 1 else np.ones(1)
    flat = np.tensordot(weight, ctv.occupancy_zyx.astype(np.float64), axes=1)
    x = float(flat.sum(axis=0) @ (ox + sx * np.arange(nx)) / flat.sum())
    y = float(flat.sum(axis=1) @ (oy + sy * np.arange(ny)) / flat.sum())
    turn = np.linspace(0.0, 2.0 * np.pi, 72, endpoint=False)
    circle = np.stack(
        [x + 0.5 * ASSUMED_URETHRA_MM * np.cos(turn), y + 0.5 * ASSUMED_URETHRA_MM * np.sin(turn)], 1
    )
    low, high = box.z_mm
    count = max(2, int(np.ceil((high - low) / 5.0)))
    z = low + (high - low) * (np.arange(count) + 0.5) / count
    return rasterise_contours("urethra (assumed)", "urethra", [(float(at), circle) for at in z]), x, y


def _gap_notes(role: str, part: Structure) -> list[str]:
    """Say which gaps along z were left empty, and which were bridged."""
    pieces = runs(part)
    notes = [
        f'The {role} "{part.name}" has a gap between z = {below.high_mm:.1f} and {above.low_mm:.1f} mm, '
        f"left empty."
        for below, above in pairwise(pieces)
    ]
    gaps = np.diff(part.z_mm)
    bridged = [gap for piece in pieces for gap in gaps[piece.first : piece.last]]
    usual = float(np.median(gaps))
    wide = [gap for gap in bridged if gap > BRIDGE_SAID_AT * usual]
    if wide:
        notes.append(
            f'The {role} "{part.name}" is contoured every {usual:g} mm except for {len(wide)} wider gap(s) '
            f"of up to {max(wide):g} mm; its shape there was interpolated."
        )
    return notes
