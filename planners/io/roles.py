"""Which structure plays which role, by the names people use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from trocar.planners.io.named import listed
from trocar.planners.types import ROLES, require
from trocar.runtime.errors import InvalidInput

LEAVE_OUT = "none"

# Letters and digits of a name, lower case, tried in order: an earlier pattern beats a later one. A name
# must match as a whole, so that "Rectum_PRV", "PTV-CTV" or "Bladder avoid" play no role.
_USUAL: Mapping[str, tuple[str, ...]] = {
    "ctv": (
        "ctv",
        "ctvprostate|prostatectv|ctvp",
        "prostate|prostategland|wholeprostate|prostata",
        "prost|gland|wholegland",
        r"ctv\d+|ctvprostate\d+",
    ),
    "ptv": ("ptv", "ptvprostate|prostateptv|ptvp", r"ptv\d+(gy)?|ptvprostate\d+(gy)?"),
    "urethra": ("urethra", "prostaticurethra|urethraprostatic|uretra", "ureth|urethralumen|urethracatheter"),
    "rectum": ("rectum", "rect|rektum|rectumouter|outerrectum", "rectalwall|rectumwall|anteriorrectalwall"),
    "bladder": ("bladder", "urinarybladder|bladderouter|blad", "bladderwall"),
}


def normalised(name: str) -> str:
    """Reduce a name to its letters and digits in lower case."""
    return re.sub(r"[\W_]+", "", name).casefold()


def match_roles(names: Sequence[str], overrides: Mapping[str, str] | None = None) -> dict[str, int]:
    """Find the structure of each role.

    Parameters
    ----------
    names : the file's structures.
    overrides : role to name; the name "none" leaves a role out.

    Returns
    -------
    Role to index into `names`; roles without a match are absent.

    Raises
    ------
    InvalidInput
        An override names an unknown role or structure; two names fit a role equally well.
    """
    chosen: dict[str, int] = {}
    given = dict(overrides or {})
    for role, name in given.items():
        require(role in ROLES, f'unknown role "{role}": expected one of {listed(ROLES)}')
        if name.casefold() != LEAVE_OUT:
            chosen[role] = _named(names, role, name)
    for role in ROLES:
        if role not in given:
            index = _usual(names, role)
            if index is not None:
                chosen[role] = index
    return chosen


def _named(names: Sequence[str], role: str, name: str) -> int:
    """Index of an overriding name: the exact one, or else the only one that differs by case and marks."""
    exact = [index for index, other in enumerate(names) if other == name]
    loose = [index for index, other in enumerate(names) if normalised(other) == normalised(name)]
    hits = exact or loose
    require(bool(hits), f'role {role}: no structure "{name}"; found {listed(names)}')
    require(len(hits) == 1, f'role {role}: {len(hits)} structures are called "{name}"')
    return hits[0]


def _usual(names: Sequence[str], role: str) -> int | None:
    plain = [normalised(name) for name in names]
    for pattern in _USUAL[role]:
        hits = [index for index, name in enumerate(plain) if re.fullmatch(pattern, name)]
        if len(hits) > 1:
            quoted = " and ".join(f'"{names[index]}"' for index in hits)
            advice = f"name the one to use, such as {role}={names[hits[0]]}"
            raise InvalidInput(f"role {role}: {quoted} fit equally well; {advice}")
        if hits:
            return hits[0]
    return None
