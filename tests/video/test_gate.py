from __future__ import annotations

import numpy as np

from trocar.video.frames import Annotation, Quality
from trocar.video.gate import Gate, GateSettings

LABELS = np.zeros((1, 1), np.uint8)
CLEAR = Quality()


def told(
    gate: Gate, *, confidence: float = 0.9, quality: Quality = CLEAR, overlap: float = 0.8, in_time=True
) -> bool:
    gate.answered(Annotation(0, 0.0, LABELS, 2, (), confidence), quality, overlap=overlap, in_time=in_time)
    return gate.on


def opened(**settings: float) -> Gate:
    gate = Gate(GateSettings(on_after=3, **settings))
    assert [told(gate) for _ in range(3)] == [False, False, True]
    return gate


def test_overlays_begin_after_some_good_frames() -> None:
    gate = opened()
    assert gate.reason == ""
    assert gate.flips == 1


def test_a_late_answer_starts_the_count_again() -> None:
    gate = Gate(GateSettings(on_after=3))
    assert [told(gate), told(gate), told(gate, in_time=False), told(gate), told(gate)] == [False] * 5
    assert told(gate)


def test_a_value_between_the_thresholds_keeps_the_state_it_finds() -> None:
    between = Quality(smoke=0.75)
    gate = opened(smoke_off=0.8, smoke_on=0.7)
    assert all(told(gate, quality=between) for _ in range(50))
    gate.turn_off("late")
    assert not any(told(gate, quality=between) for _ in range(50))
    assert gate.reason == "smoke"


def test_noise_about_one_threshold_does_not_flicker() -> None:
    gate = opened()
    random = np.random.default_rng(3)
    for _ in range(1000):
        told(gate, quality=Quality(smoke=float(np.clip(0.8 + random.normal(0, 0.02), 0, 1))))
    assert gate.flips <= 3


def test_confidence_is_smoothed() -> None:
    gate = opened()
    assert told(gate, confidence=0.0)  # one bad frame is not enough
    assert not all(told(gate, confidence=0.2) for _ in range(10))
    assert gate.reason == "unsure"


def test_masks_that_jump_about_are_not_shown() -> None:
    gate = opened()
    assert not all(told(gate, overlap=0.0) for _ in range(20))
    assert gate.reason == "unsteady"


def test_out_of_body_turns_overlays_off_at_once() -> None:
    gate = opened()
    assert not told(gate, quality=Quality(out_of_body=0.9))
    assert gate.reason == "out of body"


def test_turning_off_twice_is_one_flip() -> None:
    gate = opened()
    gate.turn_off("late")
    gate.turn_off("failed")
    assert gate.flips == 2
    assert gate.reason == "failed"
