from __future__ import annotations

import numpy as np
import pytest

from trocar.video.frames import Annotation, Instance
from trocar.video.tracker import Tracker, TrackerSettings, box_overlap

LABELS = np.zeros((1, 1), np.uint8)


def seen(time_s: float, *boxes: tuple[int, int, int, int], label: str = "instrument") -> Annotation:
    instances = tuple(Instance(label, box, 100, 0.9) for box in boxes)
    return Annotation(0, time_s, LABELS, 2, instances)


def numbers(tracker: Tracker, annotation: Annotation) -> list[int]:
    return [one.track for one in tracker.track(annotation).instances]


def test_an_instrument_keeps_its_number_while_it_moves() -> None:
    tracker = Tracker(TrackerSettings())
    found = [
        numbers(tracker, seen(i / 25, (10 + 4 * i, 10, 50 + 4 * i, 40), (200, 100, 260, 160)))
        for i in range(20)
    ]
    assert found == [[1, 2]] * 20


def test_numbers_follow_the_instruments_when_their_order_changes() -> None:
    tracker = Tracker(TrackerSettings())
    left, right = (10, 10, 60, 60), (300, 10, 360, 60)
    assert numbers(tracker, seen(0.0, left, right)) == [1, 2]
    assert numbers(tracker, seen(0.04, right, left)) == [2, 1]


def test_a_hidden_instrument_keeps_its_number_for_a_while_and_no_longer() -> None:
    tracker = Tracker(TrackerSettings(keep_s=0.4))
    box = (10, 10, 60, 60)
    assert numbers(tracker, seen(0.0, box)) == [1]
    assert numbers(tracker, seen(0.2)) == []
    assert numbers(tracker, seen(0.4, box)) == [1]
    assert numbers(tracker, seen(0.9, box)) == [2]


def test_a_number_is_never_given_twice() -> None:
    tracker = Tracker(TrackerSettings(keep_s=0.0))
    given = [numbers(tracker, seen(float(i), (10, 10, 60, 60)))[0] for i in range(10)]
    assert given == list(range(1, 11))


def test_another_class_is_another_instrument() -> None:
    tracker = Tracker(TrackerSettings())
    box = (10, 10, 60, 60)
    assert numbers(tracker, seen(0.0, box)) == [1]
    assert numbers(tracker, seen(0.04, box, label="polyp")) == [2]


def test_two_new_boxes_do_not_share_one_number() -> None:
    tracker = Tracker(TrackerSettings())
    box = (10, 10, 60, 60)
    assert numbers(tracker, seen(0.0, box)) == [1]
    assert sorted(numbers(tracker, seen(0.04, box, (12, 12, 62, 62)))) == [1, 2]


def test_a_clock_that_goes_back_begins_anew() -> None:
    tracker = Tracker(TrackerSettings())
    assert numbers(tracker, seen(5.0, (10, 10, 60, 60))) == [1]
    assert numbers(tracker, seen(1.0, (10, 10, 60, 60))) == [2]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 50 / 150),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 0, 0), (0, 0, 10, 10), 0.0),
    ],
)
def test_box_overlap_by_hand(first, second, expected) -> None:
    assert box_overlap(first, second) == pytest.approx(expected)
