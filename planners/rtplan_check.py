"""Whether permanent seeds of an RT Plan belong to the case, and to the source that is taken for them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trocar.planners.dose.source import SourceModel, source_keys
from trocar.planners.io.rtplan import BrachyPlan, BrachySource
from trocar.planners.protocol import same_isotope
from trocar.planners.types import Case, Finding, require

# Tables differ by less: 59.4 to 59.49 days for I-125.
HALF_LIFE_PCT = 1.0
# What an RT Plan has room for of a source's key.
MODEL_ID_CHARACTERS = 16


def named_source(source: BrachySource) -> str | None:
    """Return the shipped source that a plan names by its key, as our own plans do."""
    hits = [key for key in source_keys() if source.name and source.name == key[:MODEL_ID_CHARACTERS]]
    return hits[0] if len(hits) == 1 else None


def rtplan_findings(case: Case, plan: BrachyPlan, source: SourceModel) -> tuple[Finding, ...]:
    """Hold a plan of permanent seeds against the case and the source.

    Raises
    ------
    InvalidInput
        Another isotope; another frame of reference; or another structure set, and no frame that both are in.
    """
    found = (*_place(case, plan), *_source(plan.source, source))
    return tuple(Finding(rule, said, "", "", "warn", "RTPLAN") for rule, said in found)


def _place(case: Case, plan: BrachyPlan) -> Iterator[tuple[str, str]]:
    identity = case.identity
    if identity is None:
        if plan.frame_uid:
            said = (
                f"the plan is in frame of reference {plan.frame_uid}; the case names none: that both are in "
                f"the same one was assumed"
            )
            yield "plan_frame", said
        return
    require(
        not plan.frame_uid or plan.frame_uid in identity.frame_uids,
        f"RTPLAN: frame of reference: {plan.frame_uid} is not the case's "
        f"({', '.join(sorted(identity.frame_uids))})",
    )
    other_set = plan.structure_set_uid not in ("", identity.sop_uid)
    require(
        bool(plan.frame_uid) or not other_set,
        f"RTPLAN: structure set: {plan.structure_set_uid} is not the one given ({identity.sop_uid}), and the "
        f"plan names no frame of reference",
    )
    if other_set:
        said = (
            f"the plan was made on structure set {plan.structure_set_uid}, the case is {identity.sop_uid}: "
            f"other contours in the same frame of reference"
        )
        yield "plan_structure_set", said
    if not plan.frame_uid and not plan.structure_set_uid:
        yield "plan_frame", "the plan names neither a structure set nor a frame of reference"


def _source(named: BrachySource, source: SourceModel) -> Iterator[tuple[str, str]]:
    require(
        not named.isotope or same_isotope(named.isotope, source.isotope),
        f"RTPLAN: expected seeds of {source.isotope}, as {source.key} is, got {named.isotope}: name the "
        f"source with --source",
    )
    if not named.isotope:
        yield "plan_isotope", f"the plan names no isotope; {source.isotope} was taken"
    off_pct = 100.0 * (named.half_life_days / source.half_life_days - 1.0)
    if abs(off_pct) > HALF_LIFE_PCT:
        said = f"the plan's half-life is {named.half_life_days:g} days, {source.half_life_days:g} were taken"
        yield "plan_half_life", said
    if not _same_model(named.name, source):
        name = f'the plan calls its source model "{named.name}"' if named.name else "the plan names no source"
        yield "plan_source_model", f"{name}; {source.name} ({source.key}) was taken for it"


def _same_model(name: str, source: SourceModel) -> bool:
    """Whether a name such as `OncoSeed 6711` may be that of a source: a model number is in both."""
    if name == source.key[:MODEL_ID_CHARACTERS]:
        return True
    return bool(_numbers(name, source) & _numbers(f"{source.key} {source.name}", source))


def _numbers(text: str, source: SourceModel) -> set[str]:
    """Words with a digit, those of the isotope aside."""
    words = [one for one in re.findall(r"[a-z0-9]+", text.lower()) if re.search(r"\d", one)]
    mass = re.sub(r"\D", "", source.isotope)
    return {
        one
        for one in words
        if re.search(r"\d", one) and one != mass and not same_isotope(one, source.isotope)
    }
