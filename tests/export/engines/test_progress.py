from __future__ import annotations

import pytest

from trocar.export.engines.progress import shown

EVENTS = [
    {"event": "start", "phase": "tensorrt for this GPU", "parent": None, "steps": None},
    {"event": "start", "phase": "Building", "parent": None, "steps": 2},
    {"event": "start", "phase": "Timing [x]", "parent": "Building", "steps": 3},
    {"event": "step", "phase": "Timing [x]", "step": 2},
    {"event": "finish", "phase": "Timing [x]"},
    {"event": "step", "phase": "Building", "step": 0},
]


@pytest.mark.parametrize("show", [True, False])
def test_the_last_word_is_what_came_of_it(show: bool) -> None:
    built = {"event": "built", "seconds": 1.0}
    assert shown([*EVENTS, built], show) == built
    assert shown(EVENTS, show) == {}, "a worker that died in between"
