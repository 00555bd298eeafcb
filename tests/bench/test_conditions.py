import gc
import os

import pytest

from trocar.bench.conditions import applied, parse_cpus
from trocar.runtime.errors import InvalidInput

ALLOWED = os.sched_getaffinity(0)


def test_cpus_are_read():
    first = min(ALLOWED)
    assert parse_cpus("") == frozenset()
    assert parse_cpus(f"{first}") == {first}
    assert parse_cpus(f"{first}-{first},{first}") == {first}


@pytest.mark.parametrize("text", ["x", "0-", "-1", "99999", "0,,x"])
def test_other_cpus_are_refused(text):
    with pytest.raises(InvalidInput, match="--cpus: expected"):
        parse_cpus(text)


def test_conditions_hold_within_and_not_after():
    one = frozenset({max(ALLOWED)})
    with applied(one, collect=False) as held:
        assert os.sched_getaffinity(0) == one
        assert not gc.isenabled()
    assert held == {"cpus": str(max(ALLOWED)), "garbage_collection": "between rounds"}
    assert os.sched_getaffinity(0) == ALLOWED
    assert gc.isenabled()
    with applied(frozenset(), collect=True) as held:
        assert gc.isenabled()
    assert held["garbage_collection"] == "on"
